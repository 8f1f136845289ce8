"""The runner: rows that are chosen, budgets, types as schemas, providers that only fail. In virtual time."""

from __future__ import annotations

import json

import anyio
import msgspec
import pytest

from streamguard.errors import JobError
from streamguard.events import Failed, Started, Usage
from streamguard.jobs.amount import Amount
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner, Stop
from streamguard.jobs.store.resume import Rules
from streamguard.testing import answer, error, pause, rst, run_virtual, stall
from tests.jobs.jobs import DEAD, GOOD, POLICY, Provider, batch_line, make_runner, results, run_job, write_job

WHOLE = [answer(GOOD)]

TOO_BAD = [answer(DEAD)]


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
ANSWER = [
    msgspec.structs.replace(event, model="claude-haiku-4-5") if isinstance(event, Started) else event
    for event in answer(GOOD, usage=COSTS)
]
SLOW_END = [step for event in ANSWER for step in (pause(0.12), event)]


@pytest.mark.parametrize("concurrency", [1, 8, 50])
@pytest.mark.parametrize("attempt", [ANSWER, SLOW_END], ids=["at once", "0.12 s between frames"])
def test_a_budget_does_not_stop_a_job_that_it_pays_for(tmp_path, attempt, concurrency: int) -> None:
    """Fifty rows hold ten times the budget if they run at once: they wait for each other, and all are answered."""
    rows = [batch_line(f"r{n}", model="claude-haiku-4-5", max_tokens=2000) for n in range(50)]
    spec = write_job(tmp_path, *rows, policy=PRICED)
    provider = Provider(other=[attempt])
    runner, summary = run_virtual(lambda: run_job(spec, provider, concurrency=concurrency))
    assert runner.stopped is None
    assert (summary.succeeded, summary.attempts, summary.cost_usd) == ({"whole": 50}, 50, (0.0107, 0.0107))


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
