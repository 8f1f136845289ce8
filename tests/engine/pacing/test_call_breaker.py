"""Calls and an endpoint that is down: they wait, one looks, and a rule's other endpoint is asked at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import Policy, Retry, Rule, Runtime, Timeouts
from streamguard.engine.call import Call
from streamguard.engine.telemetry import BreakerClosed, BreakerOpened, BreakerProbed
from streamguard.errors import CallError
from streamguard.events import Failed
from streamguard.outcome import Outcome
from streamguard.source import Attempt, EventStream, Source, SourceFailed
from streamguard.testing import ScriptedSource, answer, script
from streamguard.testing.clock import BACKENDS, run_virtual

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)
DEAD = Failed(reason="transport.connect", message="no route", sent=False, billable=False)
ONCE = Policy(pace=None, timeouts=Timeouts(total=100))
THERE = "https://other.example"


class Line:
    """The way to a scripted provider, which may be dead."""

    def __init__(self, *, fails: Callable[[Attempt], Failed | None]) -> None:
        self.fails = fails
        self.asked: list[tuple[float, str | None]] = []
        self.began = anyio.current_time()

    def source(self) -> Source:
        """One call's source."""
        return _Source(self, script(answer("Thirty.")))


class _Source:
    sees_bytes = True

    def __init__(self, line: Line, inner: ScriptedSource) -> None:
        self.request = inner.request
        self._line, self._inner = line, inner

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[EventStream]:
        """Ask, if the line is there."""
        line = self._line
        line.asked.append((round(anyio.current_time() - line.began, 3), attempt.base_url))
        if (failed := line.fails(attempt)) is not None:
            await anyio.sleep(1.0)
            raise SourceFailed(failed)
        async with self._inner.open(attempt) as stream:
            yield stream


async def asked(line: Line, runtime: Runtime, policy: Policy = ONCE, **options: Any) -> Outcome | CallError:
    """One call."""
    try:
        return await Call(line.source(), policy, runtime, **options).run()
    except CallError as failure:
        return failure


async def broken(told: list[Any] | None = None, policy: Policy = ONCE) -> tuple[Line, Runtime]:
    """An endpoint that answered once, and that five calls then found dead at 1 s."""
    runtime = Runtime(hooks=[] if told is None else [told.append], jitter=lambda: 0.5)
    line = Line(fails=lambda attempt: None)
    assert isinstance(await asked(line, runtime, policy), Outcome)
    line.fails = lambda attempt: DEAD
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(asked, line, runtime, Policy(pace=None))
    assert runtime.breaker_states()["open"] == 1
    line.asked.clear()
    return line, runtime


@ON_BOTH
def test_calls_wait_and_one_looks(backend: Any) -> None:
    """Twenty calls come while the endpoint is down: one is sent after the pause; its answer lets the others go."""
    told: list[Any] = []

    async def main() -> list[tuple[float, str | None]]:
        line, runtime = await broken(told)
        line.fails = lambda attempt: None
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(asked, line, runtime)
        return line.asked

    sent = [moment for moment, _ in run_virtual(main, backend=backend)]
    assert (len(sent), sent[0]) == (20, 6.0)
    assert sent[1] >= 6.0
    kinds = [type(record) for record in told if isinstance(record, BreakerOpened | BreakerProbed | BreakerClosed)]
    assert kinds == [BreakerOpened, BreakerProbed, BreakerClosed]


def test_the_record_says_how_long_it_waited() -> None:
    """`waited.breaker` has the seconds that an attempt waited for the endpoint."""

    async def main() -> Outcome | CallError:
        line, runtime = await broken()
        line.fails = lambda attempt: None
        return await asked(line, runtime)

    assert run_virtual(main).attempts[0].waited.breaker == pytest.approx(5.0)


