"""`streamguard run` against a provider over real sockets: results, retries, resuming, signals, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamguard.cli import main
from streamguard.events import Usage
from streamguard.testing import ScriptedServer, answer, error, pause, rst, script, stall
from tests.data import ROOT

SCHEMA = (
    '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}'
)
TEMPLATE = "---\nmodel: m\nmax_tokens: 50\nsystem: Answer in JSON.\n---\n{{ text }}"
POLICY = """
version: 1
timeouts: {total: 30}
json: {trailing: cut}
retry: {attempts: 3, rules: [{when: [json.*, transport.*, provider.overloaded, provider.api_error], wait: none}]}
"""
GOOD = '{"n": 1}'
KEY = "sk-ant-canary-0123456789"


def scripts_by_text(**scripts):
    """A server that plays a script by what the user says, up to the first dash."""
    made = {name: script(*attempts) for name, attempts in scripts.items()}
    each: dict[str, object] = {}

    def choose(exchange):
        text = exchange.body["messages"][-1]["content"]
        # Attempts are counted by script, and every row has its own.
        return each.setdefault(text, script(*made[text.partition("-")[0]].script.attempts))

    return ScriptedServer(script_for=choose)


def write(folder: Path, *texts: str) -> None:
    rows = ({"id": f"r{number}", "text": text} for number, text in enumerate(texts))
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("p.yaml", POLICY), ("t.j2", TEMPLATE), ("s.json", SCHEMA)):
        (folder / name).write_text(text)


ARGUMENTS = ("run", "in.jsonl", "-p", "p.yaml", "-o", "out.jsonl", "--template", "t.j2", "--schema", "s.json")


def lines(folder: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len({one["custom_id"] for one in found}) == len(found)
    return {one["custom_id"]: one for one in found}


def kinds(folder: Path) -> dict[str, str]:
    return {
        name: one["result"]["error"]["error"]["type"] if one["result"]["type"] == "errored" else one["result"]["type"]
        for name, one in sorted(lines(folder).items())
    }


@pytest.fixture
def sg(tmp_path, monkeypatch, capfd):
    """Runs a job in an empty folder against a server; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)

    def run(server: ScriptedServer, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.main([*ARGUMENTS, "--base-url", server.url, *arguments])
        said = capfd.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def test_a_job_from_end_to_end(sg, tmp_path, monkeypatch) -> None:
    """Good rows, rows that need a retry, rows that are given up; then only the failed ones again; then none."""
    write(tmp_path, "good-1", "again-2", "busy-3", "never-4", "good-5", "reset-6")
    attempts = {
        "good": [answer(GOOD)],
        "again": [answer('{"n": "x"}'), answer('{"n": 2}')],
        "busy": [error("overloaded_error"), answer(GOOD)],
        "never": [answer('{"m": 1}')],
        "reset": [[*answer(GOOD)[:3], rst()], answer(GOOD)],
    }
    with scripts_by_text(**attempts).in_thread() as server:
        code, out, err = sg(server)
        assert (code, out, server.errors) == (3, "", [])
        assert len(server.exchanges) == 1 + 2 + 2 + 3 + 1 + 2
    assert kinds(tmp_path) == {
        **{f"r{number}": "succeeded" for number in (0, 1, 2, 4, 5)},
        "r3": "json.schema",
    }
    found = lines(tmp_path)
    assert [found[name]["streamguard"]["output"] for name in ("r0", "r1", "r3")] == [{"n": 1}, {"n": 2}, None]
    assert found["r1"]["streamguard"]["completed"] == "whole"
    assert found["r1"]["result"]["message"]["content"][0]["text"] == '{"n": 2}'
    assert {name: one["streamguard"]["reasons"] for name, one in found.items() if one["streamguard"]["reasons"]} == {
        "r1": ["json.schema"],
        "r2": ["provider.overloaded"],
        "r3": ["json.schema"] * 3,
        "r5": ["transport.reset"],
    }
    assert re.search(r"succeeded  5 \(whole 5\)\n +gave up  1 \(json.schema 1\)", err)
    body = server.exchanges[0].body
    assert (body["model"], body["max_tokens"], body["system"], body["stream"]) == ("m", 50, "Answer in JSON.", True)

    with scripts_by_text(never=[answer(GOOD)]).in_thread() as server:
        code, out, err = sg(server, "--json")
    summary = json.loads(out)
    assert (code, len(server.exchanges), err) == (0, 1, "")
    assert (summary["rows"], summary["kept"], summary["succeeded"], summary["exit_code"]) == (6, 5, {"whole": 1}, 0)
    assert kinds(tmp_path) == {f"r{number}": "succeeded" for number in range(6)}

    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        assert sg(server, "--quiet") == (0, "", "")
    assert server.exchanges == []


def test_the_live_view_is_served_while_a_job_runs(sg, tmp_path) -> None:
    """`--view-port 0` says where to look; the job itself is as without."""
    pytest.importorskip("uvicorn", reason="the live view needs the extra `proxy`")
    write(tmp_path, "good-1")
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        code, _, err = sg(server, "--view-port", "0")
    assert (code, kinds(tmp_path)) == (0, {"r0": "succeeded"})
    assert re.search(r"live view: http://127\.0\.0\.1:\d+/_streamguard/", err), err


def test_some_failures_may_be_fine(sg, tmp_path) -> None:
    """`--fail-on` says from how many on the exit code is 3."""
    write(tmp_path, *(["good-1"] * 8), "never-1", "never-2")
    with scripts_by_text(good=[answer(GOOD)], never=[answer("x")]).in_thread() as server:
        assert [sg(server, "--quiet", "--fail-on", text)[0] for text in ("3", "2", "30%", "20%")] == [0, 3, 0, 3]


@pytest.mark.parametrize(
    ("failure", "code", "why"),
    [
        (error("authentication_error"), 2, "provider.authentication"),
        (error("rate_limit_error", code="enforced_spend_limit_reached"), 4, "provider.spend_limit"),
    ],
)
def test_what_would_fail_every_row_ends_the_job(sg, tmp_path, failure, code, why) -> None:
    """A refused key is for a person (2), an exhausted budget for later (4); what never began is not in the file."""
    write(tmp_path, *(f"bad-{number}" for number in range(30)))
    with scripts_by_text(bad=[failure]).in_thread() as server:
        found, _, err = sg(server, "--concurrency", "2")
    assert (found, len(server.exchanges)) == (code, 2)
    assert re.search(f"not run  28\n(.*\n)*.*stopped  .*{re.escape(why)}", err)
    assert kinds(tmp_path) == {"r0": why, "r1": why}


def test_no_key_is_in_anything_that_is_written(sg, tmp_path) -> None:
    """A provider that echoes the key does not get it into the output or onto the terminal."""
    write(tmp_path, "echo-1", "bad-2")
    echo = error("invalid_request_error", f"the header x-api-key: {KEY} is odd")
    with scripts_by_text(echo=[echo], bad=[error("overloaded_error", KEY)]).in_thread() as server:
        code, out, err = sg(server)
    assert code == 3
    assert KEY not in out + err + (tmp_path / "out.jsonl").read_text()


def start(folder: Path, server: ScriptedServer, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    root = str(ROOT)
    return subprocess.Popen(
        [sys.executable, "-m", "streamguard", *ARGUMENTS, "--base-url", server.url, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 12) -> None:
    """Poll until something outside of this process has happened."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.02)


def answering(server: ScriptedServer, rows: int) -> bool:
    """Whether so many rows were asked, and the latest has had the beginning of its answer."""
    return len(server.exchanges) == rows and server.exchanges[-1].bytes_sent > 0


def said_so(process: subprocess.Popen[str], what: str) -> None:
    """Read the errors until a line begins so."""
    assert process.stderr is not None
    assert any(line.startswith(what) for line in process.stderr), "it ended without a word"


def finished(folder: Path, rows: int):
    path = folder / "out.jsonl"
    return lambda: path.exists() and path.read_bytes().count(b"\n") >= rows


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(sg, tmp_path, number, code) -> None:
    """What runs is aborted and recorded, what is done stays, nothing new begins; the next run finishes the job."""
    write(tmp_path, "good-1", "slow-2", "slow-3", "good-4", "good-5")
    slow = [*answer(GOOD)[:3], stall()]
    with scripts_by_text(good=[answer(GOOD)], slow=[slow]).in_thread() as server:
        process = start(tmp_path, server, "--concurrency", "2", "--drain", "0")
        with process:
            wait_for(lambda: finished(tmp_path, 1)() and answering(server, 3), process)
            process.send_signal(number)
            out, err = process.communicate(timeout=5)
    assert (process.returncode, out) == (code, "")
    assert kinds(tmp_path) == {"r0": "succeeded", "r1": "canceled", "r2": "canceled"}
    assert f"{number.name}: aborting what runs; once more to leave at once" in err
    assert "Traceback" not in err
    assert re.search("canceled  2\n +not run  2\n", err)

    with scripts_by_text(good=[answer(GOOD)], slow=[answer(GOOD)]).in_thread() as server:
        assert sg(server, "-q")[0] == 0
    assert kinds(tmp_path) == {f"r{number}": "succeeded" for number in range(5)}


def test_a_kill_loses_nothing_that_was_finished(sg, tmp_path) -> None:
    """After kill -9 every finished row is on file and is not paid for again; each stands once in the end."""
    write(tmp_path, *(f"good-{number}" for number in range(12)))
    with scripts_by_text(good=[[pause(0.1), *answer(GOOD)]]).in_thread() as server:
        process = start(tmp_path, server, "-j", "2", "-q")
        with process:
            wait_for(finished(tmp_path, 4), process)
            process.kill()
            process.communicate(timeout=5)
    assert process.returncode == -signal.SIGKILL
    kept = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(b'{"custom_id":"r1')  # as a kill inside of a write leaves it
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        code, _, err = sg(server)
    assert (code, len(server.exchanges)) == (0, 12 - kept)
    assert "a torn last line of 16 bytes was cut" in err
    assert kinds(tmp_path) == dict.fromkeys(sorted(f"r{number}" for number in range(12)), "succeeded")


def test_batch_lines_need_no_template(sg, tmp_path, monkeypatch) -> None:
    """A file for the Message Batches API runs as it is."""
    write(tmp_path)
    params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "good-1"}], "temperature": 0}
    (tmp_path / "in.jsonl").write_text(json.dumps({"custom_id": "a", "params": params}) + "\n")
    monkeypatch.setattr(sys.modules[__name__], "ARGUMENTS", ("run", "in.jsonl", "-p", "p.yaml", "-o", "out.jsonl"))
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        assert sg(server, "-q")[0] == 0
    body = server.exchanges[0].body
    assert {name: body[name] for name in params} == params
    assert kinds(tmp_path) == {"a": "succeeded"}


def test_a_full_disk_is_said_in_a_line(sg, tmp_path, monkeypatch) -> None:
    """With the file, what to do, and the numbers so far; what was finished is kept."""
    write(tmp_path, "good-1", "good-2", "good-3")
    real, written = os.write, []

    def full(fd: int, data: bytes) -> int:
        if bytes(data).startswith(b'{"custom_id"'):
            written.append(data)
            if len(written) > 1:
                raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with scripts_by_text(good=[answer(GOOD)]).in_thread() as server:
        code, out, err = sg(server, "-j", "1")
    assert (code, out, kinds(tmp_path)) == (1, "", {"r0": "succeeded"})
    assert re.search(r"succeeded  1 \(whole 1\)\n", err)
    assert err.splitlines()[-1] == (
        "streamguard: out.jsonl: cannot be written: No space left on device; nothing that was finished is lost, so run "
        "again to go on (streamguard --debug … shows where)"
    )


def test_a_job_does_not_need_its_audience(tmp_path) -> None:
    """Whoever watched may close the terminal or the pipe: rows are finished, and the exit code stands."""
    write(tmp_path, "good-1", "never-2", "good-3")
    with scripts_by_text(good=[answer(GOOD)], never=[answer("x")]).in_thread() as server:
        process = start(tmp_path, server, "--json")
        with process:
            process.stderr.close()
            process.stdout.close()
            assert process.wait(timeout=10) == 3
    assert kinds(tmp_path) == {"r0": "succeeded", "r1": "json.preamble", "r2": "succeeded"}


def signalled(monkeypatch, drain: float, *numbers: signal.Signals) -> list[object]:
    """What happens when these signals come, one after the other."""
    import anyio
    import anyio.lowlevel

    from streamguard.jobs.signals import Signals

    done: list[object] = []

    class Runner:
        def interrupt(self, by: str, drain: float = 0.0) -> None:
            done.append((by, drain))

    class Progress:
        def say(self, text: str) -> None:
            done.append(text)

        def close(self) -> None:
            done.append("close")

    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        done.append(code)
        raise Left

    monkeypatch.setattr(os, "_exit", leave)
    signals = Signals(Runner(), Progress(), drain)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(signals.run)
            for number in numbers:
                before = len(done)
                os.kill(os.getpid(), number)
                with anyio.fail_after(5):
                    while len(done) < before + 2:
                        await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    try:
        anyio.run(main)
    except BaseExceptionGroup as group:
        _, others = group.split(Left)
        assert others is None
    return done


def test_a_second_signal_aborts_and_a_third_leaves_at_once(monkeypatch) -> None:
    """What runs has its time, then none; and who insists gets the terminal back then and there."""
    assert signalled(monkeypatch, 3.0, signal.SIGTERM, signal.SIGINT, signal.SIGINT) == [
        "SIGTERM: no row begins any more, what runs has 3 s; once more to abort it",
        ("SIGTERM", 3.0),
        "SIGINT: aborting what runs; once more to leave at once",
        ("SIGINT", 0.0),
        "close",
        128 + signal.SIGINT,
    ]


def test_without_time_to_end_the_first_signal_aborts(monkeypatch) -> None:
    """`--drain 0`; the second then leaves."""
    assert signalled(monkeypatch, 0.0, signal.SIGINT, signal.SIGTERM) == [
        "SIGINT: aborting what runs; once more to leave at once",
        ("SIGINT", 0.0),
        "close",
        128 + signal.SIGTERM,
    ]


JOB = """
version: 1
name: nightly
input: in.jsonl
output: out.jsonl
template: t.j2
schema: s.json
policy: p.yaml
concurrency: 2
fail_on: 50%
drain: 3
"""


def command(capfd, *arguments: str) -> tuple[int, str, str]:
    """Any command line; exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as caught:
        main.main(list(arguments))
    said = capfd.readouterr()
    return caught.value.code or 0, said.out, said.err


def test_a_job_file_and_what_wins_over_it(tmp_path, monkeypatch, capfd) -> None:
    """The file names everything; flags override; paths of the file are relative to it."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    write(folder, "good-1", "never-2", "good-3")
    (folder / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    with scripts_by_text(good=[answer(GOOD)], never=[answer("x")]).in_thread() as server:
        assert command(capfd, "run", "jobs/job.yaml", "--base-url", server.url, "-q", "--limit", "2")[0] == 0
        assert kinds(folder) == {"r0": "succeeded", "r1": "json.preamble"}
        code, out, _ = command(
            capfd, "run", "jobs/job.yaml", "--base-url", server.url, "--json", "--no-retry-failed", "--fail-on", "1"
        )
        summary = json.loads(out)
        assert (code, summary["kept"], summary["failed_before"]) == (3, 1, {"json.preamble": 1})
        assert (summary["output"], summary["runs_before"]) == ("jobs/out.jsonl", 1)
        assert command(capfd, "run", "jobs/job.yaml", "--base-url", server.url, "--out", "other.jsonl", "-q")[0] == 0
    assert (tmp_path / "other.jsonl").read_bytes().count(b"\n") == 3


def test_a_budget_stops_a_job_and_a_larger_one_goes_on(tmp_path, monkeypatch, capfd) -> None:
    """Exit code 4, which is no failure; what was spent is not spent again, in this run or in the next."""
    write(tmp_path, *(f"good-{number}" for number in range(6)))
    prices = '\nprices: {m: {input: "100.00", output: "100.00"}}\n'
    (tmp_path / "p.yaml").write_text(POLICY + prices)
    monkeypatch.chdir(tmp_path)
    counted = answer(GOOD, usage=Usage(input_tokens=500, output_tokens=10))
    with scripts_by_text(good=[counted]).in_thread() as server:
        run = [*ARGUMENTS, "--base-url", server.url, "-j", "1"]
        code, _, err = command(capfd, *run, "--budget", "0.30")
        asked = len(server.exchanges)
        assert (code, 0 < asked < 6) == (4, True)
        assert re.search(r"stopped  not sent: the request may cost up to \$0\.\d+, and budget job/job:out-", err)
        code, _, err = command(capfd, *run, "--budget", "0.30")
        assert (code, len(server.exchanges)) == (4, asked)
        # An interval: the model that answers has another name and another price.
        assert re.search(r"before  ≈ \$0\.\d+ to \$0\.\d+ in 1 run\n", err)
        assert command(capfd, *run, "--budget", "25.00")[0] == 0
    assert len(server.exchanges) == 6
    assert kinds(tmp_path) == {f"r{number}": "succeeded" for number in range(6)}


def test_a_dry_run_says_what_a_run_would_cost(tmp_path, monkeypatch, capfd) -> None:
    """Without a key, without a server, without a trace."""
    write(tmp_path, "good-1", "good-2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    before = sorted(os.listdir(tmp_path))
    code, out, err = command(capfd, *ARGUMENTS, "--dry-run", "--model", "claude-haiku-4-5")
    assert (code, err, sorted(os.listdir(tmp_path))) == (0, "", before)
    assert re.search(r"to ask  2 \(claude-haiku-4-5 2\)\n", out)
    assert re.search(r"cost  ≈ \$0\.\d+ to \$0\.\d+, one attempt a row\n", out)
    code, out, _ = command(capfd, *ARGUMENTS, "--dry-run", "--json", "--limit", "1")
    assert (json.loads(out)["todo"], json.loads(out)["left_out"]) == (1, 1)


def test_the_story_of_a_row_while_it_runs(tmp_path, monkeypatch, capfd) -> None:
    """When it ends; or at once, if it is not asked again."""
    write(tmp_path, "again-1", "good-2")
    monkeypatch.chdir(tmp_path)
    with scripts_by_text(again=[answer('{"n": "x"}'), answer(GOOD)], good=[answer(GOOD)]).in_thread() as server:
        run = [*ARGUMENTS, "--base-url", server.url, "--show-row", "r0"]
        for _ in range(2):
            _, _, err = command(capfd, *run)
            assert "r0: succeeded (whole); 2 attempts" in err
            assert '{"n": ▶"' in err
            assert "→ retry by rule 0, at once: retry.rules[0]: attempt 2 of 3" in err
        assert "--show-row: the input has no row 'zz'" in command(capfd, *run[:-1], "zz")[2]


def test_what_runs_ends_within_its_time(sg, tmp_path) -> None:
    """After a signal rows under way may still end; none begins, and the exit code is the signal's."""
    write(tmp_path, "slow-1", "slow-2", "good-3", "good-4")
    slow = [*answer(GOOD)[:3], pause(1.0), *answer(GOOD)[3:]]
    with scripts_by_text(good=[answer(GOOD)], slow=[slow]).in_thread() as server:
        process = start(tmp_path, server, "--concurrency", "2", "--drain", "20")
        with process:
            wait_for(lambda: len(server.exchanges) == 2, process)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=10)
    assert (process.returncode, kinds(tmp_path)) == (143, {"r0": "succeeded", "r1": "succeeded"})
    assert "SIGTERM: no row begins any more, what runs has 20 s; once more to abort it" in err


def test_a_second_signal_aborts_what_runs(sg, tmp_path) -> None:
    """At once, recorded, and the journal is as consistent as ever."""
    write(tmp_path, "slow-1", "good-2")
    slow = [*answer(GOOD)[:3], stall()]
    with scripts_by_text(good=[answer(GOOD)], slow=[slow]).in_thread() as server:
        process = start(tmp_path, server, "--concurrency", "1", "--drain", "600")
        with process:
            wait_for(lambda: answering(server, 1), process)
            process.send_signal(signal.SIGINT)
            said_so(process, "SIGINT: no row begins any more")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=5)
    assert (process.returncode, kinds(tmp_path)) == (130, {"r0": "canceled"})
    with scripts_by_text(good=[answer(GOOD)], slow=[answer(GOOD)]).in_thread() as server:
        assert sg(server, "-q")[0] == 0
    assert kinds(tmp_path) == {"r0": "succeeded", "r1": "succeeded"}
