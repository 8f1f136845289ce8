"""The same doors for threads: `streamguard.sync.run` and `streamguard.sync.stream`.

There is no second engine: an event loop runs in a thread of its own around each call (one blocking portal), and events
come over in batches, one hop per socket read. Connections belong to that loop, so a source is asked for a copy of its
own (`isolated()`, where it has one) and its pool is closed with the call. Many calls at once are cheaper on the async
doors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Generic, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from streamguard import api
from streamguard.api import PolicyLike, T
from streamguard.engine.portal import Backend, isolated, run_in_thread
from streamguard.engine.runtime import Runtime
from streamguard.events import Event
from streamguard.guards.grounding.source import Given
from streamguard.outcome import CallRecord, Outcome
from streamguard.policy.model import Deliver
from streamguard.source import Source, SourceOf


@overload
def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: type[T],
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Outcome[T]: ...


@overload
def run(
    source: SourceOf[T],
    *,
    policy: PolicyLike,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Outcome[T]: ...


@overload
def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Outcome[Any]: ...


def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> Outcome[Any]:
    """`streamguard.run` for a thread: blocks until the call is over. Parameters and errors are the same.

    ```python
    outcome = streamguard.sync.run(source, policy="streamguard:extraction", output=Invoice)
    ```

    :param source: what is asked, from `messages(client, …)`.
    :param policy: a `Policy`, or the name of one.
    :param output: the type of the answer's document.
    :param runtime: what calls share; a fresh one by default.
    :param source_text: what the values of `json.grounded` are held against.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together.
    :param backend: `asyncio` or `trio`.
    :returns: the accepted answer, as `run` has it.
    """
    chosen = api.policy_for(policy, output, api.as_source(source))

    async def drive(own: Source) -> Outcome[Any]:
        return await api.run(own, policy=chosen, runtime=runtime, source_text=source_text, labels=labels, group=group)

    return run_in_thread(source, drive, backend)


class SyncStream(Generic[T]):
    """The events of one call, for a thread; made by `stream()`."""

    def __init__(self, portal: BlockingPortal, events: api.GuardedStream[T]) -> None:
        self._portal = portal
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        while (batch := self._portal.call(self._events.batch)) is not None:
            yield from batch

    @property
    def outcome(self) -> Outcome[T] | None:
        """The outcome, once the iteration has ended well."""
        return self._events.outcome

    def result(self) -> Outcome[T]:
        """Return the outcome of a call that has ended well.

        :raises RuntimeError: it has not ended yet, or was left.
        :raises CallError: it ended otherwise.
        """
        return self._events.result()

    @property
    def record(self) -> CallRecord:
        """The call so far, whatever became of it."""
        return self._events.record

    def interrupt(self, by: str = "the consumer") -> None:
        """End the call at once, from any thread: `operator.interrupt`, never retried. After its end it does nothing.

        :param by: who or what interrupts; goes into the error.
        """
        try:
            self._portal.start_task_soon(self._events.interrupt, by)
        except RuntimeError:
            # The loop has ended, or this is its own thread: a hook's or a guard's.
            self._events.interrupt(by)


@overload
def stream(
    source: Source,
    *,
    policy: PolicyLike,
    output: type[T],
    deliver: Deliver | None = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> AbstractContextManager[SyncStream[T]]: ...


@overload
def stream(
    source: SourceOf[T],
    *,
    policy: PolicyLike,
    deliver: Deliver | None = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> AbstractContextManager[SyncStream[T]]: ...


@overload
def stream(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    deliver: Deliver | None = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> AbstractContextManager[SyncStream[Any]]: ...


def stream(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    deliver: Deliver | None = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
    backend: Backend = "asyncio",
) -> AbstractContextManager[SyncStream[Any]]:
    """`streamguard.stream` for a thread: `with stream(…) as events: for event in events`.

    :param source: what is asked, from `messages(client, …)`.
    :param policy: a `Policy`, or the name of one.
    :param output: the type of the answer's document.
    :param deliver: what comes when, instead of the policy's.
    :param runtime: what calls share; a fresh one by default.
    :param source_text: what the values of `json.grounded` are held against.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together.
    :param backend: `asyncio` or `trio`.
    :returns: the events, to be entered with `with`.
    """
    chosen = api.policy_for(policy, output, api.as_source(source))

    @asynccontextmanager
    async def opened() -> AsyncIterator[api.GuardedStream[Any]]:
        async with (
            isolated(source) as own,
            api.stream(
                own,
                policy=chosen,
                deliver=deliver,
                runtime=runtime,
                source_text=source_text,
                labels=labels,
                group=group,
            ) as events,
        ):
            yield events

    return _in_a_portal(opened, backend)


@contextmanager
def _in_a_portal(
    opened: Callable[[], AbstractAsyncContextManager[api.GuardedStream[Any]]], backend: Backend
) -> Iterator[SyncStream[Any]]:
    with start_blocking_portal(backend) as portal, portal.wrap_async_context_manager(opened()) as events:
        yield SyncStream(portal, events)


@overload
def guarded(
    sdk_stream: Any,
    *,
    policy: PolicyLike,
    output: type[T],
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> AbstractContextManager[SyncStream[T]]: ...


@overload
def guarded(
    sdk_stream: Any,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> AbstractContextManager[SyncStream[Any]]: ...


def guarded(
    sdk_stream: Any,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> AbstractContextManager[SyncStream[Any]]:
    """`streamguard.guarded` for a thread: `with guarded(stream, policy=…) as events: for event in events`.

    :param sdk_stream: what `client.messages.create(…, stream=True)` or `with client.messages.stream(…)` gave. It is
        closed when the context is left.
    :param policy: a `Policy`, or the name of one.
    :param output: the type of the answer's document.
    :param runtime: what calls share; a fresh one by default.
    :param source_text: what the values of `json.grounded` are held against.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together.
    :returns: the events, to be entered with `with`.
    :raises ConfigError: it is no open, synchronous stream of the SDK.
    """
    from streamguard.adapters.anthropic.blocking_stream import BlockingStream

    chosen = api.policy_for(policy, output)
    stream = BlockingStream(sdk_stream)

    @asynccontextmanager
    async def opened() -> AsyncIterator[api.GuardedStream[Any]]:
        async with api.guarded(
            stream, policy=chosen, runtime=runtime, source_text=source_text, labels=labels, group=group
        ) as events:
            yield events

    return _in_a_portal(opened, "asyncio")
