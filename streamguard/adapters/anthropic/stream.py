"""Open streams of the `anthropic` SDK as neutral events: from the body's bytes, or from the SDK's own event objects.

In charge of reading one attempt to its end, of naming what breaks it, and of closing it without leaving anything
behind. It knows neither requests nor policies.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec
from pydantic import ValidationError

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.limits import limits_of
from streamguard.adapters.anthropic.message_builder import Assembly, assembled
from streamguard.adapters.anthropic.opening import Opening
from streamguard.adapters.aws.event_stream import CONTENT_TYPE as AWS_STREAM
from streamguard.adapters.aws.event_stream import EventStreamDecoder, MessageEnds
from streamguard.adapters.sse.content_encoding import Decompressor, UnreadableEncoding, decompressor
from streamguard.adapters.sse.decoder import Decoder, DecodingStopped
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.adapters.sse.read_ahead import ReadAhead
from streamguard.events import DeltaKind, Event, Failed
from streamguard.pace.limits import Limits
from streamguard.source import CLOSE_LIMIT, Attempt

DERIVED: Final = frozenset({"text", "input_json", "thinking", "citation", "signature", "compaction"})
"""Events that `messages.stream()` adds to the ones on the wire, each saying again what a delta has just said."""

PIECES: Final[Mapping[str, tuple[DeltaKind, str]]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_input", "partial_json"),
}
"""Deltas that are output: their kind, and the field with the text."""

SEEN_BYTES: Final = 65_536
"""The most that is kept of a body that is no event stream."""

REQUEST_ID: Final = ("request-id", "x-request-id", "x-amzn-requestid")
"""Response headers that name a request: the provider's, gateways', AWS's."""

_Piece = tuple[int, str, str, str]


STREAMS: Final = frozenset({"", "text/event-stream", AWS_STREAM})
"""Media types of an answer that is read as a stream."""


def media_type(http: Any) -> str:
    """Return the media type of a response, in lower case; empty if it does not say."""
    kind: str = http.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


