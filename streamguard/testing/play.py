"""Steps → operations: what has to be done, one thing after the other, in memory as over sockets.

In charge of repeating, cutting, pacing, compressing and encoding; lazy, so that a script may go on for ever. It waits
for nothing and sends nothing: whoever plays the operations does.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from streamguard.events import Delta, Event, Failed, Metered, Started, Stopped
from streamguard.source import SourceFailed
from streamguard.testing import wire
from streamguard.testing.steps import (
    Drip,
    Encode,
    End,
    ExpectDisconnect,
    Framing,
    Gather,
    Item,
    OmitLastChunk,
    Pace,
    Pause,
    Raw,
    Repeat,
    Send,
    Split,
    Status,
    Step,
    Truth,
    is_early_failure,
)

Chunk = Literal["whole", "event", "byte"] | int | None
"""How the same stream is cut: all that comes without a pause at once, one event at a time, one byte (or character) at
a time, at random places by a seed; `None` for as the script has it."""

WHOLE_BYTES, WHOLE_EVENTS = 65_536, 1_000
"""The most bytes, and events, that are put together: an endless script has no whole."""

_DELTA_FRAME = re.compile(rb'"type": ?"content_block_delta"')
_STOP_FRAME = re.compile(rb'"type": ?"message_stop"')
_FRAME_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_INPUT = re.compile(rb'"input_tokens": ?(\d+)')
_OUTPUT = re.compile(rb'"type": ?"message_delta".*"output_tokens": ?(\d+)')
"""Not that of `message_start`, which means nothing."""


class Op(msgspec.Struct, frozen=True):
    """One thing to do."""


class Head(Op, frozen=True):
    """Send the response head, and the whole body if there is one."""

    code: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    framing: Framing = "chunked"
    body: bytes | None = None


class Emit(Op, frozen=True):
    """Hand out a batch of events. In memory only."""

    events: tuple[Event, ...]


class Write(Op, frozen=True):
    """Send bytes of the body."""

    data: bytes
    deltas: int = 0
    """Deltas that are made with them."""


class Verbatim(Op, frozen=True):
    """Send bytes outside of the body's framing."""

    data: bytes


class Wait(Op, frozen=True):
    """Wait so many seconds."""

    seconds: float


class Due(Op, frozen=True):
    """Wait until so many seconds after the last `Anchor`."""

    seconds: float


class Anchor(Op, frozen=True):
    """The moment that `Due` counts from."""


class Gathering(Op, frozen=True):
    """Gather socket writes up to this size."""

    size: int


class Raise(Op, frozen=True):
    """Raise to whoever reads."""

    error: BaseException


class Stop(Op, frozen=True):
    """The end. `end`: in order; `cut`: the body's end is not told; the others as the steps of these names."""

    how: Literal["end", "cut", "fin", "rst", "half_close"]


class Expect(Op, frozen=True):
    """Wait for the client to go."""

    within: float


_BREAKS: dict[str, Literal["end", "rst"]] = {
    "transport.reset": "rst",
    "transport.connect": "rst",
    "transport.incomplete": "end",
}
"""How a connection ends that fails for this reason."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What can be known of an attempt's script before it is played."""

    truth: Truth | None
    coding: Encode | None
    has_status: bool
    deltas: int | None
    """Deltas in all; `None` for a script without an end."""
    input_tokens: int | None
    """As the script's own usage says."""
    output_tokens: int | None


def facts(items: Sequence[Item]) -> Facts:
    """Look through a script."""
    flat = list(_flat(items))
    deltas = 0
    endless = over = False
    tokens: dict[str, int | None] = {"input": None, "output": None}
    for item, times in flat:
        data = item.data if isinstance(item, Send) else item if isinstance(item, bytes) else b""
        events = item if isinstance(item, tuple) else (item,)
        its = len(_DELTA_FRAME.findall(data)) + sum(isinstance(one, Delta) for one in events)
        # Pings for ever make no output, and what comes after the message's end was not made for it.
        endless |= times is None and its > 0
        deltas += 0 if over else its * (times or 1)
        over |= _STOP_FRAME.search(data) is not None or any(isinstance(one, Stopped) for one in events)
        for one in events:
            if isinstance(one, Started | Metered):
                tokens["input"] = one.usage.input_tokens if one.usage.input_tokens is not None else tokens["input"]
            if isinstance(one, Metered) and one.usage.output_tokens is not None:
                tokens["output"] = one.usage.output_tokens
        for name, pattern in (("input", _INPUT), ("output", _OUTPUT)) if b"_tokens" in data else ():
            if found := pattern.findall(data):
                tokens[name] = int(found[-1])
    kinds = {type(item): item for item, _ in reversed(flat)}
    truth, coding = kinds.get(Truth), kinds.get(Encode)
    return Facts(
        truth=truth if isinstance(truth, Truth) else None,
        coding=coding if isinstance(coding, Encode) else None,
        has_status=Status in kinds,
        deltas=None if endless else deltas,
        input_tokens=tokens["input"],
        output_tokens=tokens["output"],
    )


