"""The library's doors: `run`, `stream` and `guarded`. Thin: all they do is drive a `Call`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Literal, Self, overload

import anyio
from typing_extensions import TypeVar

from streamguard.engine.call import Call
from streamguard.engine.runtime import Runtime
from streamguard.errors import ConfigError, PolicyError, StreamguardError
from streamguard.events import Event
from streamguard.guards.grounding.source import Given
from streamguard.outcome import CallRecord, Outcome
from streamguard.policy.given import as_policy
from streamguard.policy.model import Deliver, Policy
from streamguard.retry.rules import Retry, Rule
from streamguard.source import CLOSE_LIMIT, Source, SourceOf

T = TypeVar("T", default=Any)
PolicyLike = Policy | str | PathLike[str]
"""A policy, or the name of one: `streamguard:NAME`, or the path of a policy file."""


@overload
async def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: type[T],
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> Outcome[T]: ...


@overload
async def run(
    source: SourceOf[T],
    *,
    policy: PolicyLike,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> Outcome[T]: ...


@overload
async def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> Outcome[Any]: ...


async def run(
    source: Source,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> Outcome[Any]:
    """Send the source's request and return the first answer that passes every guard. Retries as `policy.retry` says.

    ```python
    outcome = await streamguard.run(source, policy="streamguard:extraction", output=Invoice)
    outcome.value.total
    ```

    :param source: what is asked, from `messages(client, …)`; a source of your own; `testing.script(…)`.
    :param policy: a `Policy`, or the name of one: `streamguard:NAME`, or the path of a policy file.
    :param output: the type of the answer's document: a Pydantic model class, or anything that `pydantic.TypeAdapter`
        takes. `outcome.value` is then an instance of it. Left out: plain JSON data, as the policy says.
    :param source_text: what the values of `json.grounded` are held against: a text, or a mapping whose members
        `in: row.FIELD` names. Left out: the text of the request's user messages.
    :param runtime: what calls share; a fresh one by default.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together, such as the steps of one agent run.
    :returns: the accepted answer: its `value`, text, usage, cost and every attempt.
    :raises PolicyError: the policy does not fit the source. Nothing was sent.
    :raises CallError: the call ended otherwise; its `record` has every attempt.
    """
    chosen = policy_for(policy, output, as_source(source))
    call = Call(source, chosen, runtime, keep=False, labels=labels, group=group, source_text=source_text)
    return await call.run()


def as_source(source: Source) -> Source:
    """Return the source, if it is one.

    :raises ConfigError: it is something else, such as a client or a stream that is open already.
    """
    if callable(getattr(source, "open", None)) and hasattr(source, "sees_bytes"):
        return source
    raise ConfigError(
        "the first argument must be a source, such as streamguard.messages(client, model=…), "
        f"not {type(source).__name__}; guarded() takes a stream that is open already"
    )


def policy_for(policy: PolicyLike, output: Any = None, source: Source | None = None) -> Policy:
    """Return the policy of a call. Without `output` the source may know the type of its answers.

    :raises PolicyError: there is no such policy, or it says otherwise than `output` what the document is.
    """
    chosen = as_policy(policy)
    output = getattr(source, "output", None) if output is None else output
    return chosen if output is None else chosen.with_output(output)


LEAVE_LIMIT = 2 * CLOSE_LIMIT
"""Seconds that leaving a stream waits for another task's read to end."""

_UNUSABLE = {
    "new": "enter it first: `async with streamguard.stream(…) as events`",
    "reading": "another task is reading it: one call has one reader",
    "cut": "a read of it was cancelled, which ended the call: to go on would be a new request",
    "left": "it was left, which ended the call",
}
"""Why a guarded stream cannot be read, by its state; `open` is the one in which it can."""