class BodyStream:
    """An open response of the SDK, read as bytes.

    A read that gives no event gives an empty batch: a ping's bytes are heard. Breaks are named as in `failures`: a
    connection that closes without the body's end is `transport.reset`. A body that ends in good order just ends.
    """

    def __init__(self, response: Any, *, beta: bool, max_event_bytes: int) -> None:
        self._response = response
        self._http = response.http_response
        self._beta = beta
        self.binary = media_type(self._http) == AWS_STREAM
        """Whether the body is an AWS event stream."""
        self._decoder = EventStreamDecoder(max_event_bytes) if self.binary else Decoder(max_event_bytes)
        self._ends = MessageEnds() if self.binary else None
        self._translator = Translator()
        self._assembly = Assembly(self._translator.kept)
        # The SDK's decompression does not tell a body that was cut from one that ended.
        self._inflate, self._unreadable = _decompression(self._http, self.headers)
        self._plain = self._inflate is None and not self._unreadable
        self._body: AsyncIterator[bytes] | None = None
        self._chunks: ReadAhead[bytes] | None = None
        self._over = False
        self._log: FrameLog | None = None
        self._opening: Opening | None = (
            None if self.binary else Opening(media_type(self._http), self.headers, max_event_bytes)
        )
        self._first: bytes | None = None
        """Bytes of the event stream that were read before its first read."""
        self._whole = False
        """Whether the answer came in one piece: what the body has behind it is nothing."""
        self.seen = b""
        """The beginning of a body that is no event stream."""

    def tap(self, log: FrameLog) -> None:
        """From the first read on, keep the raw frames in `log`, each matched with the events made of it."""
        self._log = log

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers; names in any case."""
        headers: Mapping[str, str] = self._http.headers
        return headers

    @property
    def request_id(self) -> str | None:
        """The request's id, as the response's head has it."""
        return next((found for name in REQUEST_ID if (found := self.headers.get(name))), None)

    @property
    def limits(self) -> Limits | None:
        """The rate limits that the response's head states."""
        return limits_of(self.headers)

    async def refusal(self) -> Failed | None:
        """Look at a body that is labelled as something else: `None` if it is an event stream all the same, or a whole
        message; else what it means. To be asked once, before the first read."""
        opening = self._opening
        if opening is None or opening.labelled:
            return None
        inflate, self._plain = self._inflate, False
        # Decompressed here: not every client's own decoder bears every cut, and a cut is to be noticed.
        self._body = (self._http.aiter_bytes() if inflate is None else self._http.aiter_raw()).__aiter__()
        found: bytes | Failed | None = None
        try:
            async for chunk in self._body:
                if inflate is not None:
                    inflate.feed(chunk)
                while found is None:
                    piece = chunk if inflate is None else inflate.more()
                    if piece is None:
                        return self._signed(_undecodable(f"the body's {self._coding} compression is broken"))
                    self.seen = (self.seen + piece)[:SEEN_BYTES]
                    found = opening.feed(piece)
                    if inflate is None or not inflate.has_more:
                        break
                if found is not None:
                    break
        except Exception as error:
            if failures.from_exception(error, in_stream=True) is None:
                raise
        found = opening.end() if found is None else found
        if not isinstance(found, bytes):
            return found
        self._opening, self._first, self._whole = None, found, opening.kind != "stream"
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Event]:
        inflate = self._inflate
        if self._over:
            raise StopAsyncIteration
        if self._first is not None:
            chunk, self._first = self._first, None
            return self._events(chunk)
        if inflate is not None and inflate.has_more:
            return self._events(inflate.more())
        if self._unreadable is not None and not self._unreadable.by_client:
            self._over = True
            return [self._signed(_undecodable(str(self._unreadable.error)))]
        if self._body is None:
            http = self._http
            # Bytes that nothing has to be done to come cheaper without the client's decoders.
            plain = self._plain
            raw = inflate is not None or (plain and not getattr(http, "is_stream_consumed", False))
            stream: Any = getattr(http, "stream", None) if plain and raw else None
            body = stream if hasattr(stream, "__aiter__") else http.aiter_raw() if raw else http.aiter_bytes()
            self._body = body.__aiter__()
        if self._chunks is None:
            self._chunks = ReadAhead(self._body, len)
        try:
            if (ahead := self._chunks.ahead) is None:
                began = perf_counter()
                chunk = await self._body.__anext__()
                self._chunks.came(perf_counter() - began)
            else:
                chunk = b"".join(await ahead.take())
        except StopAsyncIteration:
            self._over = True
            if inflate is not None and inflate.cut:
                return [self._signed(_undecodable(f"the body's {inflate.name} compression ended before its end mark"))]
            if self.binary and self._decoder.pending:
                message = "the AWS event stream ended inside of a message"
                return [self._signed(Failed(reason="transport.reset", message=message, status=200))]
            if last := self._last():
                return last
            raise
        except Exception as error:
            self._over = True
            failed = failures.from_exception(error, in_stream=True)
            if failed is None:
                raise
            return [self._signed(failed)]
        except BaseException:
            self._over = True
            raise
        if inflate is None:
            if self._log is None and self._opening is None and not self._whole:
                events = self._decoded(chunk)
                if not events or type(events[-1]) is not Failed:
                    return events
                return self._ended(events)
            return self._events(chunk)
        inflate.feed(chunk)
        return self._events(inflate.more())

    def _events(self, chunk: bytes | None) -> list[Event]:
        if chunk is None:
            self._over = True
            return [self._signed(_undecodable(f"the body's {self._coding} compression is broken"))]
        if self._opening is not None:
            found = self._opening.feed(chunk)
            if not isinstance(found, bytes):
                return [] if found is None else self._ended([found])
            self._whole, self._opening = self._opening.kind != "stream", None
            chunk = found
        elif self._whole and self._translator.kept:
            return []
        if self._log is None:
            events = self._decoded(chunk)
        elif self._ends is not None:
            events = self._log.take_at(self._ends(chunk), chunk, self._decoded)
        else:
            events = self._log.take(chunk, self._decoded)
        return self._ended(events)

    @property
    def _coding(self) -> str:
        return "" if self._inflate is None else self._inflate.name

    def _last(self) -> list[Event]:
        """What the body's end says: of a body in one piece, or by an error whose blank line never came."""
        if self._opening is not None:
            opening, self._opening = self._opening, None
            found = opening.end()
            if isinstance(found, bytes):
                return self._events(found)
            return [] if found is None else self._ended([found])
        if isinstance(self._decoder, EventStreamDecoder):
            return []
        if self._decoder.pending:
            with suppress(DecodingStopped):
                events = Translator().translate(self._decoder.feed(b"\n\n"))
                if events and isinstance(failed := events[-1], Failed) and failed.reason.startswith("provider."):
                    return self._ended([failed])
        # A gateway may say in a form of its own why nothing more comes.
        last = self._translator.last_words(self._decoder.foreign.decode("utf-8", "replace").strip())
        return [] if last is None else self._ended([last])

    def _ended(self, events: list[Event]) -> list[Event]:
        """The events, of which a failure is the last one of all."""
        if events and isinstance(failed := events[-1], Failed):
            self._over = True
            events[-1] = self._signed(failed)
        return events

    def _decoded(self, data: bytes) -> list[Event]:
        try:
            return self._translator.translate(self._decoder.feed(data))
        except DecodingStopped as error:
            events = self._translator.translate(error.frames)
            # A failure before it was the end of the stream already.
            return events if self._translator.ended else [*events, error.failed]

    def _signed(self, failed: Failed) -> Failed:
        """With the request's id, which a provider's support asks for first."""
        return msgspec.structs.replace(failed, request_id=failed.request_id or self.request_id)

    def message(self) -> Any:
        """The SDK's `Message` (`BetaMessage` for beta requests) as far as it has come; `None` before it started."""
        return sdk_message(self._assembly.message(), beta=self._beta)

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end: then it is free for the next request."""
        try:
            if self._chunks is not None:
                await self._chunks.aclose()
            if self._body is not None:
                await _finish(self._body)
        finally:
            await self._response.close()


class SdkStream:
    """A stream of SDK events that the caller opened: its own source, for a single attempt."""

    sees_bytes = False
    request = None

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._translator = Translator()
        # Pieces of output as tuples, all else as dicts: the SDK's own objects take ten times the memory.
        self._kept: list[_Piece | dict[str, Any]] = []
        self._beta = False
        self._items: ReadAhead[Any] | None = None
        self._over = False
        self._closed = False

    @property
    def limits(self) -> Limits | None:
        """The rate limits that the response's head states; `None` where the stream does not show its response."""
        headers = getattr(getattr(self._stream, "response", None), "headers", None)
        return limits_of(headers) if isinstance(headers, Mapping) else None

    def open(self, attempt: Attempt) -> Self:  # noqa: ARG002
        """Itself: it can be read once."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the SDK's stream, read or not; once."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
            try:
                if self._items is not None:
                    await self._items.aclose()
                    await _finish(self._stream)
            finally:
                await self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Event]:
        if self._over:
            raise StopAsyncIteration
        if self._items is None:
            self._items = ReadAhead(self._stream, _events_weigh)
        try:
            items = await self._items.next()
        except StopAsyncIteration:
            self._over = True
            raise
        except Exception as error:
            self._over = True
            failed = failures.from_exception(error, in_stream=True)
            if failed is None:
                raise
            return [failed]
        except BaseException:
            self._over = True
            raise
        events: list[Event] = []
        for item in items:
            events += self._events(item)
            if self._over:
                break
        return events

    def _events(self, event: Any) -> Sequence[Event]:
        if event.type in DERIVED:
            return ()
        # A class does not say what an event is: the SDK gives unknown ones the class of a known one.
        if event.type == "content_block_delta" and (piece := PIECES.get(event.delta.type)) is not None:
            kind, field = piece
            text = getattr(event.delta, field, None)
            if type(text) is str and type(event.index) is int:
                self._kept.append((event.index, event.delta.type, field, text))
                return self._translator.translate_piece(event.index, kind, text)
        self._beta = self._beta or ".beta." in type(event).__module__
        # What the SDK does not know yet it says so about, in warnings.
        parsed = event.to_dict(mode="json", warnings=False)
        self._kept.append(parsed)
        events = self._translator.translate_object(parsed)
        self._over = self._translator.ended
        return events

    def message(self) -> Any:
        """The SDK's message as far as it has come; `None` before it started."""
        return sdk_message(assembled(map(_whole, self._kept)), beta=self._beta)


