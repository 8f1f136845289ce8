"""Run a call for a thread: an event loop of its own around each call, with connections of its own.

Connections belong to the loop that opened them, so a source is asked for a copy of itself (`isolated()`, where it has
one) whose pool is closed with the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

from anyio.from_thread import start_blocking_portal

from streamguard.outcome import Outcome
from streamguard.source import Source

Backend = Literal["asyncio", "trio"]
"""The event loop that a thread's call runs on."""


def run_in_thread(
    source: Source, drive: Callable[[Source], Awaitable[Outcome]], backend: Backend = "asyncio"
) -> Outcome:
    """Block until `drive` has brought a call to its end.

    :param drive: drives the call; gets the source with connections of its own.
    :returns: the outcome that `drive` returned. Its errors are raised as they are.
    """

    async def call() -> Outcome:
        async with isolated(source) as own:
            return await drive(own)

    with start_blocking_portal(backend) as portal:
        return portal.call(call)


@asynccontextmanager
async def isolated(source: Source) -> AsyncIterator[Source]:
    """Yield the source with connections of its own for the running loop, if the source can give that."""
    own = getattr(source, "isolated", None)
    if own is None:
        yield source
        return
    async with own() as made:
        yield made
