"""A job at the rate that the provider's limits allow: rows begin near their turns, and a budget's own holds end nothing."""

from __future__ import annotations

from pathlib import Path

import anyio

from streamguard.jobs.job import Job
from streamguard.jobs.store.journal import read_journal
from streamguard.testing import answer, run_virtual, status
from tests.jobs.jobs import GOOD, POLICY, Provider, make_runner, results, run_job, write_job

HEAD = {"anthropic-ratelimit-requests-limit": "60", "anthropic-ratelimit-requests-remaining": "60"}
ROWS = [f"row-{i}" for i in range(40)]


def test_rows_begin_only_when_their_turns_are_near(tmp_path: Path) -> None:
    """Whatever moment a kill comes at, few rows are noted as under way: those that run, and eight that wait."""
    spec = write_job(tmp_path, *ROWS)
    provider = Provider(other=[[status(200, HEAD), *answer(GOOD)]])
    most = 0

    async def main() -> None:
        nonlocal most
        job = Job.open(spec)
        runner, tally = make_runner(job, provider)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(job.journal.in_flight()))
                await anyio.sleep(0.25)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await runner.run()
            group.cancel_scope.cancel()
        job.close()
        assert tally.running == 0

    run_virtual(main)
    assert results(tmp_path) == dict.fromkeys(ROWS, "succeeded")
    assert 0 < most <= 8 + 8


def test_a_job_goes_at_the_rate_that_its_answers_state(tmp_path: Path) -> None:
    """Sixty a minute, times the margin, with nobody's help: `concurrency` is not named."""
    spec = write_job(tmp_path, *ROWS, policy=POLICY + "pace: {ramp: 0}\n")
    provider = Provider(other=[[status(200, HEAD), *answer(GOOD)]])
    _, summary = run_virtual(lambda: run_job(spec, provider))
    assert 20 < summary.seconds < 32
    assert summary.waited_for_limits_seconds > 100
    journal = read_journal(spec.out)
    assert journal is not None
    journal.close()


def test_a_budgets_own_holds_end_no_job(tmp_path: Path) -> None:
    """Many rows at a time hold more than a budget has; it pays for all of them, one after the other."""
    budget = "budgets: [{name: nightly, tokens: 30000}]\n"
    spec = write_job(tmp_path, *ROWS, policy=POLICY + budget)
    runner, summary = run_virtual(lambda: run_job(spec, Provider(other=[answer(GOOD)])))
    assert (runner.stopped, sum(summary.succeeded.values())) == (None, len(ROWS))
