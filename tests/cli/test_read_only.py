"""Folders and files that may be read and not written: looking works, and what must write says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, GOOD, Provider, run_job, write_job

SCOPE = "nightly/job:x/micro_usd"
_ALL_POWERFUL = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]
"""Takes from root what makes it pass by permissions."""

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root passes by permissions, and there is no setpriv"
)


def sg(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the program as somebody whom permissions bind."""
    bound = _ALL_POWERFUL if os.geteuid() == 0 else []
    command = [*bound, sys.executable, "-m", "streamguard", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A job of two rows, one of which failed, and a ledger; everything can be removed again at the end."""
    place = tmp_path / "job"
    place.mkdir()
    run_virtual(run_job, write_job(place, "a", "b"), Provider(a=[answer(GOOD)], b=[answer(DEAD)]))
    store = SqliteStore(place / "budget.db")
    store.configure([Scope(key=SCOPE, unit="micro_usd", cap=5_000_000)])
    store.reserve("a", {SCOPE: 2_000_000}, 60)
    store.settle("a", {SCOPE: Settlement(1_250_000, 250_000)})
    store.close()
    yield place
    place.chmod(0o755)


def closed(folder: Path, *, files: int, itself: int) -> None:
    for file in folder.iterdir():
        file.chmod(files)
    folder.chmod(itself)


def look(folder: Path) -> list[tuple[int, str]]:
    """What the three commands that only look say: exit codes, and the heart of each."""
    code, out, err = sg(folder, "status", "out.jsonl", "--json")
    found = json.loads(out) if out else {}
    assert err == ""
    shown = [(code, f"{found.get('succeeded')} {found.get('failed')}")]
    code, out, _ = sg(folder, "report", "out.jsonl", "--html", "-")
    shown.append((code, out[:15]))
    code, out, _ = sg(folder, "budget", "show", "budget.db", "--json")
    balance = json.loads(out) if out else {}
    return [*shown, (code, f"{balance.get('settled')} {balance.get('uncertain')}")]


SEEN = [(0, "1 {'json.schema': 1}"), (0, "<!doctype html>"), (0, "1250000 250000")]


@pytest.mark.parametrize(("files", "itself"), [(0o444, 0o555), (0o644, 0o555), (0o444, 0o755)])
def test_looking_needs_no_right_to_write(folder: Path, files: int, itself: int) -> None:
    """A read-only folder, read-only files, or both: status, report and budgets are shown, and nothing is made."""
    before = sorted(path.name for path in folder.iterdir())
    closed(folder, files=files, itself=itself)
    assert look(folder) == SEEN
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_stands_in_a_log_is_seen(folder: Path) -> None:
    """A process that was killed leaves its last transactions in SQLite's log: they count, where nobody may take it in."""
    changes = {
        "out.jsonl.journal": "DELETE FROM records WHERE key = 'b'",
        "budget.db": "UPDATE counters SET settled = 2000000",
    }
    for name, change in changes.items():
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as db:
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute(change)
            for end in ("", "-wal"):
                shutil.copy(folder / f"{name}{end}", folder / f"copy{end}")
        for end in ("", "-wal"):
            (folder / f"copy{end}").replace(folder / f"{name}{end}")
    closed(folder, files=0o444, itself=0o555)
    assert look(folder) == [(0, "1 {}"), SEEN[1], (0, "2000000 250000")]


def test_while_somebody_writes(folder: Path) -> None:
    """A run of another user is under way: what it has committed is seen."""
    with closing(sqlite3.connect(folder / "out.jsonl.journal", isolation_level=None)) as db:
        db.execute("DELETE FROM records WHERE key = 'b'")
        closed(folder, files=0o444, itself=0o555)
        assert look(folder)[0] == (0, "1 {}")
        folder.chmod(0o755)


def test_what_must_write_says_why_it_cannot(folder: Path) -> None:
    """One sentence and exit code 2."""
    closed(folder, files=0o444, itself=0o555)
    read_only = f"{folder}/budget.db: cannot be written: the file, its folder or the disk is read-only\n"
    assert [
        sg(folder, "budget", "set", "budget.db", SCOPE, "--cap", "1"),
        sg(folder, "budget", "reconcile", "budget.db", SCOPE, "--settled", "1"),
        sg(folder, "retry", "out.jsonl"),
        sg(folder, "report", "out.jsonl", "--html", "r.html"),
        sg(folder, "init", "new"),
    ] == [
        (2, "", read_only),
        (2, "", read_only),
        (2, "", "out.jsonl: cannot be written: permission denied\n"),
        (2, "", "r.html: cannot be written: Permission denied\n"),
        (2, "", "new: cannot be written: Permission denied\n"),
    ]


def test_what_cannot_be_read(folder: Path) -> None:
    """Says so, of the file that was asked for."""
    closed(folder, files=0o000, itself=0o755)
    assert sg(folder, "status", "out.jsonl") == (2, "", "out.jsonl.journal: cannot be read: permission denied\n")
    assert sg(folder, "budget", "show", "budget.db") == (2, "", "budget.db: cannot be read: permission denied\n")
    closed(folder, files=0o644, itself=0o000)
    assert sg(folder.parent, "status", "job/out.jsonl")[::2] == (
        2,
        "job/out.jsonl.journal: cannot be read: permission denied\n",
    )
    assert sg(folder.parent, "budget", "show", "job/budget.db")[::2] == (
        2,
        "job/budget.db: cannot be read: permission denied\n",
    )