def _events_weigh(event: Any) -> int:  # noqa: ARG001
    """Bytes of an event on the wire, about: its text is not looked at."""
    return 256


def _whole(kept: _Piece | dict[str, Any]) -> dict[str, Any]:
    """What `SdkStream` kept of an event, as a wire event again; copied, since the assembly writes into it."""
    if isinstance(kept, dict):
        return copy.deepcopy(kept)
    index, kind, field, text = kept
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}}


class _Unreadable(msgspec.Struct, frozen=True):
    """A body whose compression is not undone here."""

    error: UnreadableEncoding
    by_client: bool
    """Whether the HTTP client undoes it: it has asked for it."""


def _decompression(http: Any, headers: Mapping[str, str]) -> tuple[Decompressor | None, _Unreadable | None]:
    """How the body of a response is decompressed: here, by the HTTP client, or not at all."""
    encoding = headers.get("content-encoding", "")
    try:
        inflate = decompressor(encoding)
    except UnreadableEncoding as error:
        asked = getattr(getattr(http, "request", None), "headers", {}).get("accept-encoding", "")
        wanted = {name.partition(";")[0].strip().lower() for name in asked.split(",")}
        return None, _Unreadable(error, error.name in wanted)
    if inflate is not None and getattr(http, "is_stream_consumed", False):
        return None, None  # a middleware has read it, and so decompressed it
    return inflate, None


def _undecodable(message: str) -> Failed:
    return Failed(reason="transport.decode", message=message, status=200)


async def _finish(reading: AsyncIterator[Any]) -> None:
    """End a read between two items, by one more read that is cancelled before it begins.

    Closing a response leaves some of the generators below it suspended: trio warns of each, and asyncio closes them in
    tasks of their own after we have returned. A cancelled read runs through all of them. What has arrived already is
    given out without a wait, and so is read over.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            for _ in range(10_000):
                await reading.__anext__()
        except StopAsyncIteration:
            return
        except Exception as error:
            if failures.from_exception(error, in_stream=True) is None:
                raise


def sdk_message(body: dict[str, Any] | None, *, beta: bool) -> Any:
    """Return a message of the wire as the SDK's own object; `None` for none."""
    if body is None:
        return None
    from anthropic.types import Message
    from anthropic.types.beta import BetaMessage

    kind: Any = BetaMessage if beta else Message
    try:
        # The SDK's own `construct` makes the same in six times the time.
        return kind.model_validate(body, strict=True)
    except ValidationError:  # something that this SDK does not know yet, or is odd: it has its own ways with that
        return kind.construct(**body)