def _flat(items: Iterable[Item], times: int | None = 1) -> Iterator[tuple[Item, int | None]]:
    for item in items:
        if isinstance(item, Repeat):
            yield from _flat(item.items, None if item.times is None or times is None else item.times * times)
        else:
            yield item, times


def operations(
    items: Sequence[Item], *, sockets: bool, chunk: Chunk = None, seed: int = 0, known: Facts | None = None
) -> Iterator[Op]:
    """Everything to do in one attempt, ending with a `Stop`.

    :param known: the items' own facts, where they were looked up before.
    :param sockets: whether events become bytes.
    :param seed: mixed into every random cut, so that attempts differ.
    """
    ops = _Player(items, known or facts(items), sockets=sockets, seed=seed).play()
    return ops if chunk is None else rechunked(ops, chunk, seed)


_UNSPLIT = Split()


class _Player:
    """The state of a script being played."""

    def __init__(self, items: Sequence[Item], known: Facts, *, sockets: bool, seed: int) -> None:
        self._items = items
        self._sockets = sockets
        self._facts = known
        self._split = _UNSPLIT
        self._drip: float | None = None
        self._pace: float | None = None
        self._paced = 0
        self._omit_last_chunk = False
        self._random = random.Random(seed)  # noqa: S311
        coding = self._facts.coding
        self._compressor = zlib.compressobj(wbits=31) if coding else None
        self._cut = coding.cut if coding else 0
        self._held = b""

    def play(self) -> Iterator[Op]:
        first = self._items[0] if self._items else None
        if first is not None and is_early_failure(first) and not self._facts.has_status:
            yield from self._early(first)
            return
        if not self._facts.has_status and not isinstance(_first_said(self._items), Raw):
            yield self._head(Status())
        for item in self._unrolled(self._items):
            for op in self._ops(item):
                yield op
                if isinstance(op, Stop):
                    return
        if self._compressor:
            yield from self._written(self._released(self._compressor.flush()), 0)
        yield Stop("cut" if self._omit_last_chunk else "end")

    def _unrolled(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if isinstance(item, Repeat):
                for _ in itertools.count() if item.times is None else range(item.times):
                    yield from self._unrolled(item.items)
            else:
                yield item

    def _head(self, step: Status) -> Head:
        headers = step.headers
        if self._facts.coding:
            headers = (*headers, ("content-encoding", self._facts.coding.coding))
        return Head(step.code, headers, step.framing, step.body)

    def _early(self, item: Item) -> Iterator[Op]:
        if not self._sockets:
            yield Raise(SourceFailed(item) if isinstance(item, Failed) else item)  # type: ignore[arg-type]
            return
        failed = item.failed if isinstance(item, SourceFailed) else item
        if not isinstance(failed, Failed) or failed.reason.startswith("transport."):
            yield Stop("rst")
            return
        type_ = wire.error_type(failed)
        headers = {"content-type": "application/json"}
        if failed.retry_after is not None:
            headers["retry-after"] = f"{failed.retry_after:g}"
        if failed.request_id is not None:
            headers["request-id"] = failed.request_id
        body = json.dumps(wire.error_body(type_, failed.message, code=failed.code)).encode()
        code = failed.status if failed.status not in (None, 200) else wire.ERROR_STATUS.get(type_, 500)
        yield Head(code or 500, tuple(headers.items()), "chunked", body)
        yield Stop("end")

    def _ops(self, item: Item) -> Iterator[Op]:
        if not isinstance(item, Step | bytes | BaseException):
            yield from self._said(item if isinstance(item, tuple) else (item,))
            return
        match item:
            case bytes() | Send():
                data = item if isinstance(item, bytes) else item.data
                yield from self._sent(data, len(_DELTA_FRAME.findall(data)))
            case Status():
                yield self._head(item)
                if item.body is not None and self._sockets:
                    yield Stop("end")
            case Raw():
                yield Verbatim(item.data)
            case Split():
                self._split = item
            case Drip():
                self._drip = item.bytes_per_second
            case Pace():
                self._pace, self._paced = item.per_second, 0
                yield Anchor()
            case Gather():
                yield Gathering(item.size)
            case Pause():
                yield Wait(item.seconds)
            case End():
                yield Stop(item.how)
            case OmitLastChunk():
                self._omit_last_chunk = True
            case ExpectDisconnect():
                yield Expect(item.within)
            case BaseException():
                yield Stop("rst") if self._sockets else Raise(item)
            case Truth() | Encode():
                pass

    def _said(self, events: tuple[Event, ...]) -> Iterator[Op]:
        """Neutral events: as they are in memory, as frames over sockets. A failure is the last thing said."""
        failed = next((one for one in events if isinstance(one, Failed)), None)
        if not self._sockets:
            yield from self._due()
            yield Emit(events)
            if failed is not None:
                yield Stop("end")
            return
        breaks = None if failed is None else _BREAKS.get(failed.reason)
        spoken = events if breaks is None else tuple(one for one in events if one is not failed)
        data = b"".join(map(wire.encode, spoken))
        yield from self._sent(data, sum(isinstance(one, Delta) for one in events))
        if failed is not None:
            yield Stop(breaks or "end")

    def _due(self) -> Iterator[Op]:
        if self._pace is not None:
            yield Due(self._paced / self._pace)
            self._paced += 1

    def _sent(self, data: bytes, deltas: int) -> Iterator[Op]:
        yield from self._due()
        if self._compressor:
            packed = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            data = self._released(packed)
        yield from self._written(data, deltas)

    def _released(self, packed: bytes) -> bytes:
        """What of the compressed body may go out: all but the bytes that are never sent."""
        self._held += packed
        at = max(0, len(self._held) - self._cut)
        data, self._held = self._held[:at], self._held[at:]
        return data

    def _written(self, data: bytes, deltas: int) -> Iterator[Op]:
        if data and self._drip is None and self._split == _UNSPLIT:
            yield Write(data, deltas)
            return
        for piece, made in _pieces(data, self._offsets(len(data)), deltas):
            if self._drip is None:
                yield Write(piece, made)
                continue
            size = max(1, round(self._drip / 20))
            for drop, drops in _pieces(piece, range(size, len(piece), size), made):
                yield Write(drop, drops)
                yield Wait(len(drop) / self._drip)

    def _offsets(self, size: int) -> Iterable[int]:
        if self._split.every is not None:
            return range(self._split.every, size, self._split.every)
        if self._split.seed is not None:
            return _random_offsets(random.Random(self._split.seed * 1_000_003 + self._random.getrandbits(31)), size)  # noqa: S311
        return self._split.offsets


def _first_said(items: Sequence[Item]) -> Item | None:
    """The first item that is no pause: if it is raw bytes, the head is the script's own business."""
    return next((item for item in items if not isinstance(item, Pause | Truth | Encode)), None)


def _random_offsets(source: random.Random, size: int) -> list[int]:
    """Places to cut: pieces of 1 to 40 bytes, short ones often, so that cuts fall inside of everything."""
    offsets: list[int] = []
    at = 0
    while (at := at + math.ceil(40 * source.random() ** 3)) < size:
        offsets.append(at)
    return offsets


def _pieces(data: bytes, offsets: Iterable[int], deltas: int) -> Iterator[tuple[bytes, int]]:
    """The data cut at offsets. Each delta counts with the piece that its frame begins in, where frames can be seen."""
    if not data:
        # Nothing to send yet (compressed, held back), but made all the same.
        if deltas:
            yield b"", deltas
        return
    starts = [found.start() for found in _DELTA_FRAME.finditer(data)]
    if len(starts) != deltas:
        starts = [0] * deltas
    begin = 0
    for end in (*(at for at in offsets if 0 < at < len(data)), len(data)):
        if end > begin:
            yield data[begin:end], bisect.bisect_left(starts, end) - bisect.bisect_left(starts, begin)
            begin = end


def rechunked(ops: Iterator[Op], chunk: Chunk, seed: int = 0) -> Iterator[Op]:
    """The same operations, with what comes without a pause cut anew."""
    source = random.Random(chunk * 1_000_003 + seed if isinstance(chunk, int) else seed)  # noqa: S311
    run: list[Emit | Write] = []
    size = 0
    for op in ops:
        if isinstance(op, Emit | Write):
            most = WHOLE_BYTES if isinstance(op, Write) else WHOLE_EVENTS
            if run and (type(op) is not type(run[0]) or size >= most):
                yield from _recut(run, chunk, source)
                run, size = [], 0
            run.append(op)
            size += len(op.data) if isinstance(op, Write) else len(op.events)
        else:
            yield from _recut(run, chunk, source)
            run, size = [], 0
            yield op
    yield from _recut(run, chunk, source)


def _recut(run: Sequence[Emit | Write], chunk: Chunk, source: random.Random) -> Iterator[Op]:
    writes = [op for op in run if isinstance(op, Write)]
    if writes:
        data = b"".join(op.data for op in writes)
        offsets: Iterable[int] = ()
        if chunk == "event":
            offsets = [found.end() for found in _FRAME_END.finditer(data)]
        elif chunk == "byte":
            offsets = range(1, len(data))
        elif isinstance(chunk, int):
            offsets = _random_offsets(source, len(data))
        for piece, deltas in _pieces(data, offsets, sum(op.deltas for op in writes)):
            yield Write(piece, deltas)
        return
    events = [event for op in run if isinstance(op, Emit) for event in op.events]
    if chunk == "whole" and events:
        yield Emit(tuple(events))
    elif chunk == "event":
        yield from (Emit((event,)) for event in events)
    elif chunk == "byte":
        yield from (Emit((event,)) for whole in events for event in _crumbs(whole, 1))
    elif isinstance(chunk, int):
        crumbs = [event for whole in events for event in _crumbs(whole, source.randint(1, 12))]
        at = 0
        while at < len(crumbs):
            many = source.randint(0, 5)
            yield Emit(tuple(crumbs[at : at + many]))
            at += many


def _crumbs(event: Event, size: int) -> list[Event]:
    """A delta in deltas of `size` characters; any other event as it is."""
    if not isinstance(event, Delta):
        return [event]
    return [Delta(event.index, event.kind, piece) for piece in wire.pieces(event.text, size)]
