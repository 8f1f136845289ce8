"""The runner: every row once, so many at a time, and every way to end early. In virtual time."""

from __future__ import annotations

import errno
import json
import random

import anyio
import msgspec
import pytest

from streamguard.errors import BudgetExhausted, JobError
from streamguard.events import Failed, Usage
from streamguard.jobs.amount import Amount
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner, Stop
from streamguard.jobs.store.output import OutputError
from streamguard.jobs.store.resume import Rules, Selection
from streamguard.outcome import CallRecord
from streamguard.testing import BACKENDS, answer, error, pause, rst, run_virtual, stall
from streamguard.usage import UsageRange
from tests.jobs.jobs import DEAD, GOOD, POLICY, Provider, batch_line, make_runner, results, run_job, write_job

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


def test_failures_can_be_left_alone(tmp_path) -> None:
    """With `retry_failed` off the run asks what has no result yet; the output has the old failures all the same."""
    spec = write_job(tmp_path, "a", "b")
    run_virtual(run_job, spec, Provider(a=TOO_BAD, b=WHOLE))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(batch_line(name)) + "\n" for name in "abc"))
    provider = Provider(other=WHOLE)
    kept = msgspec.structs.replace(spec, rules=Rules(retry_failed=False))
    run_virtual(run_job, kept, provider)
    assert (provider.asked, results(tmp_path)) == (["c"], {"b": "succeeded", "a": "json.schema", "c": "succeeded"})


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"limit": 2}, ["a", "b"]),
        ({"sample": Amount(count=2)}, ["c", "d"]),
        ({"sample": Amount(percent=20)}, ["d"]),
        ({"sample": Amount(count=2), "limit": 1}, ["c"]),
        ({"limit": 99}, list("abcde")),
    ],
)
def test_a_part_of_the_rows(tmp_path, given, asked) -> None:
    """The first ones, or a sample that is the same in every run, so that it can be gone on with."""
    spec = write_job(tmp_path, *"abcde")
    provider = Provider(other=WHOLE)
    run_virtual(run_job, msgspec.structs.replace(spec, **given), provider)
    assert sorted(provider.asked) == asked
    assert sorted(results(tmp_path)) == asked
    rest = Provider(other=WHOLE)
    run_virtual(run_job, spec, rest)
    assert sorted([*asked, *rest.asked]) == list("abcde")


