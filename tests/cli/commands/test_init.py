"""`streamguard init`: the files that it writes run as they are, and nothing of anybody's is overwritten."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streamguard.cli.commands.init import FILES
from streamguard.cli.main import main
from streamguard.demo.documents import SCHEMA
from streamguard.demo.provider import Order, provider
from tests.data import ROOT


def sg(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_what_is_written_runs(tmp_path: Path, monkeypatch, capfd) -> None:
    """Init, check, run against the simulated provider: twenty results, exit code 0."""
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert sg("init", "job") == 0
    said = capfd.readouterr().out
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == sorted(FILES)
    monkeypatch.chdir(tmp_path / "job")
    assert sg("check", "job.yaml") == 0
    assert "20 rows, 20 to ask" in capfd.readouterr().out
    with provider(Order(speed=1000, bad_answers=0), port=0).in_thread() as server:
        assert sg("run", "job.yaml", "--base-url", server.url, "--quiet") == 0
    lines = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    assert (len(lines), {line["result"]["type"] for line in lines}) == (20, {"succeeded"})
    assert re.findall(r"^  streamguard .*", said, re.MULTILINE)


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch, capfd) -> None:
    """One file that is there stops it, before any is written."""
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text("mine")
    assert sg("init") == 2
    assert capfd.readouterr().err == "policy.yaml: is there already; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch, capfd) -> None:
    """A file in its place is named."""
    monkeypatch.chdir(tmp_path)
    Path("here").write_text("")
    assert sg("init", "here") == 2
    assert capfd.readouterr().err.startswith("here: cannot be written: ")


def test_the_example_is_what_init_writes() -> None:
    """`examples/job` holds the same files, and the schema is the demo's."""
    package = ROOT / "streamguard" / "demo" / "job"
    assert sorted(path.name for path in package.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (ROOT / "examples" / "job" / name).read_bytes() == (package / name).read_bytes()
    assert json.loads((package / "invoice.schema.json").read_text()) == SCHEMA
