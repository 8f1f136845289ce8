"""Open streams of the `anthropic` SDK as neutral events: from the body's bytes, or from the SDK's own event objects.

In charge of reading one attempt to its end, of naming what breaks it, and of closing it without leaving anything
behind. It knows neither requests nor policies.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import anyio

from streamguard.adapters import failures
from streamguard.adapters.anthropic_events import Translator
from streamguard.adapters.assembly import Assembly, assembled
from streamguard.adapters.sse import Decoder, EventTooLarge
from streamguard.events import DeltaKind, Event
from streamguard.source import Attempt

INFLATE_BYTES: Final = 1_048_576
"""The most bytes that are decompressed at a time: a small body may hold a thousand times its size."""

DERIVED: Final = frozenset({"text", "input_json", "thinking", "citation", "signature", "compaction"})
"""Events that `messages.stream()` adds to the ones on the wire, each saying again what a delta has just said."""

PIECES: Final[Mapping[str, tuple[DeltaKind, str]]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_input", "partial_json"),
}
"""Deltas that are output: their kind, and the field with the text."""


class BodyStream:
    """An open response of the SDK, read as bytes.

    A read that gives no event gives an empty batch: a ping's bytes are heard. Breaks are named as in `failures`: a
    connection that closes without the body's end is `transport.reset`. A body that ends in good order just ends.
    """

    def __init__(self, response: Any, *, beta: bool, max_event_bytes: int) -> None:
        self._response = response
        self._http = response.http_response
        self._beta = beta
        self._decoder = Decoder(max_event_bytes)
        self._translator = Translator()
        self._assembly = Assembly(max_event_bytes)
        gzip = self.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
        # The SDK's decompression does not tell a body that was cut from one that ended.
        self._inflate = _Inflate() if gzip else None
        self._body: AsyncIterator[bytes] | None = None
        self._over = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers; names in any case."""
        headers: Mapping[str, str] = self._http.headers
        return headers

    async def beginning(self, limit: int) -> bytes:
        """The first bytes of a body that is no stream, a little more than `limit` at the most."""
        data = b""
        self._body = self._http.aiter_bytes().__aiter__()
        try:
            async for chunk in self._body:
                data += chunk
                if len(data) > limit:
                    break
        except Exception as error:
            if failures.from_exception(error, in_stream=True) is None:
                raise
        return data

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Event]:
        inflate = self._inflate
        if inflate is not None and inflate.rest:
            return self._events(inflate.more())
        if self._over:
            raise StopAsyncIteration
        if self._body is None:
            self._body = (self._http.aiter_raw() if inflate else self._http.aiter_bytes()).__aiter__()
        try:
            chunk = await self._body.__anext__()
        except StopAsyncIteration:
            self._over = True
            if inflate is not None and inflate.cut:
                return [failures.undecodable("the compressed body ended before its end mark", b"")]
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
        if inflate is None:
            return self._events(chunk)
        inflate.rest += chunk
        return self._events(inflate.more())

    def _events(self, chunk: bytes | None) -> list[Event]:
        if chunk is None:
            self._over = True
            return [failures.undecodable("the body's compression is broken", b"")]
        self._assembly.keep(chunk)
        try:
            events = self._translator.translate(self._decoder.feed(chunk))
        except EventTooLarge as error:
            self._over = True
            return [*self._translator.translate(error.frames), error.failed]
        self._over = self._over or self._translator.ended
        return events

    def message(self) -> Any:
        """The SDK's `Message` (`BetaMessage` for beta requests) as far as it has come; `None` before it started."""
        return _message(self._assembly.message(), beta=self._beta)

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end: then it is free for the next request."""
        if self._body is not None:
            await _finish(self._body)
        await self._response.close()


class SdkStream:
    """A stream of SDK events that the caller opened: its own source, for a single attempt."""

    sees_bytes = False
    request = None

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._translator = Translator()
        self._kept: list[Any] = []
        self._reading = False
        self._over = False

    def open(self, attempt: Attempt) -> Self:  # noqa: ARG002
        """Itself: it can be read once."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            if self._reading:
                await _finish(self._stream)
            await self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Event]:
        if self._over:
            raise StopAsyncIteration
        self._reading = True
        try:
            event = await self._stream.__anext__()
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
        if event.type in DERIVED:
            return ()
        self._kept.append(event)
        # A class does not say what an event is: the SDK gives unknown ones the class of a known one.
        if event.type == "content_block_delta" and (piece := PIECES.get(event.delta.type)) is not None:
            kind, field = piece
            text = getattr(event.delta, field, None)
            if type(text) is str and type(event.index) is int:
                return self._translator.translate_piece(event.index, kind, text)
        return self._translator.translate_object(event.to_dict())

    def message(self) -> Any:
        """The SDK's message as far as it has come; `None` before it started."""
        if not self._kept:
            return None
        beta = ".beta." in type(self._kept[0]).__module__
        return _message(assembled(event.to_dict() for event in self._kept), beta=beta)


class _Inflate:
    """A gzip body, decompressed in bounded steps."""

    def __init__(self) -> None:
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.rest = b""
        """Compressed bytes not looked at yet."""
        self._heard = False

    @property
    def cut(self) -> bool:
        """Whether the body may not end here."""
        return self._heard and not self._gzip.eof

    def more(self) -> bytes | None:
        """Some more of the body; `None` if it is broken."""
        self._heard = True
        if self._gzip.eof and self.rest:
            self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            data = self._gzip.decompress(self.rest, INFLATE_BYTES)
        except zlib.error:
            self.rest = b""
            return None
        self.rest = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail
        return data


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


def _message(body: dict[str, Any] | None, *, beta: bool) -> Any:
    if body is None:
        return None
    if beta:
        from anthropic.types.beta import BetaMessage

        return BetaMessage.construct(**body)
    from anthropic.types import Message

    return Message.construct(**body)