class GuardedStream(Generic[T]):
    """The events of one call; made by `stream()`. Enter it with `async with` and iterate, in one task.

    What comes when is the policy's `deliver`. The iteration ends when the answer stands (`outcome`), or raises a
    `CallError`. Leaving the context early closes the connection and ends the call without an outcome, and so does a
    read that is cancelled: reading on after either is a `RuntimeError`, never a silent end or a new request.

    ```python
    async with streamguard.stream(source, policy=policy, deliver="restarting") as events:
        async for event in events:
            print(event)
    outcome = events.result()
    ```
    """

    def __init__(self, call: Call, *, close: Callable[[], Awaitable[None]] | None = None) -> None:
        self._call = call
        self._close = close
        """Closes what the caller opened before the call, which may never have been read."""
        self._batch: list[Event] = []
        self._next = 0
        self._state: Literal["new", "open", "reading", "cut", "left"] = "new"
        self._idle: anyio.Event | None = None
        """Set by a reader when it is done, for another task that wants to leave."""

    async def __aenter__(self) -> Self:
        if self._state == "new":
            self._state = "open"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._state == "reading":
            # Another task is in the middle of a read, which only itself can end and clean up after.
            self._call.interrupt("the task that left the stream")
            self._idle = anyio.Event()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + LEAVE_LIMIT):
                await self._idle.wait()
        self._state = "left"
        self._batch, self._next = [], 0
        try:
            await self._call.close()
        finally:
            if self._close is not None:
                await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while self._next >= len(self._batch):
            batch = await self._read()
            if batch is None:
                raise StopAsyncIteration
            self._batch, self._next = batch, 0
        event = self._batch[self._next]
        self._next += 1
        return event

    async def batch(self) -> list[Event] | None:
        """Return all events that are ready, at least one; `None` at the end. Cheaper than one event at a time."""
        if self._next < len(self._batch):
            rest, self._batch, self._next = self._batch[self._next :], [], 0
            return rest
        return await self._read()

    async def _read(self) -> list[Event] | None:
        if self._state != "open":
            raise RuntimeError(f"this stream cannot be read: {_UNUSABLE[self._state]}")
        self._state = "reading"
        after: Literal["open", "cut"] = "cut"
        try:
            batch = await self._call.next()
            after = "open"
        except StreamguardError:
            after = "open"  # the call is over, and says so again when it is asked again
            raise
        finally:
            if self._state == "reading":
                self._state = after
            if self._idle is not None:
                self._idle.set()
        return batch

    @property
    def outcome(self) -> Outcome[T] | None:
        """The outcome, once the iteration has ended well."""
        return self._call.outcome

    def result(self) -> Outcome[T]:
        """Return the outcome of a call that has ended well.

        :raises RuntimeError: it has not ended yet, or was left.
        :raises CallError: it ended otherwise.
        """
        if self._call.outcome is not None:
            return self._call.outcome
        if self._call.failure is not None:
            raise self._call.failure
        if self._state in ("cut", "left"):
            raise RuntimeError(f"there is no outcome: {_UNUSABLE[self._state]}")
        raise RuntimeError("there is no outcome yet: read the events to their end first")

    @property
    def record(self) -> CallRecord:
        """The call so far, whatever became of it."""
        return self._call.record

    def interrupt(self, by: str = "the consumer") -> None:
        """End the call at once, from any task and any thread: `operator.interrupt`, never retried.

        :param by: who or what interrupts; goes into the error.
        """
        self._call.interrupt(by)


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
) -> GuardedStream[T]: ...


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
) -> GuardedStream[T]: ...


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
) -> GuardedStream[Any]: ...


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
) -> GuardedStream[Any]:
    """Open a call for a consumer of events: `async with stream(…) as events: async for event in events`.

    Call it inside the event loop. The clock of `timeouts.total` starts now.

    ```python
    async with streamguard.stream(source, policy="streamguard:interactive_chat") as events:
        async for event in events: ...
    ```

    :param source: what is asked, as in `run`.
    :param policy: a `Policy`, or the name of one.
    :param output: the type of the answer's document, as in `run`.
    :param deliver: instead of the policy's.
    :param source_text: what the values of `json.grounded` are held against, as in `run`.
    :param runtime: what calls share; a fresh one by default.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together.
    :returns: the events, to be entered with `async with`; `events.outcome` after the last one.
    :raises PolicyError: the policy does not fit the source. Nothing was sent.
    """
    chosen = policy_for(policy, output, as_source(source))
    call = Call(source, chosen, runtime, deliver=deliver, labels=labels, group=group, source_text=source_text)
    return GuardedStream(call)


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
) -> GuardedStream[T]: ...


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
) -> GuardedStream[Any]: ...


def guarded(
    sdk_stream: Any,
    *,
    policy: PolicyLike,
    output: Any = None,
    runtime: Runtime | None = None,
    source_text: Given = None,
    labels: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> GuardedStream[Any]:
    """Guard a stream that is already open: one attempt, no retries; a trip raises `GaveUp`.

    Events are delivered at once, unless the policy itself says `deliver: committed`: there is no second attempt that
    they could be mixed with. Of the policy's retry rules only `accept: marked` has an effect here.

    ```python
    raw = await client.messages.create(model="claude-haiku-4-5", max_tokens=1024, messages=chat, stream=True)
    async with streamguard.guarded(raw, policy=policy) as events:
        async for event in events: ...
    ```

    :param sdk_stream: what `await client.messages.create(…, stream=True)` or `async with client.messages.stream(…)`
        gave. It is closed when the context is left.
    :param source_text: what the values of `json.grounded` are held against. Such a policy needs it here: an open stream
        does not show its request.
    :param policy: a `Policy`, or the name of one.
    :param output: the type of the answer's document, as in `run`.
    :param runtime: what calls share; a fresh one by default.
    :param labels: go into every record and log line of the call.
    :param group: calls of one group are shown together.
    :returns: the events, to be entered with `async with`.
    :raises PolicyError: the policy needs what an open stream does not have: more than one attempt's request, or pings.
    :raises ConfigError: it is no open, asynchronous stream of the SDK.
    """
    from streamguard.adapters.anthropic.source import sdk_events

    chosen = policy_for(policy, output)
    chosen = chosen if chosen.retry == Retry() else chosen.replace(retry=_once(chosen.retry))
    deliver: Deliver = chosen.deliver or "live"
    if deliver == "restarting":
        raise PolicyError(
            "deliver: restarting needs a source that can be asked again; use messages(client, …) with stream()"
        )
    opened = sdk_events(sdk_stream)
    call = Call(opened, chosen, runtime, deliver=deliver, labels=labels, group=group, source_text=source_text)
    return GuardedStream(call, close=opened.aclose)


def _once(retry: Retry) -> Retry:
    """The rules of a call that has one attempt: nothing is asked again, and what may be kept is kept."""
    rules = [
        Rule(when=rule.when, give_up=True) if rule.accept is None else Rule(when=rule.when, accept=rule.accept)
        for rule in retry.rules
    ]
    return Retry(rules=rules if any(rule.accept is not None for rule in rules) else ())