def test_a_call_waits_no_longer_than_its_deadline() -> None:
    """A next look after `timeouts.total` ends the call at once, unsent, in the words of the outage."""

    async def main() -> tuple[Outcome | CallError, Any]:
        line, runtime = await broken()
        return await asked(line, runtime, Policy(pace=None, timeouts=Timeouts(total=3))), line.asked

    came, sent = run_virtual(main)
    assert isinstance(came, CallError)
    assert sent == []
    assert (came.reason, came.record.seconds) == ("transport.connect", pytest.approx(0.0))
    assert "is down for 0 s (transport.connect)" in str(came)


def test_a_call_without_a_deadline_does_not_wait_for_ever() -> None:
    """Without `timeouts.total` a call waits `breaker.most` seconds at the most."""

    async def main() -> tuple[float, int]:
        line, runtime = await broken()
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(asked, line, runtime, Policy(pace=None, timeouts=Timeouts(total=None)))
        return anyio.current_time() - began, len(line.asked)

    seconds, sent = run_virtual(main)
    assert seconds <= 31.0
    assert sent <= 4


@ON_BOTH
def test_a_call_that_is_left_while_it_looks_lets_another_look(backend: Any) -> None:
    """A look that is cancelled, interrupted or denied owes no word: the next call looks at once."""

    async def main() -> list[tuple[float, str | None]]:
        line, runtime = await broken()

        with anyio.move_on_after(5.5):
            await asked(line, runtime)
        line.fails = lambda attempt: None
        await asked(line, runtime)
        return line.asked

    assert [moment for moment, _ in run_virtual(main, backend=backend)] == [6.0, 6.5]


def test_a_paused_look_is_given_back() -> None:
    """Whoever may look and is denied by a budget leaves the look to the next call."""
    budget = streamguard.BudgetSpec(name="none", tokens=1)

    async def main() -> list[tuple[float, str | None]]:
        line, runtime = await broken()
        line.fails = lambda attempt: None
        await anyio.sleep(5.0)
        denied = await asked(line, runtime, ONCE.replace(budgets=[budget]))
        assert isinstance(denied, CallError)
        assert denied.reason == "budget.denied"
        await asked(line, runtime)
        return line.asked

    assert run_virtual(main) == [(6.0, None)]


def test_a_rule_that_goes_elsewhere_is_followed_at_once() -> None:
    """The first attempt goes where the rule names, and the rule is used up by that, as by a retry."""
    rules = [Rule(when="transport.*", base_url=THERE, max_uses=1)]
    policy = ONCE.replace(retry=Retry(attempts=2, rules=rules))

    async def main() -> tuple[Outcome | CallError, Any]:
        line, runtime = await broken()
        line.fails = lambda attempt: None if attempt.base_url else DEAD
        return await asked(line, runtime, policy), line.asked

    came, sent = run_virtual(main)
    assert isinstance(came, Outcome)
    assert sent == [(1.0, THERE)]
    assert came.attempts[0].waited.breaker == 0.0


def test_looks_cost_no_retry_token() -> None:
    """A retry that looks gives its token back; ten looks in vain leave the quota as it was."""
    policy = ONCE.replace(retry=Retry(attempts=2, rules=[Rule(when="transport.*", wait=0.1)]))

    async def main() -> tuple[float, float]:
        line, runtime = await broken()
        quota = runtime.quota(policy.retry.quota)
        before = quota.tokens
        await asked(line, runtime, policy)
        return before, quota.tokens

    before, after = run_virtual(main)
    assert after == before


def test_an_endpoint_that_never_answered_is_not_waited_for() -> None:
    """Ten calls to a wrong address fail one after the other, each by itself."""

    async def main() -> list[tuple[float, str | None]]:
        line, runtime = Line(fails=lambda attempt: DEAD), Runtime()
        for _ in range(10):
            await asked(line, runtime)
        return line.asked

    assert [moment for moment, _ in run_virtual(main)] == [float(i) for i in range(10)]


def test_without_a_breaker_every_call_finds_out_by_itself() -> None:
    """`breaker: null` sends every call."""

    async def main() -> int:
        line, runtime = await broken()
        for _ in range(10):
            await asked(line, runtime, ONCE.replace(breaker=None))
        return len(line.asked)

    assert run_virtual(main) == 10