def test_what_runs_may_end_within_its_time(tmp_path) -> None:
    """After an interrupt with time to drain, quick rows end and slow ones are aborted when it is over."""
    spec = write_job(tmp_path, "quick", "slow", "never")
    provider = Provider(quick=[[pause(3), *answer(GOOD)]], slow=[[*answer(GOOD)[:3], stall()]], never=WHOLE)

    async def run() -> float:
        job = Job.open(spec)
        runner, _ = make_runner(job, provider, concurrency=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.sleep(1)
            began = anyio.current_time()
            runner.interrupt("SIGINT", 5.0)
        job.close()
        return anyio.current_time() - began

    assert run_virtual(run) == pytest.approx(5.0, abs=0.1)
    assert results(tmp_path) == {"quick": "succeeded", "slow": "canceled"}


def test_a_second_interrupt_ends_the_time(tmp_path) -> None:
    """What runs is aborted at once."""
    spec = write_job(tmp_path, "slow")
    provider = Provider(slow=[[*answer(GOOD)[:3], stall()]])

    async def run() -> float:
        job = Job.open(spec)
        runner, _ = make_runner(job, provider)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.sleep(1)
            runner.interrupt("SIGINT", 500.0)
            await anyio.sleep(1)
            runner.interrupt("SIGINT")
        job.close()
        return anyio.current_time()

    assert run_virtual(run) == pytest.approx(2.0, abs=0.1)
    assert results(tmp_path) == {"slow": "canceled"}


def test_a_second_interrupt_may_leave_less_time(tmp_path) -> None:
    """`interrupt(drain=…)` said again with fewer seconds: it is those; with more, nothing changes."""
    spec = write_job(tmp_path, "slow")
    provider = Provider(slow=[[*answer(GOOD)[:3], stall()]])

    async def run() -> float:
        job = Job.open(spec)
        runner, _ = make_runner(job, provider)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            for drain in (500.0, 5.0, 50.0):
                await anyio.sleep(1)
                runner.interrupt("SIGINT", drain)
        job.close()
        return anyio.current_time()

    assert run_virtual(run) == pytest.approx(7.0, abs=0.1)
    assert results(tmp_path) == {"slow": "canceled"}


def test_a_row_without_an_id_keeps_its_result_wherever_it_moves(tmp_path) -> None:
    """Its key is what is in it and which of its equals it is: lines may be inserted, removed and shuffled."""
    template = tmp_path / "t.j2"
    template.write_text("---\nmodel: m\nmax_tokens: 50\n---\n{{ text }}")
    spec = msgspec.structs.replace(write_job(tmp_path), template=str(template))

    def ask(*texts: str) -> list[str]:
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        provider = Provider(other=WHOLE)
        run_virtual(run_job, spec, provider)
        return provider.asked

    assert ask("x", "y", "x") == ["x", "y", "x"]
    assert [name[-2:] for name in results(tmp_path)] == ["-1", "-1", "-2"]
    assert ask("new", "x", "x", "y") == ["new"]
    assert ask("y", "x", "x", "x") == ["x"]
    assert len(results(tmp_path)) == 5


def test_what_a_job_has_spent_carries_over(tmp_path) -> None:
    """A budget per job that names no ledger is kept beside the output: a second run has what the first one left."""
    policy = POLICY + "budgets: [{name: job, tokens: 8000}]\n"
    spec = write_job(tmp_path, *"abcdef", policy=policy)
    provider = Provider(other=[answer(GOOD, usage=Usage(input_tokens=2000, output_tokens=500))])
    runner, summary = run_virtual(lambda: run_job(spec, provider, concurrency=1))
    # Each takes 2,500 of 8,000 and may take some 1,400: after three there is no room for a fourth.
    assert (provider.asked, summary.not_run) == (["a", "b", "c"], 3)
    assert runner.stopped is not None
    assert (runner.stopped.kind, results(tmp_path)) == ("budget", dict.fromkeys("abc", "succeeded"))
    again = Provider(other=WHOLE)
    runner, summary = run_virtual(lambda: run_job(spec, again, concurrency=1))
    assert (again.asked, runner.stopped and runner.stopped.kind, summary.not_run) == ([], "budget", 3)
    (tmp_path / "policy.yaml").write_text(policy.replace("8000", "100000"))
    run_virtual(lambda: run_job(spec, again, concurrency=1))
    assert again.asked == ["d", "e", "f"]


PRICED = """
version: 1
extends: streamguard:extraction
json: {schema: {type: object, properties: {n: {type: integer}}, required: [n], additionalProperties: false}}
budgets: [{name: job, cost_usd: "0.05"}]
"""
COSTS = Usage(input_tokens=54, output_tokens=32)
"""Of claude-haiku-4-5 for $1 and $5 a million tokens: $0.000214, so fifty rows cost $0.0107."""
SLOW_END = [step for event in answer(GOOD, usage=COSTS) for step in (pause(0.12), event)]


@pytest.mark.parametrize("concurrency", [1, 8, 50])
@pytest.mark.parametrize("attempt", [answer(GOOD, usage=COSTS), SLOW_END], ids=["at once", "0.12 s between frames"])
def test_a_budget_does_not_stop_a_job_that_it_pays_for(tmp_path, attempt, concurrency: int) -> None:
    """Fifty rows hold ten times the budget if they run at once: they wait for each other, and all are answered."""
    rows = [batch_line(f"r{n}", model="claude-haiku-4-5", max_tokens=2000) for n in range(50)]
    spec = write_job(tmp_path, *rows, policy=PRICED)
    provider = Provider(other=[attempt])
    runner, summary = run_virtual(lambda: run_job(spec, provider, concurrency=concurrency))
    assert runner.stopped is None
    # The model that answers is twice as dear as the one that was asked for.
    assert (summary.succeeded, summary.attempts, summary.cost_usd) == ({"whole": 50}, 50, (0.0214, 0.0214))


def test_rows_that_wait_for_room_are_no_slower_for_it(tmp_path) -> None:
    """The time a row waits for what other rows hold is no time of its call, whose own limit is much shorter."""
    rows = [batch_line(f"r{n}", model="claude-haiku-4-5", max_tokens=6000) for n in range(20)]
    policy = PRICED + "timeouts: {total: 15}\n"
    spec = write_job(tmp_path, *rows, policy=policy)
    provider = Provider(other=[[pause(4), *answer(GOOD, usage=COSTS)]])
    _, summary = run_virtual(lambda: run_job(spec, provider, concurrency=20))
    assert (summary.succeeded, provider.most_open) == ({"whole": 20}, 0)
    assert summary.seconds == pytest.approx(20 * 4, abs=1)
    assert summary.row_seconds is not None
    assert summary.row_seconds.p95 == pytest.approx(4, abs=0.1)


def test_what_stays_uncertain_stops_a_job_and_says_so(tmp_path) -> None:
    """Answers that break off may have cost all they could: once that leaves no room, every way out is named."""
    rows = [batch_line(f"r{n}", model="claude-haiku-4-5", max_tokens=2000) for n in range(50)]
    policy = PRICED.replace("budgets:", "retry: {attempts: 1, rules: []}\nbudgets:")
    spec = write_job(tmp_path, *rows, policy=policy)
    provider = Provider(other=[[*answer(GOOD)[:2], pause(1), rst()]])
    runner, summary = run_virtual(lambda: run_job(spec, provider))
    assert (summary.failed, summary.not_run) == ({"transport.reset": 4}, 46)
    assert runner.stopped is not None
    scope = next(iter(runner._job.policy.budgets)).scopes(job=runner._job.name)[0].key
    assert runner.stopped.kind == "budget"
    asked = int(runner.stopped.why.partition("$0.")[2][:6])
    assert 10_000 < asked < 12_500  # micro-USD: 2,000 tokens of output, and a little input
    assert runner.stopped.why == (
        f"not sent: the request may cost up to $0.{asked:06}, and budget {scope} has $0.{50_000 - 4 * asked:06} left of "
        f"$0.050000: $0.000000 spent, $0.000000 held, $0.{4 * asked:06} uncertain (answers that ended before the provider had counted "
        "them). To go on: raise the budget and run again; ask with a smaller max_tokens, so that each request holds "
        f"less; tell what the bill says (streamguard budget reconcile {spec.out}.ledger {scope} --settled …); say "
        "abort_stops_billing: true in the budget, if your provider stops billing at a disconnect"
    )


def test_rows_that_wait_for_room_do_not_begin_after_a_signal(tmp_path) -> None:
    """Who waits for room has not begun: a signal puts the row back, while what runs is drained."""
    rows = [batch_line(f"r{n}", model="claude-haiku-4-5", max_tokens=6000) for n in range(5)]
    spec = write_job(tmp_path, *rows, policy=PRICED)
    provider = Provider(other=[[pause(4), *answer(GOOD, usage=COSTS)]])

    async def run() -> tuple[Runner, Tally]:
        job = Job.open(spec)
        runner, tally = make_runner(job, provider)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.sleep(1)
            runner.interrupt("SIGTERM", drain=10)
        await runner._runtime.aclose()
        job.close()
        return runner, tally

    runner, tally = run_virtual(run)
    summary = tally.summary(runner.stopped)
    assert (results(tmp_path), summary.not_run) == ({"r0": "succeeded"}, 4)
    assert runner.stopped == Stop("signal", "SIGTERM")


def test_a_job_s_schema_may_be_a_type(tmp_path) -> None:
    """`schema: module:Name`: a row is asked again for what the type refuses, and its result is plain JSON."""
    right = '{"description": "a", "qty": 2, "price": 1.5, "amount": 3.0}'
    provider = Provider(other=[answer(right.replace("3.0", "4.0")), answer(right)])
    named = msgspec.structs.replace(write_job(tmp_path, "a"), schema="tests.models.bad_answers:Line")
    with pytest.raises(JobError, match="nothing may be imported here"):
        Job.open(named)
    run_virtual(run_job, msgspec.structs.replace(named, allow_imports=True), provider)
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["streamguard"]["output"] == {"description": "a", "qty": 2, "price": 1.5, "amount": 3.0}
    assert line["streamguard"]["reasons"] == ["json.model"]


def test_another_type_is_another_question(tmp_path) -> None:
    """Results that were made with another type are not taken for answers."""
    provider = Provider(other=[answer("3")])
    spec = msgspec.structs.replace(write_job(tmp_path, "a"), allow_imports=True, schema="tests.models.zoo:Money")
    run_virtual(run_job, spec, provider)
    with pytest.raises(JobError, match="schema"):
        Job.open(msgspec.structs.replace(spec, schema="tests.models.zoo:Tree2"))


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize(
    ("attempt", "kind", "said"),
    [
        (error("not_found_error", "model: m does not exist"), "refused", "3 rows in a row failed alike: "),
        (Failed(reason="transport.connect", message="connection refused", sent=False), "refused", "3 rows in a row"),
        (error("api_error", "internal"), "failing", "20 rows in a row failed by the provider or the line (stop_on)"),
        (Failed(reason="transport.reset", message="gone"), "failing", "20 rows in a row failed by the provider"),
    ],
    ids=["no such model", "nobody there", "errors only", "resets only"],
)
def test_a_provider_that_only_fails_stops_the_job(tmp_path, attempt, kind, said, concurrency: int) -> None:
    """What a person must mend stops it after three rows, an outage after twenty; the others are not run."""
    spec = write_job(tmp_path, *(f"r{n}" for n in range(100)))
    options = {"concurrency": concurrency, "endpoint": "https://api.example"}
    runner, summary = run_virtual(lambda: run_job(spec, Provider(other=[[attempt]]), **options))
    assert runner.stopped is not None
    assert runner.stopped.kind == kind
    assert said in runner.stopped.why
    assert "(asked https://api.example)" in runner.stopped.why
    most = 3 if kind == "refused" else 20
    assert most <= sum(summary.failed.values()) < most + concurrency
    assert summary.not_run == 100 - sum(summary.failed.values())


def test_an_answer_in_between_is_no_outage(tmp_path) -> None:
    """Failures are counted in a row, and only those of the provider or the line; 0 never stops a job."""
    names = [f"{'bad' if n % 10 else 'good'}{n}" for n in range(60)]
    scripts = {name: WHOLE if name.startswith("good") else [[error("api_error")]] for name in names}
    run = {"concurrency": 1, "stop_on": 10}
    runner, summary = run_virtual(lambda: run_job(write_job(tmp_path, *names), Provider(**scripts), **run))
    assert (runner.stopped, summary.failed) == (None, {"provider.api_error": 54})
    (tmp_path / "never").mkdir()
    spec = write_job(tmp_path / "never", *(f"r{n}" for n in range(60)))
    provider = Provider(other=[[error("not_found_error")]])
    runner, summary = run_virtual(lambda: run_job(spec, provider, concurrency=1, stop_on=0))
    assert (runner.stopped, summary.failed) == (None, {"provider.not_found": 60})


def test_each_reason_has_an_example(tmp_path) -> None:
    """The first row of each reason, with the provider's own words."""
    scripts = {"a": TOO_BAD, "b": [[error("api_error", "the disk is full")]], "c": TOO_BAD, "d": WHOLE}
    _, summary = run_virtual(lambda: run_job(write_job(tmp_path, *"abcd"), Provider(**scripts), concurrency=1))
    examples = {reason: (one.custom_id, one.message) for reason, one in summary.examples.items()}
    assert set(examples) == {"json.schema", "provider.api_error"}
    assert examples["json.schema"][0] == "a"
    assert examples["provider.api_error"][0] == "b"
    assert "the disk is full" in examples["provider.api_error"][1]
