"""A job through an outage: it begins no rows while the endpoint is down, and goes on when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from bench.breaker import Fails, Weather, WeatherSource
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import BreakerClosed, BreakerOpened, BreakerProbed
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Summary, Tally
from streamguard.jobs.runner import Runner, Stop
from streamguard.jobs.store.results import About
from streamguard.testing.clock import BACKENDS, run_virtual
from tests.jobs.jobs import batch_line, write_job

POLICY = """
version: 1
timeouts: {total: 240, connect: 100, first_token: 60}
pace: off
retry:
  attempts: 3
  rules: [{when: [provider.*, transport.*, timeout.*], wait: {initial: 0.5, max: 20}%s}]
"""
ELSEWHERE = ", base_url: https://other.example"


class Ran:
    """A job in front of an endpoint that is down for a while."""

    def __init__(
        self,
        folder: Path,
        rows: int,
        fails: Fails = "connect",
        *,
        down: tuple[float, float] = (20.0, 200.0),
        rule: str = "",
        more: str = "",
        models: tuple[str, ...] = ("m",),
    ) -> None:
        lines = [batch_line(f"row-{i}", model=models[i % len(models)]) for i in range(rows)]
        self.spec = write_job(folder, *lines, policy=POLICY % rule + more)
        self.weather = Weather(fails, 1, down)
        self.told: list[Any] = []
        self.began_while_down: list[float] = []
        self.runner: Runner
        self.tally: Tally

    async def run(self, *, interrupt_at: float | None = None, **options: Any) -> Summary:
        """The job from its checks to its end."""
        job = Job.open(self.spec)
        self.weather.began = began = anyio.current_time()
        try:
            self.tally = tally = Tally(job.rows, job.kept, backend_clock())
            runtime = Runtime(job=job.name, hooks=[tally.hook, self.told.append], jitter=lambda: 0.5)
            asker = LocalAsker(
                lambda params: WeatherSource(self.weather, params), job.policy, runtime, About(policy="p")
            )
            options = {"concurrency": 8, **options}
            self.runner = Runner(job, asker, tally=tally, runtime=runtime, endpoint="https://one.example", **options)
            note, weather = job.journal.begin, self.weather

            def begin(key: str) -> None:
                if asker.down(anyio.current_time()):
                    self.began_while_down.append(anyio.current_time() - began)
                note(key)

            job.journal.begin = begin  # type: ignore[method-assign]
            assert weather.began == began
            async with anyio.create_task_group() as group:
                if interrupt_at is not None:
                    group.start_soon(self._interrupt, interrupt_at)
                await self.runner.run()
                group.cancel_scope.cancel()
            return tally.summary(self.runner.stopped)
        finally:
            job.close()

    async def _interrupt(self, after: float) -> None:
        await anyio.sleep(after)
        self.runner.interrupt("SIGINT")

    def told_of(self, kind: type[Any]) -> list[Any]:
        """The records of a kind."""
        return [record for record in self.told if isinstance(record, kind)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fails", ["connect", "silent", "refuses"])
def test_a_job_holds_its_rows_while_the_endpoint_is_down(tmp_path: Path, fails: Fails, backend: Any) -> None:
    """The rows that were under way fail at the most, whatever the outage is like; all others are answered after it."""
    ran = Ran(tmp_path, 120, fails)
    summary = run_virtual(ran.run, backend=backend, within=100_000)
    assert ran.runner.stopped is None
    assert sum(summary.failed.values()) <= 2 * 8
    assert sum(summary.succeeded.values()) + sum(summary.failed.values()) == 120
    assert ran.weather.counts.sent_while_down <= 3 * 8 + 20
    if fails != "refuses":  # there a cool-down may be enough
        assert len(ran.told_of(BreakerOpened)) == len(ran.told_of(BreakerClosed)) == 1
        assert len(ran.told_of(BreakerProbed)) >= 3


def test_rows_begin_to_look_alone(tmp_path: Path) -> None:
    """While the endpoint is down a row begins only to look, one at a time, after the pause."""
    ran = Ran(tmp_path, 120, down=(20.0, 700.0))
    run_virtual(ran.run, within=100_000)
    assert ran.began_while_down
    gaps = [b - a for a, b in zip(ran.began_while_down, ran.began_while_down[1:], strict=False)]
    assert all(gap >= 5.0 for gap in gaps)


def test_a_held_job_ends_at_once_on_a_signal(tmp_path: Path) -> None:
    """Nobody waits for the end of an outage: the rows that have not begun stay undone, and run next time."""
    ran = Ran(tmp_path, 400, down=(20.0, 10_000.0))
    summary = run_virtual(lambda: ran.run(interrupt_at=400.0), within=100_000)
    assert ran.runner.stopped == Stop("signal", "SIGINT")
    assert summary.seconds == pytest.approx(400.0, abs=0.5)
    assert sum(summary.failed.values()) <= 2 * 8
    assert summary.not_run > 300


def test_an_outage_longer_than_the_hold_ends_the_job(tmp_path: Path) -> None:
    """It ends as with `stop_on`, and the sentence names the knob; what is left runs next time."""
    ran = Ran(tmp_path, 400, down=(20.0, 10_000.0), more="breaker: {hold: 300}\n")
    summary = run_virtual(ran.run, within=100_000)
    why = "https://one.example is down for longer than 300 s (breaker.hold)"
    assert ran.runner.stopped == Stop("failing", why)
    assert summary.seconds < 700
    assert summary.not_run > 300


@pytest.mark.parametrize("fails", ["connect", "silent", "refuses"])
def test_an_endpoint_that_never_answered_ends_the_job_as_without_a_breaker(tmp_path: Path, fails: Fails) -> None:
    """A wrong address at the start is no outage: the job does not wait for its end."""
    came = []
    for more in ("", "breaker: off\n"):
        folder = tmp_path / f"folder-{len(more)}"
        folder.mkdir()
        ran = Ran(folder, 60, fails, down=(0.0, 100_000.0), more=more)
        summary = run_virtual(ran.run, within=100_000)
        came.append((ran.runner.stopped, summary.failed, summary.attempts, round(summary.seconds, 6)))
    assert came[0] == came[1]
    assert came[0][0] is not None


def test_a_rule_that_goes_elsewhere_spares_the_first_attempt(tmp_path: Path) -> None:
    """While the endpoint is down rows begin, and go at once where the rule names; only looks go to the endpoint."""
    ran = Ran(tmp_path, 300, rule=ELSEWHERE)
    summary = run_virtual(ran.run, within=100_000)
    assert summary.failed == {}
    assert ran.weather.counts.sent_while_down <= 8 + 12
    assert summary.seconds < 300


def test_rows_of_other_models_pass(tmp_path: Path) -> None:
    """One model is down: rows of another one are asked meanwhile, in their order."""
    ran = Ran(tmp_path, 200, down=(20.0, 400.0), models=("m", "other"))
    ran.weather.only = "m"
    done_before: list[int] = []

    async def main() -> Summary:
        async with anyio.create_task_group() as group:

            async def look() -> None:
                await anyio.sleep(395.0)
                done_before.append(ran.tally.succeeded.total())

            group.start_soon(look)
            return await ran.run()

    summary = run_virtual(main, within=100_000)
    assert sum(summary.failed.values()) <= 2 * 8
    assert done_before[0] >= 100
