"""The layers hold: one table of packages says who may import whom, and the pure ones have no clock, no I/O and no SDK.

Every import counts: at the top of a file, inside a function, and those that only type checkers see.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.data import ROOT

PACKAGE = ROOT / "streamguard"

MAY_IMPORT: dict[str, str] = {
    # the words: plain data
    "redaction": "",
    "terminal": "",
    "request": "",
    "verdict": "",
    "pace.limits": "",
    "events": "verdict pace.limits",
    "usage": "events",
    "outcome": "verdict events usage pace.limits",
    "errors": "outcome",
    "conversation": "outcome errors",
    # texts and files
    "files": "errors",
    "files.reading": "",
    "files.python_names": "",
    "files.sqlite_file": "",
    "files.schema_file": "errors files files.reading",
    # state machines and decisions: pure
    "pricing": "events usage files",
    "viability": "errors files",
    "models": "errors files viability",
    "guards": "redaction request verdict events usage outcome errors files pricing viability models",
    "retry": "verdict events files guards",
    "budgets.known_options": "",
    "budgets.upper_bound": "request usage pricing budgets.known_options",
    "budgets.max_tokens": "request pricing guards budgets.upper_bound",
    "budgets.spec": "errors events usage pricing guards budgets.upper_bound",
    "pace": "files guards pace.limits retry",
    "policy": "pace redaction request verdict events errors files pricing models guards retry budgets.spec",
    # what reads files, prices of the day and ledgers
    "policy.file": "errors files files.reading files.python_names files.schema_file models guards policy",
    "policy.given": "errors files policy policy.file",
    "pricing.book": "request events errors pricing",
    "pace.stores": "redaction errors files files.sqlite_file pace pace.limits",
    "budgets": "redaction request events usage outcome errors files files.sqlite_file pricing budgets.upper_bound budgets.spec",
    # one call
    "source": "request verdict events errors guards policy",
    "engine": "pace pace.stores redaction request verdict events usage outcome pace.limits errors files pricing pricing.book guards retry budgets"
    " budgets.upper_bound budgets.max_tokens budgets.spec policy source",
    # the outside world
    "adapters.sse": "request events errors source",
    "adapters.aws": "events errors files source adapters.sse",
    "adapters.anthropic": "redaction request verdict events usage outcome pace.limits errors files pricing models guards policy"
    " policy.file policy.given source engine adapters.sse adapters.aws",
    "api": "events outcome errors guards retry policy policy.file policy.given source engine adapters.anthropic",
    "sync": "events outcome guards policy source engine adapters.anthropic api",
    "relay": "verdict events outcome errors files api",
    "http": "redaction terminal errors files guards",
    "view": "http request verdict events usage outcome errors files pricing guards budgets policy engine relay",
    "replay": "terminal request verdict events usage outcome errors files pricing pricing.book guards retry policy adapters.sse"
    " adapters.anthropic",
    "calibration": "request events errors guards policy adapters.sse adapters.anthropic replay",
    "jobs": "redaction request terminal verdict events usage outcome pace.limits pace errors files files.sqlite_file files.reading"
    " files.python_names files.schema_file pricing pricing.book models guards retry budgets budgets.upper_bound budgets.spec policy policy.file source engine"
    " adapters.anthropic",
    "batch": "redaction outcome errors usage files files.sqlite_file budgets budgets.upper_bound budgets.spec policy"
    " source engine adapters.anthropic api jobs",
    "testing": "request verdict events usage pace.limits errors files source adapters.sse adapters.anthropic",
    "demo": "terminal events errors files pricing pricing.book engine adapters.anthropic jobs testing",
    "proxy": "pace pace.limits http redaction request terminal verdict events usage outcome errors files files.reading guards retry"
    " budgets.known_options budgets.upper_bound budgets.spec policy policy.file source engine adapters.sse adapters.anthropic"
    " view adapters.aws",
    "cli": "redaction terminal verdict usage errors files files.reading files.schema_file files.sqlite_file pricing viability guards budgets"
    " budgets.upper_bound budgets.spec policy policy.file source engine adapters.anthropic jobs replay calibration demo view proxy",
    "__main__": "cli errors files",
    "__init__": "verdict events usage outcome errors conversation guards retry pricing budgets.spec policy policy.file"
    " source engine adapters.anthropic api sync relay",
}
"""Who may import whom, bottom first. A row names a package, or a module that differs from the rest of its package."""

PURE = frozenset(
    [
        "redaction",
        "request",
        "verdict",
        "events",
        "usage",
        "outcome",
        "errors",
        "pace",
        "files",
        "pricing",
        "viability",
        "guards",
        "models",
        "retry",
        "budgets.known_options",
        "budgets.upper_bound",
        "budgets.max_tokens",
        "budgets.spec",
        "policy",
    ]
)
FORBIDDEN = frozenset(
    [
        "anthropic",
        "anyio",
        "asyncio",
        "datetime",
        "httpx2",
        "importlib",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "shutil",
        "socket",
        "sqlite3",
        "structlog",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "trio",
    ]
)
"""What a pure package imports none of: clocks, I/O, chance, threads, dynamic imports, SDKs."""

PLAIN_DATES = {"errors": "the type of `retry_at`", "pricing.price": "the days between which a price holds"}
"""Pure modules that may name types of `datetime`. They read no clock: see `CLOCKS`."""

CLOCKS = {
    "adapters.anthropic.batches": "the deadline of closing a response",
    "engine.clock": "the running loop's clock, looked up once a call",
    "engine.failures": "the wall clock of `retry_at` in an error",
    "api": "the deadline of leaving a stream",
    "adapters.sse.read_ahead": "how long a read took, to tell a burst from a live stream",
    "adapters.anthropic.stream": "the same, and the deadline of closing",
    "adapters.anthropic.source": "the deadline of closing",
    "adapters.anthropic.clients": "the deadline of closing",
    "adapters.anthropic.middleware.source": "the deadline of closing",
    "adapters.anthropic.middleware.blocking": "the deadline of closing",
    "budgets.ledger": "leases",
    "budgets.queue": "the wait for room",
    "budgets.reservation": "leases",
    "budgets.stores.memory": "leases, and windows of days",
    "budgets.stores.redis": "until when a server may run what it was sent, and when it was last looked at",
    "budgets.stores.sqlite": "leases, windows of days, and the wait for a locked file",
    "engine.runtime": "when a shared pace is told its last reports",
    "files.sqlite_file": "how long it has waited for other processes",
    "pace.stores.redis": "the server's clock between its answers",
    "pace.stores.sqlite": "the clock of one machine",
    "pricing.book": "which of a model's prices is today's",
}
"""Modules below the doors that read a clock, and which. Doors (jobs, proxy, view, relay, cli, demo, testing) may."""

DOORS = ("batch", "calibration", "jobs", "http", "proxy", "view", "relay", "replay", "cli", "demo", "testing")

MAX_LINES = 500
MAX_FILES = 16
MAX_ROOT = 14


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without `streamguard.`; the package itself is `__init__`."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = file
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imported(name: str) -> Iterator[str]:
    """What a module imports, typing-only and lazy imports included, by full dotted names."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def inside(name: str) -> frozenset[str]:
    """The modules of the package that a module imports."""
    found = set()
    for full in imported(name):
        top, _, rest = full.partition(".")
        if top == "streamguard":
            short = rest if rest in modules() else rest.rpartition(".")[0]
            found.add(short if short in modules() else "__init__")
    return frozenset(found - {name})


