"""Reading ahead: every item once and in order, whenever they come; ends, errors, bounds, and a task that never stays."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamguard.adapters.sse import read_ahead
from streamguard.adapters.sse.read_ahead import IN_A_ROW, MAX_WAITING, ReadAhead

MANY = 80 * IN_A_ROW


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time for what comes at once; what is paced here comes later still."""
    monkeypatch.setattr(read_ahead, "AT_ONCE", 1.5e-3)


async def numbers(
    count: int, pause: Callable[[int], bool] = lambda n: False, error: Exception | None = None
) -> AsyncIterator[int]:
    for n in range(count):
        if pause(n):
            await anyio.sleep(0.002)
        yield n
    if error is not None:
        raise error


async def everything(
    source: AsyncIterator[int], between: int = 0, weigh: Callable[[int], int] = lambda n: 1
) -> list[list[int]]:
    """All lists, with some turns of the loop between the reads."""
    ahead = ReadAhead(source, weigh)
    lists = []
    try:
        while True:
            lists.append(await ahead.next())
            for _ in range(between):
                await anyio.lowlevel.checkpoint()
    except StopAsyncIteration:
        return lists
    finally:
        await ahead.aclose()


def flat(lists: list[list[int]]) -> list[int]:
    return [item for items in lists for item in items]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("between", [0, 1, 5])
@pytest.mark.parametrize(
    "pause", [lambda n: False, lambda n: n % 100 == 0, lambda n: n > MANY - 3], ids=["burst", "hiccups", "tail"]
)
def test_every_item_comes_once_and_in_order(pause: Any, between: int, backend: str) -> None:
    """Whatever the pace of either side."""
    lists = anyio.run(lambda: everything(numbers(MANY, pause), between), backend=backend)
    assert flat(lists) == list(range(MANY))
    assert all(lists)


def test_a_burst_comes_in_lists_and_a_paced_stream_one_by_one() -> None:
    """A task is worth it only where items wait to be taken."""
    burst = anyio.run(lambda: everything(numbers(MANY)))
    assert len(burst) < IN_A_ROW + MANY // 100
    paced = anyio.run(lambda: everything(numbers(3 * IN_A_ROW, lambda n: n % (IN_A_ROW // 2) == 0)))
    assert len(paced) == 3 * IN_A_ROW


@pytest.mark.parametrize("count", [3, MANY])
def test_an_error_comes_after_the_items_before_it(count: int) -> None:
    """And comes again when asked again, if it came from the task."""

    async def main() -> None:
        ahead = ReadAhead(numbers(count, error=LookupError("broken")), lambda n: 1)
        seen: list[int] = []
        with pytest.raises(LookupError, match="broken"):
            while True:
                seen += await ahead.next()
        assert seen == list(range(count))
        with pytest.raises((LookupError, StopAsyncIteration)):
            await ahead.next()
        await ahead.aclose()

    anyio.run(main)


def test_what_is_held_ahead_is_bounded() -> None:
    """A reader that takes its time holds the source back."""
    given = 0

    async def source() -> AsyncIterator[int]:
        nonlocal given
        for n in range(MANY):
            given = n
            yield n

    async def main() -> None:
        ahead = ReadAhead(source(), lambda n: MAX_WAITING // 10)
        taken = 0
        for _ in range(100):
            taken += len(await ahead.next())
            await anyio.lowlevel.checkpoint()
            assert given - taken <= 11
        await ahead.aclose()

    anyio.run(main)


def test_a_read_that_is_cancelled_loses_nothing_that_came() -> None:
    """Waiting for the task is no read of the source: it can be given up and taken up again."""

    async def main() -> None:
        gate = anyio.Event()

        async def source() -> AsyncIterator[int]:
            for n in range(2 * IN_A_ROW):
                yield n
            await gate.wait()
            yield -1

        ahead = ReadAhead(source(), lambda n: 1)
        seen: list[int] = []
        while len(seen) < 2 * IN_A_ROW:
            seen += await ahead.next()
        with anyio.move_on_after(0.01) as scope:
            await ahead.next()
        assert scope.cancelled_caught
        gate.set()
        assert await ahead.next() == [-1]
        await ahead.aclose()

    anyio.run(main)


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "dropped"])
def test_the_task_ends_with_its_reader(closing: bool) -> None:
    """Closed or just dropped, nothing is left of it, and the source has been left."""
    left = []

    async def source() -> AsyncIterator[int]:
        try:
            for n in range(2 * IN_A_ROW):
                yield n
            await asyncio.sleep(1000)
        finally:
            left.append("left")

    async def main() -> None:
        before = asyncio.all_tasks()
        ahead = ReadAhead(source(), lambda n: 1)
        seen = 0
        while seen < 2 * IN_A_ROW:
            seen += len(await ahead.next())
        assert len(asyncio.all_tasks() - before) == 1
        if closing:
            assert await ahead.aclose()
        del ahead
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert left == ["left"]

    anyio.run(main)


def test_a_short_stream_starts_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small answers are over before it would pay."""
    monkeypatch.setattr(read_ahead, "_begun", lambda *args: pytest.fail("a task was started"))
    assert flat(anyio.run(lambda: everything(numbers(IN_A_ROW - 1)))) == list(range(IN_A_ROW - 1))
