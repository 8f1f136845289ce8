"""The raw SSE frames of a call, matched with the neutral events that were made of them.

For whoever hands a stream on as it came (an HTTP hop, a recording): the engine releases neutral events, which lose what
has no word in them; this gives back the very bytes, in order. In charge of the matching only; it decodes nothing itself
and knows no socket and no policy.

    log = FrameLog()
    async with stream(log.source(messages(client, …)), policy=policy, deliver="live") as events:
        while (batch := await events.batch()) is not None:
            for frame in log.release(batch):
                write(frame)
    for frame in log.rest():
        write(frame)

What holds, whatever `deliver` is:

* A frame goes out once, and only after every event made of it was released. A frame that no event was made of (an
  empty delta, an event without data) goes out with what stands before it.
* Frames keep the order of the wire: one that may go out waits for those before it, such as tool input that is held
  until its block is complete. Keep-alives (pings, comments) alone may overtake, so that a client's connection stays
  alive while an answer is held back; `keepalives="in order"` forbids that too.
* The frames of an attempt that was thrown away are forgotten when the next attempt opens; those that were released are
  the consumer's to void (`Restarted` stands between them in the batches, and no frame belongs to it).
* Whole streams come out byte for byte: comments, unknown events, line ends, a byte order mark, and every field of a
  frame. An event without its blank line at the end of the body is no event, and never goes out. A compressed body
  comes out decompressed. `Failed` is never released, so neither is the frame of an `error` event.

Costs nothing where it is not used, and 1 to 2 µs per frame where it is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal

from streamguard.errors import ConfigError
from streamguard.events import Event, Other, Ping
from streamguard.request import Request
from streamguard.source import Attempt, EventStream, Source

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}+")
"""A frame's end; of more blank lines than one, all: they are frames without an event, which go with the one before."""

_TAIL: Final = 3
"""The most bytes of a blank line, and of the line's end before it, that an earlier read can have brought."""


class _Frame:
    """Bytes as received, and how many of the events made of them are still to be released."""

    __slots__ = ("events", "left", "raw")

    def __init__(self, raw: bytes, events: list[Event]) -> None:
        self.raw = raw
        # Kept, so that no other event gets the identity of one of these.
        self.events = events
        self.left = len(events)


