"""The runner: every row once, so many at a time, and every way to end early. In virtual time."""

from __future__ import annotations

import errno
import json
import random

import anyio
import msgspec
import pytest

from streamguard.errors import BudgetExhausted, JobError
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.runner import Runner, Stop
from streamguard.jobs.store.output import OutputError
from streamguard.jobs.store.resume import Rules, Selection
from streamguard.outcome import CallRecord
from streamguard.testing import BACKENDS, answer, error, pause, run_virtual, stall
from streamguard.usage import UsageRange
from tests.jobs.jobs import DEAD, GOOD, Provider, batch_line, make_runner, results, run_job, write_job

WHOLE = [answer(GOOD)]
TOO_BAD = [answer(DEAD)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_has_one_result(tmp_path, backend) -> None:
    """Good rows, rows that are good the second time, rows that never are: each stands once in the output."""
    spec = write_job(tmp_path, *(f"{kind}{n}" for n in range(4) for kind in ("good", "again", "busy", "never")))
    scripts = {
        f"{kind}{n}": attempts
        for n in range(4)
        for kind, attempts in {
            "good": WHOLE,
            "again": [answer(DEAD), answer(GOOD)],
            "busy": [error("overloaded_error"), answer(GOOD)],
            "never": TOO_BAD,
        }.items()
    }
    provider = Provider(**scripts)
    runner, summary = run_virtual(run_job, spec, provider, backend=backend)
    assert runner.stopped is None
    assert results(tmp_path) == {
        name: "json.schema" if name.startswith("never") else "succeeded" for name in results(tmp_path)
    }
    assert set(results(tmp_path)) == set(scripts)
    assert (summary.succeeded, summary.failed, summary.attempts, summary.retries) == (
        {"whole": 12},
        {"json.schema": 4},
        28,
        {"json.schema": 8, "provider.overloaded": 4},
    )
    assert (summary.not_run, summary.canceled, provider.left_open) == (0, 0, 0)


def test_rows_run_so_many_at_a_time(tmp_path) -> None:
    """Never more than asked for, and not fewer while there are rows."""
    spec = write_job(tmp_path, *map(str, range(20)))
    provider = Provider(other=[[pause(1), *answer(GOOD)]])
    tallies = []

    async def run() -> float:
        job = Job.open(spec)
        runner, tally = make_runner(job, provider, concurrency=4)
        provider.on_made = lambda name: tallies.append(tally.running)
        began = anyio.current_time()
        await runner.run()
        job.close()
        return anyio.current_time() - began

    assert run_virtual(run) == pytest.approx(5.0, abs=0.05)
    assert max(tallies) == 4


@pytest.mark.parametrize("kills", range(8))
def test_an_output_that_was_cut_is_made_whole(tmp_path, kills: int) -> None:
    """Whatever bytes are left of the output, the journal has the rest: nothing is asked again, each row stands once."""
    dice = random.Random(kills)
    names = [f"r{n}" for n in range(12)]
    spec = write_job(tmp_path, *names)
    provider = Provider(**{name: [[pause(dice.random()), *answer(GOOD)]] for name in names})
    run_virtual(run_job, spec, provider)
    path = tmp_path / "out.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: dice.randrange(len(whole))])
    again = Provider(other=WHOLE)
    _, summary = run_virtual(run_job, spec, again)
    assert (path.read_bytes(), again.asked, summary.kept) == (whole, [], 12)


@pytest.mark.parametrize("kills", range(8))
def test_a_job_without_its_journal_goes_on_from_the_output(tmp_path, kills: int) -> None:
    """Whole lines of the output are taken over, whatever their order; what was cut off is asked again."""
    dice = random.Random(kills)
    names = [f"r{n}" for n in range(12)]
    spec = write_job(tmp_path, *names)
    provider = Provider(**{name: [[pause(dice.random()), *answer(GOOD)]] for name in names})
    run_virtual(run_job, spec, provider)
    path = tmp_path / "out.jsonl"
    whole = path.read_bytes()
    cut = dice.randrange(len(whole))
    path.write_bytes(whole[:cut])
    (tmp_path / "out.jsonl.journal").unlink()
    kept = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")
    again = Provider(other=WHOLE)
    _, summary = run_virtual(run_job, spec, again)
    assert results(tmp_path) == dict.fromkeys(results(tmp_path), "succeeded")
    assert sorted(results(tmp_path)) == sorted(names)
    assert (len(again.asked), summary.kept) == (12 - kept, kept)


def test_failed_rows_are_asked_again_and_replaced(tmp_path) -> None:
    """A success is kept and never paid for twice; a failure gets another chance, and its old line goes."""
    spec = write_job(tmp_path, "a", "b", "c")
    run_virtual(run_job, spec, Provider(a=WHOLE, b=TOO_BAD, c=WHOLE))
    assert results(tmp_path) == {"a": "succeeded", "c": "succeeded", "b": "json.schema"}
    again = Provider(other=WHOLE)
    _, summary = run_virtual(run_job, spec, again)
    assert (again.asked, results(tmp_path)) == (["b"], dict.fromkeys("acb", "succeeded"))
    assert (summary.kept, summary.succeeded) == (2, {"whole": 1})
    third = Provider()
    run_virtual(run_job, spec, third)
    assert third.asked == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_ends_it_in_order(tmp_path, backend) -> None:
    """No row begins any more, what runs is aborted, and what it cost is on record; the next run takes it up."""
    spec = write_job(tmp_path, "a", "b", "c", "d", "e")
    hanging = [[*answer(GOOD)[:3], stall()]]
    provider = Provider(a=WHOLE, b=hanging, c=hanging, d=WHOLE, e=WHOLE)

    async def run() -> tuple[Runner, object, float]:
        job = Job.open(spec)
        runner, tally = make_runner(job, provider, concurrency=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.sleep(5)
            began = anyio.current_time()
            runner.interrupt("SIGTERM")
        job.close()
        return runner, tally.summary(runner.stopped), anyio.current_time() - began

    runner, summary, took = run_virtual(run, backend=backend)
    assert runner.stopped == Stop("signal", "SIGTERM")
    assert took < 0.1
    assert results(tmp_path) == {"a": "succeeded", "b": "canceled", "c": "canceled"}
    assert (summary.canceled, summary.not_run, provider.left_open) == (2, 2, 0)
    attempts = [
        json.loads(line)["streamguard"]["attempts"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert [[one["reason"] for one in each] for each in attempts] == [
        [None],
        ["operator.interrupt"],
        ["operator.interrupt"],
    ]
    run_virtual(run_job, spec, Provider(other=WHOLE), backend=backend)
    assert results(tmp_path) == dict.fromkeys("abcde", "succeeded")


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (error("authentication_error"), "refused", "provider.authentication"),
        (error("billing_error"), "budget", "provider.billing"),
        (error("rate_limit_error", code="enforced_spend_limit_reached"), "budget", "provider.spend_limit"),
    ],
)
def test_what_would_fail_every_row_stops_the_job(tmp_path, failure, kind, reason) -> None:
    """A wrong key or an exhausted account is not asked a thousand times; rows that run may end."""
    spec = write_job(tmp_path, "slow", "bad", *map(str, range(50)))
    provider = Provider(slow=[[pause(1), *answer(GOOD)]], bad=[failure], other=WHOLE)
    runner, summary = run_virtual(lambda: run_job(spec, provider, concurrency=2))
    assert runner.stopped is not None
    assert runner.stopped.kind == kind
    assert results(tmp_path) == {"bad": reason, "slow": "succeeded"}
    assert summary.not_run == 50


def denied(scope: str, *, attempts: tuple = ()) -> BudgetExhausted:
    record = CallRecord(attempts=attempts, usage=UsageRange.nothing())
    return BudgetExhausted(
        "no room", reason="budget.denied", record=record, scope=scope, asked=9, available=1, unit="tokens"
    )


BUDGETS = """
budgets:
  - {name: nightly, per: job, tokens: 1000000}
  - {name: each, per: call, tokens: 1000000}
  - {name: tenants, per: "tenant:{custom_id}", tokens: 1000000}
"""


@pytest.mark.parametrize(
    ("scope", "found", "stops"),
    [
        ("nightly/job/tokens", {"a": "succeeded"}, True),
        ("each/call/tokens", {"a": "succeeded", "b": "budget.denied", "c": "succeeded"}, False),
        ("tenants/tenant:b/tokens", {"a": "succeeded", "b": "budget.denied", "c": "succeeded"}, False),
    ],
)
def test_a_shared_budget_without_room_stops_the_job(tmp_path, monkeypatch, scope, found, stops) -> None:
    """What was never sent is not in the output, and runs when there is room; a row's own budget fails that row."""
    from tests.jobs import jobs

    spec = write_job(tmp_path, "a", "b", "c", policy=jobs.POLICY + BUDGETS)
    ask = LocalAsker._call

    async def asked(self, params, labels, *more):
        return denied(scope) if labels["custom_id"] == "b" else await ask(self, params, labels, *more)

    monkeypatch.setattr(LocalAsker, "_call", asked)
    runner, summary = run_virtual(lambda: run_job(spec, Provider(other=WHOLE), concurrency=1))
    assert results(tmp_path) == found
    assert runner.stopped == (Stop("budget", "no room") if stops else None)
    assert summary.not_run == (2 if stops else 0)


def test_a_full_disk_ends_the_job_with_the_error(tmp_path, monkeypatch) -> None:
    """Nothing more is bought that could not be kept; what was written stays."""
    spec = write_job(tmp_path, *map(str, range(10)))
    provider = Provider(other=WHOLE)

    async def run() -> None:
        job = Job.open(spec)
        append, calls = job.output.append, []

        def full(line: bytes) -> None:
            calls.append(line)
            if len(calls) > 3:
                raise OutputError("out", OSError(errno.ENOSPC, "No space left on device"))
            append(line)

        monkeypatch.setattr(job.output, "append", full)
        runner, _ = make_runner(job, provider, concurrency=1)
        try:
            with pytest.raises(OutputError, match="No space left"):
                await runner.run()
        finally:
            job.close()

    run_virtual(run)
    assert results(tmp_path) == dict.fromkeys("012", "succeeded")
    assert len(provider.sources) == 4


def test_an_input_that_changes_ends_the_job(tmp_path) -> None:
    """Rows are read when their turn comes; a file that was edited meanwhile is not guessed at."""
    spec = write_job(tmp_path, "a", "b", "c")

    async def run() -> None:
        job = Job.open(spec)
        (tmp_path / "in.jsonl").write_text('{"custom_id": "x"}\n' * 20)
        runner, _ = make_runner(job, Provider(other=WHOLE))
        try:
            with pytest.raises(JobError, match=r"in\.jsonl:1: changed while the job ran"):
                await runner.run()
        finally:
            job.close()

    run_virtual(run)
    assert results(tmp_path) == {}


def test_an_error_leaves_old_failures_in_the_output(tmp_path) -> None:
    """A run that ends by an error puts back what it did not come to."""
    spec = write_job(tmp_path, "a", "b", "c")
    run_virtual(run_job, spec, Provider(a=TOO_BAD, b=TOO_BAD, c=WHOLE))

    async def run() -> None:
        job = Job.open(spec)
        assert results(tmp_path) == {"c": "succeeded"}
        provider = Provider(other=WHOLE)
        provider.on_made = lambda name: 1 / 0 if name == "b" else None
        runner, _ = make_runner(job, provider, concurrency=1)
        try:
            with pytest.raises(ZeroDivisionError):
                await runner.run()
        finally:
            job.close()

    run_virtual(run)
    assert results(tmp_path) == {"c": "succeeded", "a": "succeeded", "b": "json.schema"}


def test_a_mistake_of_the_package_is_not_hidden_in_a_row(tmp_path) -> None:
    """What nobody expected ends the run, and calls under way are aborted."""
    spec = write_job(tmp_path, "a", "b", "c")

    def broken(params):
        if params["messages"][0]["content"] == "c":
            raise ZeroDivisionError("a bug")
        return hanging(params)

    hanging = Provider(b=[[pause(1), *answer(GOOD)]], other=[[*answer(GOOD)[:3], stall()]])

    async def run() -> None:
        job = Job.open(spec)
        runner, _ = make_runner(job, broken, concurrency=2)
        try:
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await runner.run()
        finally:
            job.close()

    run_virtual(run)
    assert (results(tmp_path), hanging.left_open) == ({"b": "succeeded", "a": "canceled"}, 0)


def test_partials_are_kept_on_demand(tmp_path) -> None:
    """With `partials` the output has the text of rejected attempts."""
    spec = write_job(tmp_path, "a")
    run_virtual(lambda: run_job(spec, Provider(a=TOO_BAD), partials=True))
    attempts = json.loads((tmp_path / "out.jsonl").read_text())["streamguard"]["attempts"]
    assert [DEAD.startswith(one["text"]) and one["text"] != "" for one in attempts] == [True, True]


def die_with(spec, *names: str) -> None:
    """A run that is killed while these rows are under way."""
    job = Job.open(spec)
    job.start()
    for name in names:
        job.journal.begin(name)
    job.close()


def test_what_was_under_way_at_a_kill_is_asked_last(tmp_path) -> None:
    """Rows that no process died of go first, so that a poisonous one does not keep the job from getting on."""
    spec = write_job(tmp_path, "a", "b", "c", "d")
    die_with(spec, "a", "c")
    provider = Provider(other=WHOLE)
    run_virtual(lambda: run_job(spec, provider, concurrency=1))
    assert provider.asked == ["b", "d", "a", "c"]


def test_a_suspect_is_asked_alone(tmp_path) -> None:
    """A row that was under way at two deaths runs when nothing else does, so the third would tell."""
    spec = write_job(tmp_path, "a", "b", "c", "d")
    for _ in range(2):
        die_with(spec, "a", "c")
    slow = [[pause(1), *answer(GOOD)]]
    provider, running = Provider(other=slow), []

    async def run() -> None:
        job = Job.open(spec)
        runner, tally = make_runner(job, provider, concurrency=4)
        provider.on_made = lambda name: running.append((name, tally.running))
        await runner.run()
        job.close()

    run_virtual(run)
    assert running == [("b", 1), ("d", 2), ("a", 1), ("c", 1)]
    assert results(tmp_path) == dict.fromkeys("bdac", "succeeded")


def test_a_row_that_kills_the_process_ends_as_dead(tmp_path) -> None:
    """After three deaths it is recorded as poison, in the output and beside it, and asked again only by a retry."""
    spec = write_job(tmp_path, "a", "b", "c")
    for _ in range(3):
        die_with(spec, "b")
    provider = Provider(other=WHOLE)
    run_virtual(run_job, spec, provider)
    assert (provider.asked, results(tmp_path)) == (["a", "c"], {"b": "job.poison", "a": "succeeded", "c": "succeeded"})
    assert (tmp_path / "out.jsonl.dead").read_text() == json.dumps(batch_line("b")) + "\n"
    again = Provider(other=WHOLE)
    run_virtual(run_job, spec, again)
    assert again.asked == []
    retry = msgspec.structs.replace(spec, rules=Rules(only=Selection(reasons=("job.*",))))
    run_virtual(run_job, retry, again)
    assert (again.asked, results(tmp_path)) == (["b"], dict.fromkeys("acb", "succeeded"))
    assert not (tmp_path / "out.jsonl.dead").exists()


def test_a_row_that_fails_in_three_runs_is_left_alone(tmp_path) -> None:
    """Its line stays, the row is put beside the output to be mended, and it counts as a failure of every later run."""
    spec = write_job(tmp_path, "a", "b")
    asked = []
    for _ in range(5):
        provider = Provider(a=WHOLE, b=TOO_BAD)
        job = Job.open(spec)
        before = dict(job.failed_before)
        job.close()
        run_virtual(run_job, spec, provider)
        asked.append((len(provider.sources), before, (tmp_path / "out.jsonl.dead").exists()))
    dead = {"json.schema": 1}
    assert asked == [(2, {}, False), (1, {}, False), (1, {}, True), (0, dead, True), (0, dead, True)]
    assert results(tmp_path) == {"a": "succeeded", "b": "json.schema"}


def test_an_outage_kills_no_row(tmp_path) -> None:
    """However many nights the provider is down, rows are asked again."""
    spec = write_job(tmp_path, "a")
    for _ in range(5):
        provider = Provider(a=[error("overloaded_error")])
        run_virtual(run_job, spec, provider)
        assert len(provider.sources) == 1
