"""A guarded call as the stream that the SDK's caller asked for: its events, or its bytes.

In charge of: handing on what the engine released, as the SDK's own event objects or byte for byte, of closing, and of
telling the SDK's span how the reading ended. It decides nothing: what is released, and when, is `deliver`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, Self, TypeVar

import anthropic
import httpx2

from streamguard.adapters.anthropic.events import Kept
from streamguard.adapters.anthropic.middleware.events import SdkEvents
from streamguard.adapters.anthropic.middleware.source import ChainSource
from streamguard.adapters.sse.frame_names import named
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.engine.call import Call
from streamguard.errors import CallError, ConfigError
from streamguard.events import Event, Ping
from streamguard.outcome import CallRecord

T = TypeVar("T")

EXTENSION: Final = "streamguard"
"""Where a response made here has its `Reading`."""


class Release:
    """What a stream kept, in order, as soon as the engine has released what was made of it.

    As in `FrameLog`, but of decoded events: one that nothing was made of goes out with what stands before it, and one
    that waits (a tool's input, for the end of its block) holds back those after it.
    """

    __slots__ = ("_at", "_kept", "_passed")

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._at = 0
        # By identity, and kept, so that no other event gets the same.
        self._passed: dict[int, Event] = {}

    def of(self, events: Iterable[Event], kept: list[Kept]) -> list[Kept]:
        """What may go out now that the engine handed out `events`.

        :param kept: of the attempt that they are from; another list begins anew.
        """
        if kept is not self._kept:
            self._kept, self._at = kept, 0
            self._passed.clear()
        at, passed = self._at, self._passed
        out: list[Kept] = []
        end = len(kept)
        for event in events:
            if at < end and kept[at] is event:
                out.append(event)
                at += 1
            elif type(event) is not Ping:
                passed[id(event)] = event
            while at < end:
                item = kept[at]
                made = item[1] if type(item) is tuple else item
                if made is not None and passed.pop(id(made), None) is None:
                    break
                out.append(item)
                at += 1
        self._at = at
        return out


class Reading:
    """One guarded call, read by the SDK's caller. Used by one task at a time.

    :param noted: told that the call is over, before anybody else hears of it.
    :param raised: what to raise for its error.
    :param dropped: told when nobody has the stream any more, closed or not.
    """

    def __init__(
        self,
        call: Call,
        source: ChainSource,
        *,
        beta: bool,
        log: FrameLog | None,
        noted: Callable[[CallRecord, str | None], None],
        raised: Callable[[CallError], BaseException],
        dropped: Callable[[Call], None],
    ) -> None:
        self.call = call
        self.beta = beta
        self.log = log
        self._dropped = dropped
        self._source = source
        self._noted: Callable[[CallRecord, str | None], None] | None = noted
        self._raised = raised
        self._release = Release()
        self._first: list[Event] | None = None
        self._state = "open"

    async def start(self) -> None:
        """Wait for the first events that may go out, keep-alives aside: until then every failure is silently retried,
        or raised here."""
        first: list[Event] = []
        while (events := await self._next()) is not None:
            first += events
            if any(type(event) is not Ping for event in events):
                break
        self._first = first

    async def batch(self) -> list[Event] | None:
        """The next events; `None` at the end.

        :raises CallError: the call ended otherwise.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    async def _next(self) -> list[Event] | None:
        if self._state != "open":
            # A new read of a call that was left would ask the provider again.
            raise RuntimeError(f"this stream cannot be read: {self._state}")
        self._state = "a read of it was cancelled, which ended the call"
        try:
            events = await self.call.next()
        except CallError as error:
            self._state = "open"  # it says so again when it is asked again
            self._note(error.record, error.reason)
            raise self._raised(error) from None
        self._state = "open"
        if events is None:
            self._note(self.call.record, None)
        return events

    def _note(self, record: CallRecord, reason: str | None) -> None:
        noted, self._noted = self._noted, None
        if noted is not None:
            noted(record, reason)

    @property
    def response(self) -> Any:
        """The last attempt's response, as the rest of the chain gave it."""
        return self._source.response

    def released(self, events: list[Event]) -> list[Kept]:
        """What came on the wire for some events, in its order."""
        stream = self._source.stream
        return [] if stream is None else self._release.of(events, stream.kept)

    async def close(self) -> None:
        """Leave the call, finished or not."""
        self._state = "it was closed"
        self._first = None
        await self.call.close()

    def __del__(self) -> None:
        # Whoever drops a stream of the SDK without closing it has its connection closed by the event loop all the same.
        self._dropped(self.call)


def log_of(reading: Reading) -> FrameLog:
    """Return the frames of a call whose bytes are read.

    :raises ConfigError: nobody keeps them.
    """
    if reading.log is None:
        raise ConfigError(
            "the events of this stream are handed on as objects, and its bytes are gone: "
            "use with_streaming_response or with_raw_response to read bytes"
        )
    return reading.log


class GuardedBody(httpx2.AsyncByteStream):
    """The bytes of a guarded call, for callers who read the response themselves."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def __aiter__(self) -> AsyncIterator[bytes]:
        log = log_of(self._reading)
        while (events := await self._reading.batch()) is not None:
            if frames := log.release(events):
                yield b"".join(map(named, frames))
        if frames := log.rest():
            yield b"".join(map(named, frames))

    async def aclose(self) -> None:
        await self._reading.close()


class Objects:
    """The SDK's event objects of one stream, made ready batch by batch; the SDK's span hears of each.

    :param given: the arguments of the SDK's stream.
    """

    def __init__(self, reading: Reading, given: dict[str, Any]) -> None:
        client, cast_to, response = given.get("client"), given.get("cast_to"), given["response"]
        process = getattr(client, "_process_response_data", None)
        parse = None
        if process is not None:

            def parse(data: dict[str, Any]) -> Any:
                return process(data=data, cast_to=cast_to, response=response)

        self._reading = reading
        self._response = response
        self._events = SdkEvents(beta=reading.beta, parse=parse)
        self._ready: list[Any] = []
        self._place = 0
        self._begun = self._over = False

    @property
    def empty(self) -> bool:
        """Whether the next one has to be read."""
        return self._place >= len(self._ready)

    def next(self) -> Any:
        """The next one."""
        item = self._ready[self._place]
        self._place += 1
        return item

    def begin(self) -> None:
        """Somebody asks for the next batch."""
        if not self._begun:
            self._begun = True
            if (observer := self._observer) is not None:
                observer.begin()
        self._ready, self._place = [], 0

    def add(self, batch: list[Event]) -> bool:
        """Make ready what the engine released with a batch. Whether that is anything."""
        self._ready = self._events.of(self._reading.released(batch))
        if (observer := self._observer) is not None:
            for item in self._ready:
                observer.item(item)
        return bool(self._ready)

    def end(self, how: str, error: Exception | None = None) -> None:
        """There is no more: it was read to the end, closed or failed."""
        if how == "closed":
            self._ready, self._place = [], 0
        if (observer := self._observer) is not None:
            observer.end(how, *(() if error is None else (error,)))

    @property
    def _observer(self) -> Any:
        return getattr(getattr(self._response, "stream", None), "stream_observer", None)


class GuardedEvents(anthropic.AsyncStream[T]):
    """The events of a guarded call, in the SDK's own classes; everything else is as the SDK's stream has it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._reading: Reading = given["response"].extensions[EXTENSION]
        self._objects = Objects(self._reading, given)

    async def __anext__(self) -> T:
        objects = self._objects
        if objects.empty:
            await self._fill()
        item: T = objects.next()
        return item

    def __aiter__(self) -> Self:  # no generator, of which breaking off would leave a half
        return self

    async def _fill(self) -> None:
        """Make more events ready.

        :raises StopAsyncIteration: there are none.
        """
        objects = self._objects
        objects.begin()
        try:
            while (batch := await self._reading.batch()) is not None:
                if objects.add(batch):
                    return
        except Exception as error:
            objects.end("failed", error)
            raise
        objects.end("read")
        await self.response.aclose()  # as the SDK's own stream does at its end
        raise StopAsyncIteration

    async def close(self) -> None:
        """Close the connection, if it is still open."""
        self._objects.end("closed")
        await self.response.aclose()
        await self._reading.close()
