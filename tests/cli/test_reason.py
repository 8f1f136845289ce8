"""`streamguard reason`: each reason of the closed set has a row on its page, an anchor, and words of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from streamguard.verdict import REASONS
from tests.data import ROOT

PAGE = (ROOT / "docs" / "reasons.md").read_text()
ROWS = re.findall(r'^\| <a id="([a-z-]+)"></a>`([a-z_.]+)` \| (.+) \| (.+) \|$', PAGE, re.MULTILINE)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamguard", "reason", *arguments]
    wide = {**os.environ, "COLUMNS": "1000"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=wide)


def test_every_reason_has_a_row() -> None:
    """Each has one, with an anchor that is its name."""
    assert sorted(name for _, name, _, _ in ROWS) == sorted(REASONS)
    assert [anchor for anchor, name, _, _ in ROWS if anchor != re.sub(r"[._]", "-", name)] == []


def test_a_reason_is_told() -> None:
    """What happened, and what to do, as the page has it."""
    row = next(row for row in ROWS if row[1] == "json.trailing")
    done = run("json.trailing")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"json.trailing: {row[2]}\nWhat to do: {row[3]}\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "json.schem",
            'json.schem: no reason of this package; did you mean "json.schema"? (checks and patterns have names of your own)\n',
        ),
        ("house.rule", "house.rule: no reason of this package (checks and patterns have names of your own)\n"),
    ],
)
def test_a_name_that_is_none(name: str, said: str) -> None:
    """Exit code 2, and the nearest one if any is near."""
    done = run(name)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_all_are_listed() -> None:
    """Without a name: one line each."""
    assert [line.split()[0] for line in run().stdout.splitlines()] == list(REASONS)
