"""The layers hold: imports go up only, and the pure ones touch no clock, no I/O and no SDK."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.data import ROOT

LAYERS: dict[str, tuple[str, ...]] = {
    "words": ("events", "verdict", "errors", "pricing", "tokens", "request", "frozen", "redaction", "yaml_positions"),
    "guards": ("guards", "viability", "usage"),
    "decisions": (
        "retry", "retry_bucket", "cooldown", "clamp", "bound", "budget", "policy", "policyfile", "policy_checks", "policy_problems",
        "policy_schema", "schema_file", "explain",
    ),
    "engine": (
        "source", "engine", "attempt", "callclock", "delivery", "runtime", "outcome", "telemetry", "telemetry_structlog",
        "ledger", "ledgers", "admission", "accounts", "pricebook", "dispatch", "recorder",
    ),
    "edges": (
        "adapters", "jobs", "http", "proxy", "replay", "testing", "cli", "commands", "terminal", "doors", "sync", "__init__",
        "__main__",
        "conversation", "relay", "snapshot", "view",
        "recordings", "demo", "local_model",
    ),
}  # fmt: skip
"""Lowest first; a module may import from its own layer and from those before it."""

PURE = ("words", "guards", "decisions")
FORBIDDEN = ("anyio", "asyncio", "time", "random", "anthropic", "structlog", "threading", "socket", "httpx2")
RANK = {module: rank for rank, modules in enumerate(LAYERS.values()) for module in modules}
PURE_MODULES = {module for layer in PURE for module in LAYERS[layer]}

FILES = sorted((ROOT / "streamguard").rglob("*.py"))


def unit(path: str) -> str:
    """The layer table's word for a file of the package."""
    return path.removesuffix(".py").split("/")[0]


def imports(source: str) -> list[tuple[str, bool]]:
    """The modules a file imports, and whether only type checkers see the import."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, True)
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "streamguard":
                found.extend((f"streamguard.{alias.name}", typing_only) for alias in node.names)
            else:
                found.append((node.module, typing_only))
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(ast.parse(source), False)
    return found


@pytest.mark.parametrize("path", [pytest.param(file, id=str(file.relative_to(ROOT / "streamguard"))) for file in FILES])
def test_imports_go_up_only(path) -> None:
    """A module imports nothing from a layer above its own, and a pure one nothing that has a clock or does I/O."""
    here = unit(str(path.relative_to(ROOT / "streamguard")))
    assert here in RANK, f"{here} stands in no layer: add it to the table"
    wrong = []
    for module, typing_only in imports(path.read_text()):
        top, _, rest = module.partition(".")
        if top == "streamguard" and rest and not typing_only:
            there = rest.split(".")[0]
            if there != here and RANK.get(there, 99) > RANK[here]:
                wrong.append(module)
        elif here in PURE_MODULES and top in FORBIDDEN:
            wrong.append(module)
    assert wrong == []


def test_import_is_light() -> None:
    """Importing the package loads neither the SDK nor rich nor structlog nor the price list."""
    code = (
        "import sys, streamguard; print(*sorted({'anthropic', 'rich', 'structlog', 'genai_prices'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_no_file_is_too_long() -> None:
    """No file of the package has a thousand lines."""
    assert [str(file) for file in FILES if len(file.read_text().splitlines()) >= 1000] == []


def test_public_names() -> None:
    """Every public name exists, once."""
    import streamguard

    assert len(streamguard.__all__) == len(set(streamguard.__all__))
    assert [name for name in streamguard.__all__ if not hasattr(streamguard, name)] == []