def unit(module: str) -> str:
    """The row of the table that a module belongs to: the longest that fits."""
    fitting = [row for row in MAY_IMPORT if module == row or module.startswith(row + ".")]
    if not fitting and any(row.startswith(module + ".") for row in MAY_IMPORT):
        return module  # the empty `__init__` of a folder whose subfolders have rows
    assert fitting, f"{module} has no row: add it to the table"
    return max(fitting, key=len)


def test_the_table_goes_one_way() -> None:
    """A row allows only rows above it, so the packages cannot import each other in a circle."""
    above: set[str] = set()
    wrong = {}
    for row, allowed in MAY_IMPORT.items():
        wrong[row] = sorted(set(allowed.split()) - above)
        above.add(row)
    assert {row: rows for row, rows in wrong.items() if rows} == {}


@pytest.mark.parametrize("name", modules())
def test_imports_follow_the_table(name: str) -> None:
    """A module imports only what its row allows."""
    here = unit(name)
    allowed = {here, *MAY_IMPORT.get(here, "").split()}
    assert sorted(there for there in inside(name) if unit(there) not in allowed) == []


@pytest.mark.parametrize("name", [name for name in modules() if unit(name) in PURE])
def test_pure_modules_stay_pure(name: str) -> None:
    """A pure module imports no clock, no I/O, no chance and no dynamic import."""
    allowed = {"datetime"} if name in PLAIN_DATES else set()
    assert sorted({full.split(".")[0] for full in imported(name)} & (FORBIDDEN - allowed)) == []


def test_only_named_modules_read_a_clock() -> None:
    """Below the doors, the modules that read a clock are those of the list, no more and no fewer."""
    calls = {"current_time", "time", "monotonic", "perf_counter", "now", "today", "utcnow"}
    sources = {"anyio", "time", "datetime", "date", "perf_counter"}
    reading = set()
    for name in modules():
        if name.split(".")[0] in DOORS:
            continue
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and node.attr in calls and isinstance(node.value, ast.Name):
                if node.value.id in sources:
                    reading.add(name)
            elif isinstance(node, ast.Name) and node.id in ("perf_counter", "current_time", "backend_clock"):
                reading.add(name)
    assert sorted(reading) == sorted(CLOCKS)


def test_no_module_imports_itself_in_a_circle() -> None:
    """There is no circle of imports between files, typing-only and lazy imports counted."""
    assert circles({name: inside(name) for name in modules()}) == []


def circles(arrows: dict[str, frozenset[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        path.append(name)
        for there in arrows[name]:
            if there not in index:
                visit(there)
                low[name] = min(low[name], low[there])
            elif there in path:
                low[name] = min(low[name], index[there])
        if low[name] == index[name]:
            group = path[path.index(name) :]
            del path[path.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def test_circles_are_found() -> None:
    """The search for circles finds one: the test above can fail."""
    assert circles({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b"), "d": frozenset()}) == [["b", "c"]]


def test_files_and_folders_stay_small() -> None:
    """No file is over 500 lines, no folder over 16 files, and the root has at most 14 modules."""
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules().items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    folders: dict[Path, int] = {}
    for file in modules().values():
        folders[file.parent] = folders.get(file.parent, 0) + 1
    assert {str(folder): count for folder, count in folders.items() if count > MAX_FILES} == {}
    assert folders[PACKAGE] <= MAX_ROOT


def test_import_is_light() -> None:
    """Importing the package loads neither the SDK nor rich nor structlog nor the price list."""
    code = (
        "import sys, streamguard; print(*sorted({'anthropic', 'rich', 'structlog', 'genai_prices'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_public_names() -> None:
    """Every public name exists, once."""
    import streamguard

    assert len(streamguard.__all__) == len(set(streamguard.__all__))
    assert [name for name in streamguard.__all__ if not hasattr(streamguard, name)] == []
