"""Shell completion: scripts for shells, and what they are told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def sg(*arguments: str, **environment: str) -> str:
    """What the program prints, under the name that shells know it by."""
    code = "from streamguard.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("streamguard bu", ["budget"]),
        ("streamguard budget s", ["show", "set"]),
        ("streamguard run --stop", ["--stop-on"]),
        ("streamguard demo --ser", ["--serve"]),
    ],
)
def test_words_are_completed(line: str, offered: list[str]) -> None:
    """Commands, their own commands and options."""
    words = len(line.split()) - 1
    found = sg(_STREAMGUARD_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(words))
    assert found.split() == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    """It asks the program under its own name."""
    script = sg("--show-completion", shell, SHELL=f"/bin/{shell}", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_STREAMGUARD_COMPLETE" in script
    assert f"complete_{shell}" in script