class FrameLog:
    """The frames of one call. Used by one task.

    :param keepalives: whether pings and comments go out as soon as the engine hands events on, or in their place.
    """

    def __init__(self, *, keepalives: Literal["at once", "in order"] = "at once") -> None:
        self._overtaking = keepalives == "at once"
        self._frames: deque[_Frame] = deque()
        self._of: dict[int, _Frame] = {}
        self._comments: list[_Frame] = []
        self._open: list[bytes] = []
        self._tail = b""
        self._halved = False

    def source(self, source: Source) -> Source:
        """`source` with each of its attempts logged here.

        :raises ConfigError: when it opens, if its streams show no bytes: they must have `tap()`, as `BodyStream` has.
        """
        return _Tapped(source, self)

    def overtake(self) -> None:
        """From now on keep-alives go out at once: the consumer's connection has been quiet for too long."""
        self._overtaking = True

    def begin(self) -> None:
        """A new attempt: what was not released of the last one is forgotten."""
        self._frames.clear()
        self._of.clear()
        self._comments.clear()
        self._open.clear()
        self._tail = b""
        self._halved = False

    def take(self, chunk: bytes, decode: Callable[[bytes], list[Event]]) -> list[Event]:
        """The events of the next bytes, as `decode` gives them, frame by frame. Called by the stream that is tapped.

        :param decode: takes the same bytes in any pieces; the events of a frame come with the piece that completes it.
        """
        events: list[Event] = []
        tail = self._tail
        whole = tail + chunk if tail else chunk
        begin, cut = len(tail), 0
        if self._halved and chunk[:1] == b"\n":
            # The other half of a line's end whose first half completed a frame.
            events += self._keep(b"\n", decode(b"\n"))
            begin = cut = 1
        for blank in _BLANK_LINE.finditer(whole, cut):
            # Were one seen too many, a frame would be kept in two pieces; their bytes and events are the same.
            if (end := blank.end()) > begin:
                piece = whole[begin:end]
                begin = cut = end
                events += self._keep(piece, decode(piece))
        self._tail = whole[cut:][-_TAIL:]
        if begin < len(whole):
            rest = whole[begin:]
            self._open.append(rest)
            # What is refused before its end, such as an event too large, is still an event of these bytes.
            events += decode(rest)
        self._halved = not self._tail and whole.endswith(b"\r")
        return events

    def take_at(self, ends: Iterable[int], chunk: bytes, decode: Callable[[bytes], list[Event]]) -> list[Event]:
        """The same for frames that are no lines: `ends` are the places in `chunk` behind which a frame ends."""
        events: list[Event] = []
        at = 0
        for end in ends:
            piece, at = chunk[at:end], end
            events += self._keep(piece, decode(piece))
        if at < len(chunk):
            rest = chunk[at:]
            self._open.append(rest)
            events += decode(rest)
        return events

    def release(self, events: Iterable[Event]) -> list[bytes]:
        """The frames that may go out now that the engine handed out `events`. Others' events are read over."""
        out: list[bytes] = []
        early, self._comments = self._comments, []
        of = self._of
        for event in events:
            frame = of.pop(id(event), None)
            if frame is not None:
                frame.left -= 1
                if self._overtaking and not frame.left and type(event) is Ping:
                    early.append(frame)
        frames = self._frames
        while frames and not frames[0].left:
            frame = frames.popleft()
            if frame.raw:
                out.append(frame.raw)
                frame.raw = b""
        for frame in early:
            if frame.raw:
                out.append(frame.raw)
                frame.raw = b""
        return out

    def rest(self) -> list[bytes]:
        """Once the answer stands: the frames after its last event, up to one whose events the guards never passed.

        They are keep-alives and events without a word of ours, read after the provider's end of the message. A late
        error is not among them: the answer stands, and a client would take the error's word against it.
        """
        out: list[bytes] = []
        while self._frames and all(
            type(event) is Ping or (type(event) is Other and event.type != "error") or id(event) not in self._of
            for event in self._frames[0].events
        ):
            frame = self._frames.popleft()
            for event in frame.events:
                self._of.pop(id(event), None)
            if frame.raw:
                out.append(frame.raw)
        self._comments.clear()
        return out

    def _keep(self, piece: bytes, events: list[Event]) -> list[Event]:
        """Note the frame that `piece` completes."""
        if self._open:
            piece = b"".join((*self._open, piece))
            self._open.clear()
        frame = _Frame(piece, events)
        self._frames.append(frame)
        for event in events:
            self._of[id(event)] = frame
        if not events and self._overtaking and _is_comment(piece):
            self._comments.append(frame)
        return events


def _is_comment(frame: bytes) -> bool:
    lines = frame.splitlines()
    return lines[0][:1] == b":" and all(line[:1] in (b":", b"") for line in lines)


class _Tapped:
    """A source whose streams are logged."""

    shows_frames = True
    one_at_a_time = True

    def __init__(self, source: Source, log: FrameLog) -> None:
        self._source = source
        self._log = log

    @property
    def request(self) -> Request | None:
        return self._source.request

    @property
    def sees_bytes(self) -> bool:
        return self._source.sees_bytes

    @property
    def times_connection(self) -> bool:
        return getattr(self._source, "times_connection", False) is True

    def open(self, attempt: Attempt) -> AbstractAsyncContextManager[EventStream]:
        return self._opened(attempt)

    @asynccontextmanager
    async def _opened(self, attempt: Attempt) -> AsyncIterator[EventStream]:
        async with self._source.open(attempt) as opened:
            stream: Any = opened
            if not hasattr(stream, "tap"):
                raise ConfigError(f"a {type(stream).__name__} shows no bytes, so its frames cannot be kept")
            self._log.begin()
            stream.tap(self._log)
            yield opened
