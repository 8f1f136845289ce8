"""Server-sent events: bytes in, frames out.

In charge of the WHATWG event stream format (https://html.spec.whatwg.org/multipage/server-sent-events.html, section
9.2.6), as a push decoder without I/O. It does not know what an event means, and leaves `data` as the bytes it found:
UTF-8 and JSON are the next reader's business. `id` and `retry` are for reconnecting clients and are read over.

Any split of the same bytes gives the same frames, in time linear in the bytes.
"""

from __future__ import annotations

import re

from streamguard.events import Failed

Frame = tuple[bytes, bytes]
"""An event's name (empty if it has none) and its data, with the lines of the data joined by LF."""

MAX_EVENT_BYTES = 16 * 1_048_576
"""The default bound on one event, in bytes. A server tool's result comes whole in one event: a fetched PDF as base64
has several MiB."""

SQUEEZE_AT = 65_536
"""Bytes of an incomplete event at which what no event is made of is dropped from it; again at twice that."""

FREE_LINES = 1000
LINE_BYTES = 256
"""What each line of data beyond the first thousand counts for: in memory it takes about as much, whatever it says."""

FOREIGN_BYTES = 2048
"""The most that is kept of lines that are no fields of the format."""

_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})

_BOM = b"\xef\xbb\xbf"

# What nearly every event looks like; the format's other faces take the long way.
_EVENT = re.compile(rb"event: ([^\n]*+)\ndata: ([^\n]++)\n\n")
_ROW = re.compile(rb"(?:event: [^\n]*+\ndata: [^\n]++\n\n)++").match


class DecodingStopped(Exception):
    """A stream cannot be decoded any further. The decoder is of no use afterwards."""

    def __init__(self, what: str, frames: list[Frame]) -> None:
        super().__init__(what)
        self.frames = frames
        """The frames that were complete before it, in the same chunk."""

    @property
    def failed(self) -> Failed:
        """The same as the end of an attempt."""
        raise NotImplementedError


class EventTooLarge(DecodingStopped):
    """An event, or one line, is larger than allowed."""

    def __init__(self, limit: int, observed: int, frames: list[Frame]) -> None:
        what = f"one event of the stream has {observed} bytes or more"
        super().__init__(f"{what}; at most {limit} are allowed (max_event_bytes)", frames)
        self.limit = limit
        """The bound, in bytes."""
        self.observed = observed
        """The bytes seen so far."""

    @property
    def failed(self) -> Failed:
        """The same as the end of an attempt."""
        return Failed(reason="transport.event_too_large", message=str(self), status=200)


class Decoder:
    """Decodes one stream. Feed it what was read, in order; an event still open at the end of input is no event.

    :param max_event_bytes: the most bytes of one line, and of one event's data; of more than a thousand lines each
        counts for `LINE_BYTES` more. Comments and unknown fields count for their own line only, so that keep-alives
        without a blank line between them never add up.
    """

    __slots__ = ("_after_cr", "_check_at", "_head", "_pieces", "_size", "foreign", "max_event_bytes")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        # The bytes since the last blank line, in pieces: they are joined once, when the event is complete.
        self._pieces: list[bytes] = []
        self._size = 0
        self._check_at = min(max_event_bytes, SQUEEZE_AT)
        # Whether the last byte was a CR, whose LF may still come.
        self._after_cr = False
        self.foreign = b""
        """The beginning of the last lines that are no fields: some gateways put an error in a stream as it is."""
        # The first bytes of the stream as long as they may be a byte order mark; `None` when that is settled.
        self._head: bytes | None = b""

    @property
    def pending(self) -> int:
        """Bytes of an event that is not complete yet. Not 0 at the end of input: the stream was cut inside an event."""
        return self._size

    def feed(self, chunk: bytes) -> list[Frame]:
        """Every event that `chunk` completes.

        :raises EventTooLarge: with the frames that were complete before.
        """
        pieces = self._pieces
        # One whole event per read, as live streams come: in one look, since each single thing that a program does after
        # it has waited costs several times what it costs in a loop.
        if (
            not (pieces or self._after_cr or self._head)
            and (one := _EVENT.fullmatch(chunk))
            and b"\r" not in chunk
            and len(chunk) <= self.max_event_bytes
        ):
            self._head = None
            return [(one[1], one[2])]
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        if not chunk:
            return []
        if pieces:
            pieces.append(chunk)
            if b"\n\n" not in chunk and not (chunk[0] == 10 and pieces[-2][-1] == 10):
                self._size += len(chunk)
                if self._size > self._check_at:
                    self._squeeze([])
                return []
            chunk = b"".join(pieces)
            pieces.clear()
        largest = self.max_event_bytes
        frames: list[Frame] = []
        if len(chunk) <= largest and (row := _ROW(chunk)) is not None:
            frames = _EVENT.findall(chunk, 0, row.end())
            chunk = chunk[row.end() :]
        *blocks, rest = chunk.split(b"\n\n")
        for block in blocks:
            if frame := self._frame(block, frames):
                frames.append(frame)
        self._size = len(rest)
        self._check_at = min(largest, SQUEEZE_AT)
        if rest:
            pieces.append(rest)
            if self._size > self._check_at:
                self._squeeze(frames)
        return frames

    def _without_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """The chunk with LF for CR LF and CR. A CR at the end is a line's end at once; a later LF of its is dropped."""
        if self._after_cr:
            if not chunk:
                return chunk
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _frame(self, block: bytes, complete: list[Frame]) -> Frame | None:
        """The event of one block, read line by line; `None` if the block has no data."""
        largest = self.max_event_bytes
        name = b""
        data: list[bytes] = []
        size, foreign = -1, False
        for line in block.split(b"\n"):
            # A comment is not copied: it may be as long as anything.
            field, _, value = (b"", b"", b"") if line[:1] == b":" else line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                data.append(value)
                size += len(value) + (1 if len(data) <= FREE_LINES else LINE_BYTES)
            elif field == b"event":
                name = value
            elif field and field not in _FIELDS:
                foreign = True
            if len(line) > largest or size > largest:
                raise EventTooLarge(largest, max(len(line), size), complete)
        if data:
            return name, b"\n".join(data)
        if foreign:
            self.foreign = block[:FOREIGN_BYTES]
        return None

    def _squeeze(self, complete: list[Frame]) -> None:
        """See whether the pending event is too large, and drop from it what no event is made of."""
        pending = b"".join(self._pieces)
        self._pieces.clear()
        self._frame(pending, complete)
        *lines, last = pending.split(b"\n")
        names = [line for line in lines if line.partition(b":")[0] == b"event"]
        data = [line for line in lines if line.partition(b":")[0] == b"data"]
        rest = b"\n".join([*names[-1:], *data, last])
        self._pieces[:] = [rest] if rest else []
        self._size = len(rest)
        # Not again at the next byte: twice the size in memory buys linear time. The bound itself is never passed over.
        size, largest = self._size, self.max_event_bytes
        again = size + min(largest, max(size, SQUEEZE_AT))
        self._check_at = min(again, largest) if size < largest else again
