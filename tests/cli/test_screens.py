"""Every screen at 80 columns, in a real pseudo-terminal: no line is longer, no figure is cut, no word is broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.demo.provider import Order, provider

WIDTH = 80
SCOPE = "nightly/client:department-of-very-long-names-4711/micro_usd"
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A job as `init` writes it, and a provider that answers it, badly at first and quickly."""
    folder = tmp_path_factory.mktemp("screens")
    subprocess.run([sys.executable, "-m", "streamguard", "init", "."], cwd=folder, check=True, capture_output=True)
    store = SqliteStore(folder / "budget.db")
    store.configure([Scope(key=SCOPE, unit="micro_usd", cap=5_000_000, window="day")])
    store.reserve("a", {SCOPE: 2_000_000}, 60)
    store.settle("a", {SCOPE: Settlement(1_250_000, 250_000)})
    store.close()
    with provider(Order(bad_answers=0.8, speed=50.0)).in_thread() as server:
        yield folder, server.url


def screen(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """The exit code, and every line that a terminal of 80 columns was sent, each picture of a live line too."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, WIDTH))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard", *arguments],
        cwd=folder,
        env={**environment, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    came: list[bytes] = []

    def read() -> None:
        while True:
            try:
                came.append(os.read(ours, 65536))
            except OSError:  # the last end of the terminal was closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    reader.join()
    os.close(ours)
    text = _STYLE.sub("", b"".join(came).decode())
    return code, [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_progress_and_summary(job: tuple[Path, str]) -> None:
    """Done, left and the money against the budget come first, the rest below; then the summary with its examples."""
    folder, url = job
    code, lines = screen(folder, "run", "job.yaml", "--base-url", url, "-j", "4")
    assert code in (0, 3)
    pictures = [line for line in lines if " done · " in line]
    assert pictures
    assert re.fullmatch(
        r"[━╸╺ ]+ \d+/20 done( · [\d.]+ m?s left)? · budget \$\d\.\d\d of \$1\.00( · .*)?", pictures[-1]
    )
    assert [line for line in lines if cell_len(line) > WIDTH] == []
    assert [line for line in lines if line.endswith("…")] == []
    assert any(line.split()[:1] == ["rows"] for line in lines)


COMMANDS = [
    (("status", "results.jsonl"), 0, "finished"),
    (("budget", "show", "budget.db"), 0, "spent $1.250000 · held $0.000000 · uncertain $0.250000"),
    (("check", "--explain", "policy.yaml", "job.yaml"), 0, "or as long as the"),
    (("check", "none.yaml"), 2, "none.yaml: no such file"),
    (("report", "results.jsonl", "--html", "report.html"), 0, "report.html: written"),
    (("run", "job.yaml", "--dry-run"), 0, "nothing was sent"),
    (("explain", "invoices.jsonl"), 3, "dead at byte"),
    (("demo", "--documents", "2"), 0, "valid answers"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), COMMANDS, ids=[" ".join(one[0]) for one in COMMANDS])
def test_screens(job: tuple[Path, str], arguments: tuple[str, ...], code: int, said: str) -> None:
    """Nothing is longer than a line of the terminal, unless it is one word, which is left whole to be copied."""
    folder, url = job
    if not (folder / "results.jsonl").exists():
        screen(folder, "run", "job.yaml", "--base-url", url, "--quiet")
    found, lines = screen(folder, *arguments)
    assert found == code
    assert said in "\n".join(lines)
    assert [line for line in lines if cell_len(line) > WIDTH] == []


def test_a_row_s_story(job: tuple[Path, str]) -> None:
    """Messages go on below their text; what was decided stands in the same column."""
    folder, url = job
    if not (folder / "results.jsonl").exists():
        screen(folder, "run", "job.yaml", "--base-url", url, "--quiet")
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    asked_again = next(one["custom_id"] for one in results if "json.schema" in one["streamguard"]["reasons"])
    code, lines = screen(folder, "status", "results.jsonl", "--show-row", asked_again)
    assert code == 0
    assert any(line.startswith(" " * 13 + "→ retry by rule") for line in lines)
    assert [line for line in lines if cell_len(line) > WIDTH and len(line.split()) > 1] == []


def test_a_scope_is_a_line_of_its_own(job: tuple[Path, str]) -> None:
    """So it can be copied into `budget reconcile`."""
    folder, _ = job
    _, lines = screen(folder, "budget", "show", "budget.db")
    assert lines[0] == SCOPE
