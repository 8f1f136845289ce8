"""AWS event streams: bytes in, frames out, as Bedrock sends the events of a Messages call.

In charge of the encoding `application/vnd.amazon.eventstream`
(https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and smithy.io, "Event stream
specification"), as a push decoder without I/O, with the interface of the decoder of server-sent events. All numbers are
big endian:

    total length u32 | headers' length u32 | CRC-32 of these 8 bytes u32 | headers | payload | CRC-32 of all before u32

A `chunk` holds one event of the Messages API as base64. An exception becomes an `error` event in the provider's form.
Any split of the same bytes gives the same frames; every flipped bit is noticed.
"""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Mapping
from typing import Final
from zlib import crc32

import msgspec

from streamguard.adapters.aws.errors import error_event
from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES, DecodingStopped, EventTooLarge, Frame
from streamguard.events import Failed

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
"""The media type of these streams."""

MAX_HEADERS: Final = 131_072
"""The most bytes of a message's headers, by the specification."""

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_OVERHEAD: Final = _PRELUDE.size + _CRC.size

_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Type of a header's value → its bytes; types 6 (bytes) and 7 (text) say their length."""


class BrokenFrame(DecodingStopped):
    """Bytes that are no message of an event stream: a checksum or a length is wrong. The decoder is of no use then."""

    def __init__(self, what: str, frames: list[Frame]) -> None:
        super().__init__(what, frames)

    @property
    def failed(self) -> Failed:
        """The same as the end of an attempt."""
        return Failed(reason="transport.decode", message=str(self), status=200)


class _Chunk(msgspec.Struct):
    bytes: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


class EventStreamDecoder:
    """Decodes one stream. Feed it what was read, in order.

    :param max_event_bytes: the most bytes of one event.
    """

    __slots__ = ("_buffer", "_head", "_said", "max_event_bytes")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        # The headers of the last message, and what they say: nearly all messages of a stream have the same.
        self._head = b""
        self._said: Mapping[str, str] = {}

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete yet. Not 0 at the end of input: the stream was cut inside one."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return every event that `chunk` completes.

        :raises BrokenFrame: with the frames that were complete before.
        :raises EventTooLarge: likewise.
        """
        buffer = self._buffer
        buffer += chunk
        frames: list[Frame] = []
        at, size = 0, len(buffer)
        while size - at >= _PRELUDE.size:
            total, head, crc = _PRELUDE.unpack_from(buffer, at)
            if crc32(buffer[at : at + 8]) != crc:
                raise BrokenFrame(
                    "a message of the AWS event stream has a broken prelude: its checksum is wrong", frames
                )
            if total < _OVERHEAD + head or head > MAX_HEADERS:
                raise BrokenFrame(f"a message of the AWS event stream has impossible lengths: {total}, {head}", frames)
            # Base64 and padding: twice the event is enough, and bounds what is held.
            if total > 2 * self.max_event_bytes + MAX_HEADERS:
                raise EventTooLarge(self.max_event_bytes, total // 2, frames)
            if size - at < total:
                break
            end = at + total - _CRC.size
            if crc32(buffer[at:end]) != _CRC.unpack_from(buffer, end)[0]:
                raise BrokenFrame("a message of the AWS event stream is broken: its checksum is wrong", frames)
            body = at + _PRELUDE.size + head
            self._message(bytes(buffer[at + _PRELUDE.size : body]), bytes(buffer[body:end]), frames)
            at += total
        if at:
            del buffer[:at]
        return frames

    def _message(self, head: bytes, payload: bytes, frames: list[Frame]) -> None:
        if head != self._head:
            self._said = _headers(head, frames)
            self._head = head
        said = self._said
        kind = said.get(":message-type")
        if kind == "event":
            if said.get(":event-type") != "chunk":
                return  # an event of a later version
            try:
                text = _chunk(payload).bytes
                data = None if text is None else binascii.a2b_base64(text, strict_mode=True)
            except (msgspec.DecodeError, ValueError) as error:
                raise BrokenFrame(f"a chunk of the AWS event stream is no JSON with base64: {error}", frames) from None
            if data is None:
                return
            if len(data) > self.max_event_bytes:
                raise EventTooLarge(self.max_event_bytes, len(data), frames)
            frames.append((b"", data))
        elif kind == "exception":
            frames.append((b"error", error_event(said.get(":exception-type", ""), _object(payload))))
        elif kind == "error":
            words = {"message": said.get(":error-message", "")}
            frames.append((b"error", error_event(said.get(":error-code", ""), words)))


class MessageEnds:
    """Finds where messages end, by their lengths alone, in the chunks of one stream."""

    def __init__(self) -> None:
        self._prefix = b""
        self._left = 0

    def __call__(self, chunk: bytes) -> list[int]:
        """Return the places in `chunk` behind which a message ends."""
        ends: list[int] = []
        at = 0
        while at < len(chunk):
            if not self._left:
                piece = chunk[at : at + 4 - len(self._prefix)]
                self._prefix += piece
                at += len(piece)
                if len(self._prefix) == 4:
                    self._left = max(1, int.from_bytes(self._prefix, "big") - 4)
                    self._prefix = b""
                continue
            step = min(self._left, len(chunk) - at)
            self._left -= step
            at += step
            if not self._left:
                ends.append(at)
        return ends


def _headers(head: bytes, frames: list[Frame]) -> dict[str, str]:
    """The headers of a message whose values are texts; all others are read over."""
    said: dict[str, str] = {}
    at = 0
    try:
        while at < len(head):
            length = head[at]
            name = head[at + 1 : at + 1 + length].decode("utf-8")
            at += 1 + length
            kind = head[at]
            at += 1
            if kind in _FIXED:
                at += _FIXED[kind]
                continue
            if kind not in (6, 7):
                raise ValueError(f"a value of type {kind}")
            length = int.from_bytes(head[at : at + 2], "big")
            value = head[at + 2 : at + 2 + length]
            at += 2 + length
            if len(value) < length:
                raise ValueError("a value is cut")
            if kind == 7:
                said[name] = value.decode("utf-8")
    except (IndexError, ValueError) as error:
        raise BrokenFrame(f"the headers of a message of the AWS event stream cannot be read: {error}", frames) from None
    return said


def _object(payload: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(payload)
    except ValueError:
        return {"message": payload.decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {"message": str(found)}
