"""What `streamguard run` refuses: each with its sentence and its exit code, and nothing is sent."""

from __future__ import annotations

import json
import re

import pytest

from streamguard.testing import answer
from tests.cli.commands.test_run import (
    ARGUMENTS,
    GOOD,
    JOB,
    POLICY,
    SCHEMA,
    TEMPLATE,
    command,
    kinds,
    scripts_by_text,
    write,
)

ROW = json.dumps({"id": "a", "text": "good-1"}) + "\n"


def first_run(tmp_path, capfd) -> None:
    """Leaves a finished job."""
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        assert command(capfd, *ARGUMENTS, "-q", "--base-url", server.url)[0] == 0


def held(tmp_path, capfd) -> None:
    """Leaves a job that says it runs; its lock is held until the test ends."""
    from streamguard.jobs.store.output import open_output

    HELD.append(open_output("out.jsonl"))


HELD: list = []

REFUSALS = [
    ("a bad row", {"in.jsonl": ROW + '{"id": "b", "text"}\n'}, (), None, 2,
     ["in.jsonl:2:19: not JSON: expecting ':' delimiter"]),
    ("an id that stands twice", {"in.jsonl": ROW + "\n" + ROW}, (), None, 2, ['in.jsonl:3: the id "a" is already on line 1']),
    ("a variable that no row has", {"t.j2": "---\nmodel: m\nmax_tokens: 5\n---\n{{ txt }}"}, (), None, 2,
     ['in.jsonl:1: t.j2:5: txt is undefined: the row has no such field; did you mean "text"?']),
    ("an output in no folder", {}, ("--out", "no/out.jsonl"), None, 2, ["no/out.jsonl: cannot be written: there is no folder no"]),
    ("an output that is something else", {"out.jsonl": "my notes\n"}, (), None, 2,
     ["out.jsonl:1: not a result line of a job, so nothing is added to this file; name another --out (JSON is malformed: invalid character (byte 0))"]),
    ("a journal that is something else", {"out.jsonl.journal": "my notes\n"}, (), None, 2,
     ["out.jsonl.journal: is no journal of a job; name another --out, or move it away"]),
    ("a changed policy", {"p.yaml": POLICY.replace("cut", "allow")}, (), first_run, 2,
     ['out.jsonl: policy: /json/trailing: was "cut", is "allow"', "out.jsonl: so its 1 results answer another question than this job asks; name another --out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)"]),
    ("a changed schema", {"s.json": SCHEMA.replace("integer", "number")}, (), first_run, 2,
     ['out.jsonl: schema: /properties/n/type: was "integer", is "number"', "out.jsonl: so its 1 results answer another question than this job asks; name another --out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)"]),
    ("another model", {}, ("--model", "m2"), first_run, 2,
     ['out.jsonl: model: /model: was not there, is "m2"', "out.jsonl: so its 1 results answer another question than this job asks; name another --out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)"]),
    ("a changed template", {"t.j2": TEMPLATE + "!"}, (), first_run, 2,
     ['out.jsonl: template: line 6 was "{{ text }}", is "{{ text }}!"', "out.jsonl: so its 1 results answer another question than this job asks; name another --out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)"]),
    ("a changed row", {"in.jsonl": ROW.replace("good-1", "good-2")}, (), first_run, 2,
     ['out.jsonl: the result of "a" answers another request or schema than in.jsonl:1 and the policy now ask for; name another --out, or ask for all rows again with --fresh']),
    ("a job that runs", {}, (), held, 2, ["out.jsonl: another job is writing to this file"]),
    ("a budget without a price", {}, ("--budget", "5"), None, 2,
     ["in.jsonl: unknown price for model 'm', which budget 'job' needs; add prices: {m: {input: \"…\", output: \"…\"}} in USD per million tokens (1 rows ask it)"]),
    ("an empty budget", {"p.yaml": POLICY + "budgets: [{name: b, tokens: 10}]\n"}, (), None, 4, None),
    ("no policy and no output", {}, None, None, 2, ["name it with --policy, or give a job file", "name it with --out, or give a job file"]),
    ("a job file with mistakes", {"job.yaml": JOB + "budget: 5\nretries: 2\n"}, ("job.yaml",), None, 2,
     ['job.yaml:12:9: /budget: must be quoted, so that no digit is lost: "5"', 'job.yaml:13:1: /retries: unknown key']),
    ("a sample of nothing", {}, ("--sample", "0"), None, 2, ["--sample must be a number of rows from 1 (100) or a share of them (5%), got '0'"]),
    ("a budget that is no money", {}, ("--budget", "much"), None, 2, ["--budget must be an amount of USD such as 25.00, got 'much'"]),
    ("a packed file that is not whole", {"in.jsonl": b"\x1f\x8b\x08\x00"}, (), None, 2, ["in.jsonl: no whole gzip file: it ends too early"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "arguments", "before", "code", "said"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS]
)
def test_refusals(tmp_path, monkeypatch, capfd, files, arguments, before, code, said) -> None:
    """Each says what is wrong, where, and what to do; nothing is sent, and the exit code tells a scheduler."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    (tmp_path / "in.jsonl").write_text(ROW)
    if before is not None:
        before(tmp_path, capfd)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        line = ["run", "in.jsonl"] if arguments is None else [*ARGUMENTS, *arguments]
        if arguments == ("job.yaml",):
            line = ["run", "job.yaml"]
        found, out, err = command(capfd, *line, "--base-url", server.url)
    while HELD:
        HELD.pop().close()
    assert (found, out, server.exchanges) == (code, "", [])
    if said is None:
        assert re.search(
            r"stopped  not sent: the request may cost up to [\d,]+ tokens, and budget b/job:out-\w+/tokens has 10 tokens left of 10",
            err,
        )
        assert kinds(tmp_path) == {}
    else:
        assert [one[: len(expected)] for one, expected in zip(err.splitlines(), said, strict=True)] == said
