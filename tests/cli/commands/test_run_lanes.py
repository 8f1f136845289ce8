"""`streamguard run --lane batch` against a provider over real sockets."""

from __future__ import annotations

import time

import pytest

from streamguard.testing import ScriptedServer, answer
from streamguard.testing.batches import BatchProvider
from tests.cli.commands.test_run import ARGUMENTS, GOOD, command, kinds, write
from tests.jobs.batches.lanes import message


@pytest.mark.parametrize("job_file", [False, True])
def test_rows_go_to_batches_first(tmp_path, monkeypatch, capfd, job_file) -> None:
    """By option or job file; what a batch answers badly is streamed, and `status` knows the batch."""
    write(tmp_path, "good-1", "bad-2")
    monkeypatch.chdir(tmp_path)
    arguments = [*ARGUMENTS, "--lane", "batch"]
    if job_file:
        lines = "version: 1\ninput: in.jsonl\ntemplate: t.j2\nschema: s.json\npolicy: p.yaml\noutput: out.jsonl\nlane: batch\ndeadline: 1h\n"
        (tmp_path / "job.yaml").write_text(lines)
        arguments = ["run", "job.yaml"]

    def result(params, number):
        assert number == 1
        good = params["messages"][-1]["content"].startswith("good")
        return message(GOOD if good else '{"n": "x"}')

    batches = BatchProvider(result, seconds=0.0, epoch=time.time() - time.monotonic())
    served = ScriptedServer(answer(GOOD), batches=batches)
    with served.in_thread() as server:
        code, _, err = command(capfd, *arguments, "--base-url", server.url)
    assert (code, kinds(tmp_path)) == (0, {"r0": "succeeded", "r1": "succeeded"})
    assert [one.body["messages"][-1]["content"] for one in server.exchanges] == ["bad-2"]
    assert "batch msgbatch_000001: 1 of 2 rows succeeded" in err
    assert "retries  1 (json.schema 1)" in err
    assert "msgbatch_000001: its results are taken, 2 rows, succeeded 2" in command(capfd, "status", "out.jsonl")[1]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--lane", "fast", "--lane must be stream, batch, or batch,stream, got 'fast'"),
        ("--deadline", "soon", "--deadline must be a duration such as 90s, 30m or 6h, got 'soon'"),
        ("--deadline", "0", "--deadline must be a duration such as 90s, 30m or 6h, got '0'"),
    ],
)
def test_a_lane_that_is_none_is_refused(tmp_path, monkeypatch, capfd, option, value, said) -> None:
    """Before anything is sent."""
    write(tmp_path, "good-1")
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capfd, *ARGUMENTS, option, value)
    assert (code, said in err) == (2, True)
