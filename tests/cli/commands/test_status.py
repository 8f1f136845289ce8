"""`streamguard status`: how a job stands, and one row's story."""

from __future__ import annotations

import json

import pytest

from streamguard.cli import main
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, GOOD, Provider, run_job, write_job


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of two rows, one of which failed; the current folder is its."""
    monkeypatch.chdir(tmp_path)
    spec = write_job(tmp_path, "a", "b")
    run_virtual(run_job, spec, Provider(a=[answer(GOOD)], b=[answer(DEAD)]))
    return spec


def ask(capfd, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main.main(["status", *arguments])
    said = capfd.readouterr()
    return caught.value.code or 0, said.out, said.err


def test_for_people_and_for_machines(job, capfd) -> None:
    """The same figures, as a table and as JSON."""
    code, out, err = ask(capfd, "out.jsonl")
    assert (code, err) == (0, "")
    assert "    failed  1 (json.schema 1)\n" in out
    assert "what to do  streamguard reason json.schema\n" in out
    code, out, err = ask(capfd, "out.jsonl", "--json")
    found = json.loads(out)
    assert (code, found["state"], found["succeeded"], found["failed"]) == (0, "finished", 1, {"json.schema": 1})


def test_the_story_of_a_row(job, capfd) -> None:
    """Attempt by attempt, with the rule that decided and the words in front of the dead byte."""
    code, out, _ = ask(capfd, "out.jsonl", "--show-row", "b")
    assert code == 0
    assert out.startswith("b: errored, json.schema: gave up after 2 attempts: json.schema")
    assert "→ retry by rule 0, at once: retry.rules[0]: attempt 2 of 2" in out
    assert '{"n": ▶"' in out
    assert "→ gave up by rule 0: all 2 attempts are used (retry.attempts)" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.jsonl",), "none.jsonl: no journal of a job stands beside it\n"),
        (("out.jsonl", "--show-row", "z"), "out.jsonl: the row 'z' has no result\n"),
    ],
)
def test_what_there_is_not(job, capfd, arguments, said) -> None:
    """Is said in a line."""
    assert ask(capfd, *arguments) == (2, "", said)
