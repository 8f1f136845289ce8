"""A default job end to end at an account with rate limits, beside the default of before: `python -m bench.pace_job`.

In virtual time: the job's own input, journal, runner and engine, in front of a source that asks the account's token
buckets (`streamguard.testing.rate_limits`) and takes as long as a model would. What counts is the ratio of rows a
minute.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from bench.pace_world import REFUSING, WAY, Load
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Failed, Metered, Started, Stopped, Usage
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Summary, Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.results import About
from streamguard.pace.limits import Limits
from streamguard.request import Request
from streamguard.source import Attempt, SourceFailed
from streamguard.testing.clock import run_virtual
from streamguard.testing.rate_limits import RateLimits

POLICY = """
version: 1
timeouts: {total: 240}
retry:
  attempts: 3
  rules: [{when: provider.*, wait: {initial: 0.5, max: 20}, respect_retry_after: true}]
"""
LOAD = Load(input=1000, output=300, max_tokens=1024)
ROWS = 6000


class AccountSource:
    """A request to a model behind an account's limits."""

    sees_bytes = True

    def __init__(self, account: RateLimits, params: Mapping[str, Any], dice: random.Random) -> None:
        self.request = Request(params)
        self._account = account
        self._row = LOAD.row(dice)

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[_Answer]:  # noqa: ARG002
        """Ask the account."""
        row = self._row
        await anyio.sleep(WAY)
        admission = self._account.admit(anyio.current_time(), input_tokens=row.input, max_tokens=row.max_tokens)
        if admission.retry_after is not None:
            await anyio.sleep(REFUSING)
            raise SourceFailed(
                Failed(
                    reason="provider.rate_limited",
                    message="too fast",
                    status=429,
                    retry_after=admission.retry_after,
                    billable=False,
                    limits=admission.limits,
                )
            )
        await anyio.sleep(row.first_token)
        self._account.produce(anyio.current_time(), row.speed)
        try:
            yield _Answer(row, admission.limits)
        finally:
            self._account.produce(anyio.current_time(), -row.speed)


class _Answer:
    def __init__(self, row: Any, limits: Limits) -> None:
        self.limits = limits
        self._row = row

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        row = self._row
        yield [Started(id="m", model="m", usage=Usage(input_tokens=row.input)), BlockStarted(0, "text")]
        yield [Delta(0, "text", "An")]
        await anyio.sleep(row.output / row.speed)
        used = Usage(input_tokens=row.input, output_tokens=row.output)
        yield [Delta(0, "text", " answer."), BlockStopped(0), Metered(used, "end_turn"), Stopped("end_turn")]

    def message(self) -> None:
        """None: nobody asks."""


def job(folder: Path, *, pace: str, concurrency: int | None, rows: int = ROWS) -> tuple[Summary, RateLimits]:
    """One job, from its first row to its last."""
    (folder / "policy.yaml").write_text(POLICY + pace)
    with (folder / "in.jsonl").open("w") as file:
        for i in range(rows):
            params = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "x" * 4000}]}
            file.write(json.dumps({"custom_id": str(i), "params": params}) + "\n")
    out = folder / f"out-{concurrency}-{pace[:9].strip()}.jsonl"
    spec = JobSpec(input=str(folder / "in.jsonl"), out=str(out), policy=str(folder / "policy.yaml"))
    account, dice = RateLimits(), random.Random(1)

    async def main() -> Summary:
        opened = Job.open(spec)
        try:
            tally = Tally(opened.rows, opened.kept, backend_clock())
            runtime = Runtime(job=opened.name, hooks=[tally.hook])
            asker = LocalAsker(
                lambda params: AccountSource(account, params, dice), opened.policy, runtime, About(policy="p")
            )
            runner = Runner(opened, asker, tally=tally, runtime=runtime, concurrency=concurrency)
            await runner.run()
            return tally.summary(runner.stopped)
        finally:
            opened.close()

    return run_virtual(main, backend="asyncio", within=100_000), account


def main() -> int:
    """The default of before, a large number, and the default."""
    print(f"{ROWS:,} rows at 1,000 requests a minute; the load: {LOAD.input:g} input and {LOAD.output:g} output tokens")
    print(f"{'':<22}{'rows/min':>10}{'refused':>9}{'lost':>7}{'ratio':>8}")
    before = 0.0
    for name, pace, concurrency in (
        ("8 at a time, no pace", "pace: off\n", None),
        ("64 at a time, no pace", "pace: off\n", 64),
        ("auto (the default)", "", None),
    ):
        with tempfile.TemporaryDirectory() as folder:
            summary, account = job(Path(folder), pace=pace, concurrency=concurrency)
        done = sum(summary.succeeded.values())
        rate = done / summary.seconds * 60
        before = before or rate
        lost = sum(summary.failed.values())
        print(f"{name:<22}{rate:>10.0f}{account.refused:>9}{lost:>7}{rate / before:>8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
