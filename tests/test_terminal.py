"""The process's own streams: closed ones, and ones that cannot show every character."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.data import ROOT

READY = (
    "import os, sys; from streamguard.terminal import ready, put, standard_input; ready(); "
    "made = os.open(os.devnull, os.O_RDONLY); "
)


def run(code: str, closed: str = "", encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Run Python code after `ready()`, with some of its streams closed."""
    command = f"exec {sys.executable} -c '{READY}{code}' {closed}"
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, shell=True, capture_output=True, encoding="latin-1", env=env, check=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_never_gets_the_number_of_a_closed_stream(closed: str) -> None:
    """Else the next message would be written into it."""
    assert run("put(sys.stdout, str(made)); sys.exit(0 if made > 2 else 9)", closed).returncode == 0


def test_a_closed_input_is_not_an_empty_one() -> None:
    """Reading it is an error with a sentence."""
    done = run("standard_input()", "<&-")
    assert "OSError: [Errno 9] standard input is closed" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gbk"])
def test_what_an_encoding_does_not_have_is_spelled_out(encoding: str) -> None:
    """Our own signs have a plain form, other characters an escape; nothing is lost and nothing raised."""
    done = run('put(sys.stdout, "\\u2265 12 \\U0001f600")', encoding=encoding)
    shown = {"gbk": "\xa1\xdd 12 \\U0001f600"}.get(encoding, ">= 12 \\U0001f600")
    assert (done.returncode, done.stdout) == (0, shown)
