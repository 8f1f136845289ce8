"""The process's own streams, closed ones and narrow encodings; and lines that fit a terminal's width."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len

from streamguard.terminal import aligned, columns, fitted, packed
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


@pytest.mark.parametrize(
    ("said", "width"), [("80", 80), ("", None), ("0", None), ("-3", None), ("wide", None), ("²", None)]
)
def test_the_width_of_a_stream(said: str, width: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `COLUMNS` says, if it is a number; a file has no width."""
    monkeypatch.setenv("COLUMNS", said)
    with open(os.devnull, "w") as file:
        assert (columns(file), columns(io.StringIO())) == (width, width)


LONG = "/a/path/that/is/longer/than/the/whole/line/of/the/narrow/terminal"


def test_lines_break_between_words() -> None:
    """Below the text of the first; a word that is too long stays whole; without a width nothing is broken."""
    assert fitted("  run 1  one two three four five six", 9, 30) == "  run 1  one two three four\n         five six"
    assert fitted(f"at {LONG} now", 0, 30) == f"at\n{LONG}\nnow"
    assert fitted(f"at {LONG} now", 0, None) == f"at {LONG} now"


def test_two_columns() -> None:
    """Values begin in one column, on every line, and control characters in them are spelled out."""
    rows = [("a", "one two three four five six seven"), ("long", "\x1b[31m")]
    assert aligned(rows) == "   a  one two three four five six seven\nlong  \\e[31m"
    assert aligned(rows, 30) == "   a  one two three four five\n      six seven\nlong  \\e[31m"


def test_parts_are_packed_whole() -> None:
    """As many to a line as fit, by the columns that they take: wide characters take two."""
    assert list(packed(["ab", "cd", "efghijkl", "m"], 7)) == ["ab · cd", "efghijkl", "m"]
    found = list(packed(["請求書", "納品書", "x"], 15))
    assert found == ["請求書 · 納品書", "x"]
    assert cell_len(found[0]) == 15
    assert list(packed([], 7)) == []
