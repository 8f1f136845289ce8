"""Clocks: exact with a thousand streams, over a queue and its waits, whatever the machine's clocks and loop do."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import anyio
import pytest

from streamguard import api
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError, DeadlineExceeded
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.model import Policy
from streamguard.retry.rules import Retry, Rule
from streamguard.testing import ScriptedServer, faults, pace, run_virtual, script, wire
from streamguard.testing.faults import Say
from tests.clients import plain_client
from tests.matrix.grid import FAR


def test_many_streams_end_at_their_own_deadlines() -> None:
    """With 200 streams of 20 events a second each clock ends its own attempt, exactly. Virtual time: what a machine
    adds is measured by `python -m bench.soak`."""
    rng = random.Random(3)
    limits = [round(1 + 4 * rng.random(), 3) for _ in range(200)]
    pieces = [wire.message_start(), wire.block_start(), pace(20), *[wire.text_delta(f"{n} ") for n in range(400)]]

    async def one(limit: float, late: list[float]) -> None:
        source = script(pieces)
        policy = Policy(timeouts=Timeouts(attempt=limit))
        began = anyio.current_time()
        with pytest.raises(CallError, match=r"timeout\.attempt"):
            await api.run(source, policy=policy)
        late.append(anyio.current_time() - began - limit)

    async def main() -> list[float]:
        late: list[float] = []
        async with anyio.create_task_group() as tasks:
            for limit in limits:
                tasks.start_soon(one, limit, late)
        return late

    late = run_virtual(main)
    assert len(late) == 200
    assert max(late) <= 1e-6


@pytest.mark.parametrize("fault", ["F24-overloaded", "F02-mid-stream", "F41-number"])
def test_a_deadline_covers_waits_and_attempts(fault: str) -> None:
    """`total` starts with the call: attempts, backoff and the retries' own clocks all fit into it (F11)."""
    rule = Rule(when=("*",), wait=7.0)

    async def main(total: float) -> tuple[float, str, int]:
        source = faults.BY_ID[fault].source()
        policy = Policy(
            timeouts=Timeouts(total=total), json={"schema": faults.SCHEMA}, retry=Retry(attempts=50, rules=(rule,))
        )
        began = anyio.current_time()
        with pytest.raises(CallError) as caught:
            await api.run(source, policy=policy)
        return anyio.current_time() - began, type(caught.value).__name__, source.opened - source.closed

    for total in (0.5, 5.0, 30.0, 61.0, 200.0):
        seconds, error, left = run_virtual(main, total)
        assert (seconds <= total, left) == (True, 0), (total, error)


def test_calls_that_wait_for_room_end_at_their_deadlines() -> None:
    """A call whose budget has no room waits within its own deadline, and sends nothing (F11)."""

    async def main() -> tuple[float, type[BaseException], int]:
        runtime = Runtime(job="one")
        policy = Policy(
            timeouts=Timeouts(total=5.0),
            budgets=({"name": "small", "cost_usd": "0.05", "wait": 60.0},),
            prices={wire.MODEL: {"input": "3", "output": "15"}},
        )
        running = faults.BY_ID["F02-mid-stream"].source()
        waiting = script(Say().answer(), request=faults.request())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ended, api.run(running, policy=policy, runtime=runtime))
            await anyio.sleep(1)
            began = anyio.current_time()
            small = faults.request(max_tokens=3000)
            waiting = script(Say().answer(), request=small)
            with pytest.raises(CallError) as caught:
                await api.run(waiting, policy=policy, runtime=runtime)
            seconds = anyio.current_time() - began
            tasks.cancel_scope.cancel()
        return seconds, type(caught.value), waiting.opened

    seconds, error, opened = run_virtual(main)
    assert seconds <= 5.1
    assert opened == 0
    assert issubclass(error, CallError)


async def _ended(call: Any) -> None:
    try:
        await call
    except CallError:
        return


def test_steps_of_the_wall_clock_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forward, an hour back, in the middle of a call: clocks count on the loop's own (F12)."""
    real, steps = time.time, iter([0, 3600, -3600, 0] * 1000)
    monkeypatch.setattr(time, "time", lambda: real() + next(steps))
    for fault in ("F05-long-and-healthy", "F02-mid-stream"):
        source = faults.BY_ID[fault].source()

        async def main(source: Any = source) -> tuple[str, float]:
            began = anyio.current_time()
            try:
                await api.run(source, policy=Policy(timeouts=Timeouts(total=2000)))
            except CallError as error:
                return error.reason, anyio.current_time() - began
            return "whole", anyio.current_time() - began

        wanted = ("whole", pytest.approx(1200, abs=1)) if fault.startswith("F05") else ("timeout.progress", 60.0)
        assert run_virtual(main) == wanted


def test_a_blocked_loop_kills_no_healthy_stream() -> None:
    """While somebody blocks the loop for longer than a clock allows, the provider goes on sending: what has arrived is
    read before anything is called silent, and the lag is told (F74)."""
    pieces = Say().pieces(faults.GOOD, chunk=2)
    items = [*Say().opened(), pace(40), *pieces, pace(None), *Say().closed()]

    async def main(url: str) -> Any:
        async with plain_client(url) as client:
            from streamguard.adapters.anthropic.source import messages

            policy = Policy(timeouts=Timeouts(progress=0.25, first_token=5, total=20))
            source = messages(client, **faults.request())
            async with api.stream(source, policy=policy, deliver="live") as events:
                seen = 0
                async for _ in events:
                    seen += 1
                    if seen in (6, 12):
                        asyncio.get_running_loop().call_soon(time.sleep, 0.4)
            return events.outcome

    with ScriptedServer(items).in_thread() as server:
        outcome = anyio.run(main, server.url)
    assert outcome.completed == "whole"


def test_a_deadline_is_an_error_of_its_own() -> None:
    """The call's deadline is told apart from an attempt's clocks, with its knob."""

    async def main() -> BaseException:
        with pytest.raises(DeadlineExceeded) as caught:
            await api.run(faults.BY_ID["F03-pings-only"].source(), policy=Policy(timeouts=Timeouts(total=3)))
        return caught.value

    error = run_virtual(main, within=FAR)
    assert (error.knob, error.record.seconds) == ("timeouts.total", 3.0)  # type: ignore[attr-defined]
