"""The same doors for threads: `streamguard.sync.run` and `streamguard.sync.stream`.

There is no second engine: an event loop runs in a thread of its own around each call (one blocking portal), and events
come over in batches, one hop per socket read. Connections belong to that loop, so a source is asked for a copy of its
own (`isolated()`, where it has one) and its pool is closed with the call. Many calls at once are cheaper on the async
doors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from streamguard import api
from streamguard.engine.portal import Backend, isolated, run_in_thread
from streamguard.engine.runtime import Runtime
from streamguard.events import Event
from streamguard.outcome import CallRecord, Outcome
from streamguard.policy.model import Deliver, Policy
from streamguard.source import Source


def run(
    source: Source,
    *,
    policy: Policy,
    runtime: Runtime | None = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Outcome:
    """`streamguard.run` for a thread: blocks until the call is over. Parameters and errors are the same."""

    async def drive(own: Source) -> Outcome:
        return await api.run(own, policy=policy, runtime=runtime, labels=labels, group=group)

    return run_in_thread(source, drive, backend)


class SyncStream:
    """The events of one call, for a thread; made by `stream()`."""

    def __init__(self, portal: BlockingPortal, events: api.GuardedStream) -> None:
        self._portal = portal
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        while (batch := self._portal.call(self._events.batch)) is not None:
            yield from batch

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once the iteration has ended well."""
        return self._events.outcome

    @property
    def record(self) -> CallRecord:
        """The call so far, whatever became of it."""
        return self._events.record

    def interrupt(self, by: str = "the consumer") -> None:
        """End the call at once, from any thread: `operator.interrupt`, never retried. After its end it does nothing."""
        try:
            self._portal.start_task_soon(self._events.interrupt, by)
        except RuntimeError:
            # The loop has ended, or this is its own thread: a hook's or a guard's.
            self._events.interrupt(by)


@contextmanager
def stream(
    source: Source,
    *,
    policy: Policy,
    deliver: Deliver | None = None,
    runtime: Runtime | None = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Iterator[SyncStream]:
    """`streamguard.stream` for a thread: `with stream(…) as events: for event in events`."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[api.GuardedStream]:
        async with (
            isolated(source) as own,
            api.stream(own, policy=policy, deliver=deliver, runtime=runtime, labels=labels, group=group) as events,
        ):
            yield events

    with start_blocking_portal(backend) as portal, portal.wrap_async_context_manager(opened()) as events:
        yield SyncStream(portal, events)
