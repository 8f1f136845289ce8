"""Ten minutes without an endpoint in the middle of a job, with the breaker and without: `python -m bench.breaker`.

In virtual time: the job's own input, journal, runner and engine, 64 rows at a time, in front of a source that is down
from 60 s to 660 s. It refuses (503), takes no connection (9.5 s each), or is silent (until the clock of the first
token). Once more with a rule that names another endpoint, whose answers take half as long again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec

from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Failed, Metered, Started, Stopped, Usage
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import STOP_ON, Runner
from streamguard.jobs.store.results import About
from streamguard.request import Request
from streamguard.source import Attempt, SourceFailed
from streamguard.testing.clock import run_virtual

Fails = Literal["refuses", "connect", "silent"]
DOWN, END, CALLS, ROWS = (60.0, 660.0), 840.0, 64, 16_000
SEEDS = (1, 2, 3)
THERE = "https://other.example"
POLICY = """
version: 1
timeouts: {total: 240, connect: 100, first_token: 60}
pace: off
retry:
  attempts: 3
  rules:
    - {when: [provider.*, transport.*, timeout.*], wait: {initial: 0.5, max: 20}%s}
"""


class Counts(msgspec.Struct):
    """What came of a run."""

    sent_while_down: int = 0
    """Requests to the endpoint that is down."""
    rows_done: int = 0
    rows_failed: int = 0
    back_after: float = -1.0
    """Seconds from the end of the outage to the first answer."""


class Weather:
    """The endpoint: when it is down, and how."""

    def __init__(self, fails: Fails, seed: int, down: tuple[float, float] = DOWN) -> None:
        self.fails = fails
        self.down = down
        self.only: str | None = None
        """The one model that is down; `None` for all."""
        self.dice = random.Random(seed)
        self.counts = Counts()
        self.began = 0.0

    async def ask(self, model: str, base_url: str | None) -> float:
        """One request. Return the seconds until its answer is complete.

        :raises SourceFailed: the endpoint is down.
        """
        now, longer = anyio.current_time() - self.began, 1.5 if base_url else 1.0
        if not base_url and self.only in (None, model) and self.down[0] <= now < self.down[1]:
            self.counts.sent_while_down += 1
            if self.fails == "silent":
                await anyio.sleep_forever()
            if self.fails == "connect":
                await anyio.sleep(9.5)
                raise SourceFailed(Failed(reason="transport.connect", message="no route", sent=False, billable=False))
            await anyio.sleep(0.15)
            raise SourceFailed(Failed(reason="provider.overloaded", message="busy", status=503, billable=False))
        return self.dice.lognormvariate(1.6, 0.5) * longer

    def answered(self, base_url: str | None) -> None:
        """An answer began."""
        now = anyio.current_time() - self.began
        if not base_url and now > self.down[1] and self.counts.back_after < 0:
            self.counts.back_after = now - self.down[1]


class WeatherSource:
    """A request to that endpoint, or to another one."""

    sees_bytes = True

    def __init__(self, weather: Weather, params: Mapping[str, Any]) -> None:
        self.request = Request(params)
        self._weather = weather

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[_Answer]:
        """Ask it."""
        seconds = await self._weather.ask(self.request.model, attempt.base_url)
        await anyio.sleep(seconds * 0.2)
        self._weather.answered(attempt.base_url)
        yield _Answer(seconds * 0.8)


class _Answer:
    limits = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        first, last = answer_of(10, 4)
        yield first
        await anyio.sleep(self._seconds)
        yield last

    def message(self) -> None:
        """None: nobody asks."""


def answer_of(input_tokens: int, output_tokens: int) -> tuple[list[Event], list[Event]]:
    """The first and the last events of an answer."""
    used = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    started = Started(id="m", model="m", usage=Usage(input_tokens=input_tokens))
    first: list[Event] = [started, BlockStarted(0, "text"), Delta(0, "text", "An")]
    return first, [Delta(0, "text", " answer."), BlockStopped(0), Metered(used, "end_turn"), Stopped("end_turn")]


def run(folder: Path, fails: Fails, *, breaker: bool, elsewhere: bool, seed: int) -> Counts:
    """One job through the outage, stopped after 840 s. Without the breaker it is told never to stop by itself."""
    rule = f", base_url: {THERE}" if elsewhere else ""
    (folder / "policy.yaml").write_text(POLICY % rule + ("" if breaker else "breaker: off\n"))
    params = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "x"}]}
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(json.dumps({"custom_id": str(i), "params": params}) + "\n" for i in range(ROWS))
    out = folder / f"out-{seed}-{breaker}-{elsewhere}-{fails}.jsonl"
    spec = JobSpec(input=str(folder / "in.jsonl"), out=str(out), policy=str(folder / "policy.yaml"))
    weather = Weather(fails, seed)

    async def main() -> Counts:
        opened = Job.open(spec)
        try:
            weather.began = anyio.current_time()
            tally = Tally(opened.rows, opened.kept, backend_clock())
            runtime = Runtime(job=opened.name, hooks=[tally.hook], jitter=weather.dice.random)
            asker = LocalAsker(lambda one: WeatherSource(weather, one), opened.policy, runtime, About(policy="p"))
            stop_on = STOP_ON if breaker else 0
            runner = Runner(opened, asker, tally=tally, runtime=runtime, concurrency=CALLS, stop_on=stop_on)
            async with anyio.create_task_group() as group:
                group.start_soon(_end, runner)
                await runner.run()
                group.cancel_scope.cancel()
            assert runner.stopped is not None
            assert runner.stopped.kind == "signal", runner.stopped
            weather.counts.rows_done = sum(tally.succeeded.values())
            weather.counts.rows_failed = sum(tally.failed.values())
            return weather.counts
        finally:
            opened.close()

    return run_virtual(main, backend="asyncio", within=100_000)


async def _end(runner: Runner) -> None:
    await anyio.sleep(END)
    runner.interrupt("the end of the measurement")


def main(*said: str) -> int:
    """Hold the goals; every figure is of the worst seed.

    :param said: seeds; `SEEDS` without any.
    """
    seeds = [int(one) for one in said] or SEEDS
    missed = 0
    print(f"{'':<22}{'rows failed':>12}{'sent down':>11}{'% of null':>11}{'rows done':>11}{'back after':>12}")
    for elsewhere in (False, True):
        for fails in ("refuses", "connect", "silent"):
            shares: list[float] = []
            for seed in seeds:
                with tempfile.TemporaryDirectory() as folder:
                    null, held = (
                        run(Path(folder), fails, breaker=on, elsewhere=elsewhere, seed=seed) for on in (False, True)
                    )
                shares.append(100 * held.sent_while_down / null.sent_while_down)
                good = held.rows_failed <= 96 and shares[-1] <= 15
                missed += not good
                what = f"{fails}{', rule' if elsewhere else ''} {seed}"
                _print(f"{what} null", null, None)
                _print(f"{what} {'ok' if good else 'MISS'}", held, shares[-1])
    return missed


def _print(what: str, counts: Counts, share: float | None) -> None:
    of_null = "" if share is None else f"{share:.1f}"
    print(
        f"{what:<22}{counts.rows_failed:>12,}{counts.sent_while_down:>11,}{of_null:>11}{counts.rows_done:>11,}"
        f"{counts.back_after:>12.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
