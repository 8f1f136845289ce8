"""Rows of a job that share a prefix: one writes it into the provider's cache, the others read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from streamguard import Policy, Runtime, Timeouts
from streamguard.budgets.spec import BudgetSpec
from streamguard.engine.call import Call
from streamguard.errors import CallError
from streamguard.events import Failed
from streamguard.outcome import Outcome
from streamguard.source import Attempt, EventStream, SourceFailed
from streamguard.testing import answer, script
from streamguard.testing.clock import BACKENDS, run_virtual

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)
POLICY = Policy(pace=None, breaker=None, timeouts=Timeouts(total=100))
FIRST = 1.5
"""Seconds until an answer begins."""


class Cache:
    """A provider's cache: a prefix is in it from the first answer with it on."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.fails: list[str] = []
        """Prefixes whose next requests fail."""

    def source(self, prefix: str, row: str) -> _Source:
        """One row's source."""
        return _Source(self, prefix, row)


class _Source:
    sees_bytes = True

    def __init__(self, cache: Cache, prefix: str, row: str) -> None:
        self.cache, self.prefix = cache, prefix
        body = {
            "model": "m",
            "max_tokens": 64,
            "system": [{"type": "text", "text": prefix, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": row}],
        }
        self._inner = script(answer("Thirty."), request=body)
        self.request = self._inner.request

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[EventStream]:
        """Read the prefix, or write it."""
        cache, prefix = self.cache, self.prefix
        (cache.reads if prefix in cache.has else cache.writes).append(prefix)
        await anyio.sleep(FIRST)
        if prefix in cache.fails:
            cache.fails.remove(prefix)
            raise SourceFailed(Failed(reason="provider.api_error", message="no", status=500, billable=False))
        cache.has.add(prefix)
        async with self._inner.open(attempt) as stream:
            yield stream


async def row(cache: Cache, runtime: Runtime, prefix: str, name: str, policy: Policy = POLICY) -> Any:
    """One row of a job."""
    try:
        return await Call(cache.source(prefix, name), policy, runtime, patient=True).run()
    except CallError as failure:
        return failure


@ON_BOTH
def test_as_many_writes_as_prefixes(backend: Any) -> None:
    """A hundred rows of five prefixes at once: five write, 95 read, and they wait one first token."""

    async def main() -> tuple[Cache, float, list[Any]]:
        cache, runtime, came = Cache(), Runtime(), []
        began = anyio.current_time()

        async def one(i: int) -> None:
            came.append(await row(cache, runtime, f"prefix {i % 5}", str(i)))

        async with anyio.create_task_group() as group:
            for i in range(100):
                group.start_soon(one, i)
        return cache, anyio.current_time() - began, came

    cache, seconds, came = run_virtual(main, backend=backend)
    assert sorted(cache.writes) == [f"prefix {i}" for i in range(5)]
    assert (len(cache.reads), all(isinstance(one, Outcome) for one in came)) == (95, True)
    assert seconds == pytest.approx(2 * FIRST, abs=0.2)
    assert sorted({round(one.attempts[0].waited.warm_up, 1) for one in came}) == [0.0, FIRST]


@ON_BOTH
def test_a_failed_row_lets_the_next_one_lead(backend: Any) -> None:
    """Two rows in a row fail before their answers begin; the third writes, the others read."""

    async def main() -> Cache:
        cache, runtime = Cache(), Runtime()
        cache.fails = ["p", "p"]
        async with anyio.create_task_group() as group:
            for i in range(10):
                group.start_soon(row, cache, runtime, "p", str(i))
        return cache

    cache = run_virtual(main, backend=backend)
    assert (len(cache.writes), len(cache.reads)) == (3, 7)


@ON_BOTH
def test_a_cancelled_row_releases_the_others(backend: Any) -> None:
    """The row that leads is cancelled, then one that waits, then one is denied: the rest go on."""
    denied = POLICY.replace(budgets=[BudgetSpec(name="none", tokens=1)])

    async def main() -> Cache:
        cache, runtime = Cache(), Runtime()

        async def cut(seconds: float) -> None:
            with anyio.move_on_after(seconds):
                await row(cache, runtime, "p", "cut")

        async with anyio.create_task_group() as group:
            group.start_soon(cut, 0.5)
            await anyio.sleep(0.01)
            group.start_soon(cut, 0.25)
            group.start_soon(row, cache, runtime, "p", "denied", denied)
            await anyio.sleep(0.01)
            for i in range(5):
                group.start_soon(row, cache, runtime, "p", str(i))
        return cache

    cache = run_virtual(main, backend=backend)
    assert (len(cache.writes), len(cache.reads)) == (2, 4)


def test_an_interrupted_wait_ends_at_once() -> None:
    """A row that waits for another row's answer ends by an interrupt, unsent."""

    async def main() -> tuple[float, str]:
        cache, runtime = Cache(), Runtime()
        async with anyio.create_task_group() as group:
            group.start_soon(row, cache, runtime, "p", "leads")
            await anyio.sleep(0.1)
            call = Call(cache.source("p", "waits"), POLICY, runtime, patient=True)

            async def interrupt() -> None:
                await anyio.sleep(0.2)
                call.interrupt("somebody")

            group.start_soon(interrupt)
            began = anyio.current_time()
            with pytest.raises(CallError) as raised:
                await call.run()
            return anyio.current_time() - began, raised.value.reason

    assert run_virtual(main) == (pytest.approx(0.2), "operator.interrupt")


def test_the_wait_is_none_of_a_rows_time() -> None:
    """A row whose `timeouts.total` is shorter than the wait is answered all the same."""

    async def main() -> Any:
        cache, runtime = Cache(), Runtime()
        short = POLICY.replace(timeouts=Timeouts(total=1.6))
        async with anyio.create_task_group() as group:
            group.start_soon(row, cache, runtime, "p", "leads")
            await anyio.sleep(0.01)
            return await row(cache, runtime, "p", "waits", short)

    assert isinstance(run_virtual(main), Outcome)


@pytest.mark.parametrize("why", ["off", "no row"])
def test_calls_that_are_no_rows_wait_for_nobody(why: str) -> None:
    """`warm_up: false`, and calls that somebody waits for, are sent at once."""

    async def main() -> Cache:
        cache, runtime = Cache(), Runtime()

        async def one() -> None:
            policy = POLICY.replace(warm_up=why != "off")
            await Call(cache.source("p", "x"), policy, runtime, patient=why == "off").run()

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
        return cache

    assert len(run_virtual(main).writes) == 5
