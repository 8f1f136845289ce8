"""The standard streams of a command: closed ones, and encodings that cannot say everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.budgets.spec import Scope
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, GOOD, Provider, run_job, write_job


def sh(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command of the shell, where `sg` is the program."""
    line = command.replace("sg ", f"{sys.executable} -m streamguard ", 1)
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, check=False, cwd=folder, env=os.environ | environment, timeout=60
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gbk"])
def test_narrow_encodings(encoding: str, tmp_path: Path) -> None:
    """What cannot be said is spelled out, and the exit code means what it means."""
    (tmp_path / "s.json").write_text('{"properties": {"größe": {"enum": ["groß"]}}}', encoding="utf-8")
    (tmp_path / "d.json").write_text('{"größe": "grün😀"}', encoding="utf-8")
    done = sh("sg explain --schema s.json d.json", tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"dead at byte" in done.stdout
    assert done.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("sg explain - <&-", 2),
        ("sg replay - --policy streamguard:extraction <&-", 2),
        ("sg run - --policy streamguard:extraction --out x <&-", 2),
        ("sg check missing.yaml 2>&-", 2),
        ("sg check streamguard:extraction >&-", 0),
        ("sg check streamguard:extraction <&- >&- 2>&-", 0),
        ("sg explain good.json >&- 2>&-", 0),
        ("sg explain bad.json <&- >&- 2>&-", 3),
    ],
)
def test_closed_streams(command: str, code: int, tmp_path: Path) -> None:
    """A daemon's child has none of them. The exit code stays what it means, and no other file takes their place."""
    (tmp_path / "good.json").write_text("{}", encoding="utf-8")
    (tmp_path / "bad.json").write_text("}", encoding="utf-8")
    done = sh(command, tmp_path)
    assert done.returncode == code
    assert b"unexpected" not in done.stderr
    assert (tmp_path / "good.json").read_text(encoding="utf-8") == "{}"


NARROW = ["status out.jsonl", "status out.jsonl --show-row b", "budget show budget.db", "report out.jsonl --html -"]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of two rows, one of which failed, and a ledger."""
    run_virtual(run_job, write_job(tmp_path, "a", "b"), Provider(a=[answer(GOOD)], b=[answer(DEAD)]))
    store = SqliteStore(tmp_path / "budget.db")
    store.configure([Scope(key="größe/job:x/micro_usd", unit="micro_usd", cap=5)])
    store.close()
    return tmp_path


@pytest.mark.parametrize("command", NARROW)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_figures_in_narrow_encodings(job: Path, command: str, encoding: str) -> None:
    """An estimate's sign has a plain form, in the page too."""
    done = sh(f"sg {command}", job, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


@pytest.mark.parametrize("command", NARROW)
def test_figures_for_nobody(job: Path, command: str) -> None:
    """Without standard streams the figures go nowhere, and nothing is overwritten."""
    before = {path.name: path.read_bytes() for path in job.iterdir()}
    done = sh(f"sg {command} <&- >&- 2>&-", job)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert {path.name: path.read_bytes() for path in job.iterdir()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", [*NARROW, "explain policy.yaml", "check policy.yaml"])
def test_a_full_disk_is_said(job: Path, command: str) -> None:
    """What was asked for is not there, so the exit code says so; a reader who has left is no such failure."""
    done = sh(f"sg {command} > /dev/full", job)
    assert done.returncode == 1
    assert (
        done.stderr
        == b"streamguard: [Errno 28] No space left on device (streamguard --debug \xe2\x80\xa6 shows where)\n"
    )
    assert sh(f"sg {command} | true", job).stderr == b""
