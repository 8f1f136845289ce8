"""Types and guards that files name as `module:Name`: from the current folder, by the operator's word only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from pathlib import Path
from pydantic import BaseModel

Path("ran").touch()
number = 3


class Invoice(BaseModel):
    total: int
"""
JOB = """
version: 1
input: in.jsonl
output: out.jsonl
policy: streamguard:extraction
model: m
max_tokens: 9
schema: "{schema}"
"""
POLICY = 'version: 1\ntimeouts: {{total: 9}}\njson: {{schema: "{schema}"}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "billing.py").write_text(MODULE)
    (tmp_path / "in.jsonl").write_text(
        '{"custom_id": "a", "params": {"messages": [{"role": "user", "content": "x"}]}}\n'
    )
    return tmp_path


def sg(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the program as its console script does: without the current folder on Python's path."""
    code = "import sys; from streamguard.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [("check", "job.yaml"), ("run", "job.yaml", "--dry-run")])
def test_a_type_of_the_current_folder(folder: Path, command: tuple[str, ...]) -> None:
    """It is found where the operator allows it, and not even looked at where nobody does."""
    (folder / "job.yaml").write_text(JOB.format(schema="billing:Invoice"))
    refused = "billing:Invoice: is Python code, and nothing may be imported here (allow_imports, --allow-imports)\n"
    assert sg(folder, *command) == (2, "", refused)
    assert not (folder / "ran").exists()
    code, _, err = sg(folder, *command, "--allow-imports")
    assert (code, err) == (0, "")
    assert (folder / "ran").exists()


def test_the_current_folder_hides_no_other_module(folder: Path) -> None:
    """A file that is called like a module of Python's own is not what everybody else imports."""
    (folder / "job.yaml").write_text(JOB.format(schema="billing:Invoice"))
    (folder / "decimal.py").write_text("raise SystemExit(9)")
    assert sg(folder, "check", "job.yaml", "--allow-imports")[0] == 0


MISTAKES = [
    ("billing:Nope", "billing:Nope: cannot be imported: AttributeError: module 'billing' has no attribute 'Nope'"),
    ("no_such:Name", "no_such:Name: cannot be imported: ModuleNotFoundError: No module named 'no_such'"),
    ("billing:number", "billing:number: is no type that Pydantic validates"),
    ("billing.Invoice", "billing.Invoice: no such file; a type is named package.module:Name"),
    ("billing:", "billing:: no such file; a type is named package.module:Name"),
    ("schema.json", "schema.json: no such file"),
]


@pytest.mark.parametrize(("schema", "said"), MISTAKES)
@pytest.mark.parametrize("command", ["check", "run"])
def test_names_that_lead_nowhere(folder: Path, schema: str, said: str, command: str) -> None:
    """The name is repeated, with what is wrong with it; nothing is begun."""
    (folder / "job.yaml").write_text(JOB.format(schema=schema))
    assert sg(folder, command, "job.yaml", "--allow-imports") == (2, "", f"{said}\n")
    assert not (folder / "out.jsonl").exists()


def test_a_policy_names_a_type(folder: Path) -> None:
    """In a policy the mistake has its line; what stays open of the type is explained."""
    (folder / "p.yaml").write_text(POLICY.format(schema="billing:Invoice"))
    code, out, err = sg(folder, "check", "p.yaml", "--allow-imports", "--explain")
    assert (code, err, "billing:Invoice" in out) == (0, "", True)
    (folder / "p.yaml").write_text(POLICY.format(schema="billing:number"))
    said = "p.yaml:3:16: /json/schema: billing:number is no type that Pydantic validates\n"
    assert sg(folder, "check", "p.yaml", "--allow-imports") == (2, "", said)
