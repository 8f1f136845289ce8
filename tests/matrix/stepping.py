"""Cancelling a call at any step of the event loop, one after the other.

A step is one turn of the loop: whatever a call waits for, it waits there. `cancelled_at` runs a call and cancels it
after so many turns, as asyncio itself does; `every_step` goes through all of them until the call is faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

MOST = 20_000
"""Steps after which a call is taken to go on for ever."""


_SERVER = "streamguard.testing.server"
"""The scripted server's tasks are not the call's."""


class Came(NamedTuple):
    """What came of a call that was cancelled after some steps."""

    step: int
    done: bool
    """Whether it was faster."""
    error: BaseException | None
    left: list[str]
    """Tasks that were left."""


async def cancelled_at(step: int, call: Callable[[], Awaitable[Any]], *, again: bool = False) -> Came:
    """Run the call, and cancel it after `step` turns of the loop; with `again` once more at each later turn."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    task: asyncio.Task[Any] = asyncio.ensure_future(call())  # type: ignore[arg-type]
    selector: Any = loop._selector  # type: ignore[attr-defined]
    select, turns = selector.select, 0

    def counted(timeout: float | None = None) -> Any:
        """One turn of the loop ends here; a callback of our own would keep the clock from jumping."""
        nonlocal turns
        turns += 1
        if (turns == step or (again and turns > step)) and not task.done():
            task.cancel()
            timeout = 0
        return select(timeout)

    selector.select = counted
    try:
        await asyncio.wait([task])
    finally:
        del selector.select
    cancelled = task.cancelled()
    error = None if cancelled else task.exception()
    left = [repr(one) for one in asyncio.all_tasks() - before if not one.done() and _SERVER not in repr(one)]
    return Came(step, not cancelled, error, left)


def steps(every: int = 1) -> Iterator[int]:
    """The steps to cancel at."""
    return iter(range(1, MOST, every))
