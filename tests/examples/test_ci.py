"""What other repositories take from here: the hook for policy files, and the workflow that replays recordings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from streamguard.testing import wire
from tests.data import ROOT

VARIABLES = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def read(path: str) -> Any:
    return YAML(typ="safe").load((ROOT / path).read_text())


@pytest.mark.parametrize(
    ("text", "code"),
    [("version: 1\ntimeouts: {total: 60}\n", 0), ("version: 1\ntimeouts: {totl: 60}\n", 2)],
)
def test_the_hook_checks_policies(tmp_path: Path, text: str, code: int) -> None:
    """The entry takes file names as pre-commit hands them over, and fails on a mistake."""
    (hook,) = read(".pre-commit-hooks.yaml")
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "one.yaml").write_text(text)
    assert re.search(hook["files"], "policies/one.yaml")
    assert not re.search(hook["files"], "src/settings.yaml")
    command = [*shlex.split(hook["entry"]), "policies/one.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=VARIABLES, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr


def test_the_hook_installs_what_the_command_line_needs() -> None:
    """pre-commit installs a package without its extras, so the hook names what is in `cli`."""
    (hook,) = read(".pre-commit-hooks.yaml")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(hook["additional_dependencies"]) == sorted(extras["cli"])


def steps() -> list[str]:
    """The commands of the workflow, without the ones that install."""
    (job,) = read("examples/github/replay.yml")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0] == "python -m pip install 'streamguard-llm[cli]'"
    return commands[1:]


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        ("version: 1\nextends: streamguard:extraction\n", [0, 0]),
        ("version: 1\njson: {schema: {type: object, required: [number]}}\n", [0, 3]),
        ("version: 1\njson: {no: 1}\n", [2, 2]),
    ],
)
def test_the_workflow_replays_recordings(tmp_path: Path, policy: str, codes: list[int]) -> None:
    """A policy that ends good answers fails the step, in the shell that runs it."""
    for folder in ("policies", "recordings"):
        (tmp_path / folder).mkdir()
    (tmp_path / "policies" / "one.yaml").write_text(policy)
    (tmp_path / "recordings" / "one.sse").write_bytes(b"".join(wire.text_stream('{"total": 12}')))
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]  # as the runner starts it
    found = [
        subprocess.run([*shell, step], cwd=tmp_path, env=VARIABLES, capture_output=True, check=False).returncode
        for step in steps()
    ]
    assert found == codes
