"""The standard streams of a command: closed ones, and encodings that cannot say everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


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
