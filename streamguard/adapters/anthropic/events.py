"""Frames of the Messages API → neutral events.

In charge of the wire form of the provider's events. It does not know where the frames come from, and does not import
the SDK. Unknown events, blocks, deltas and fields are let through, never fatal: the API may add any of them.

The event's type is the one in its JSON; the SSE name stands in where the JSON has none, and is not needed otherwise
(the SDK drops data without a name; not every server and proxy sends one). A name of `error` or `ping` decides by
itself, as it does in the SDK.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.stop_reasons import stop_reason
from streamguard.adapters.anthropic.usage import count, invocation, neutral, word
from streamguard.adapters.anthropic.wire import (
    DELTA_TYPES,
    INNER,
    KNOWN_FIELDS,
    PIECE_FIELDS,
    TYPES,
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ErrorWire,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    PingWire,
    TextDelta,
    ThinkingDelta,
    Wire,
    decode,
)
from streamguard.adapters.sse.decoder import Frame
from streamguard.events import (
    BlockKind,
    BlockStarted,
    BlockStopped,
    Delta,
    DeltaKind,
    Event,
    Failed,
    Metered,
    Other,
    Ping,
    Started,
    Stopped,
    Usage,
)

BLOCK_KINDS: dict[str, BlockKind] = {
    "text": "text",
    "thinking": "thinking",
    "redacted_thinking": "thinking",
    "tool_use": "tool_input",
    "server_tool_use": "server_tool",
    "mcp_tool_use": "server_tool",
}
"""The provider's block types; every other one is `other`."""


MOST_EMPTY: Final = 10_000
"""Pieces without text that are kept of one stream. They are part of no message, and no model sends a hundred."""

END_MARK: Final = "[DONE]"
"""OpenAI's end of a stream, which servers of theirs send behind `message_stop`, or in its place."""


Kept = Delta | tuple[bytes, Event | None]
"""What came, for whoever needs more than neutral words: a plain piece of output as the very `Delta` that was made of it
(it says all there was), anything else as its data and the last event made of it."""

_Append = Callable[[Event], None]


class Translator:
    """Translates one stream. After a `Failed` it says nothing more."""

    __slots__ = (
        "_done",
        "_empty",
        "_inputs",
        "_mended",
        "_over",
        "_passed_over",
        "_seen",
        "_stop_reason",
        "ended",
        "kept",
    )

    def __init__(self) -> None:
        # The initial input of open tool blocks that have not sent a piece of JSON yet.
        self._inputs: dict[int, str] = {}
        self._stop_reason: str | None = None
        self._seen = 0
        # Pieces of output without text so far.
        self._empty = 0
        # Whether the message's own end has come, and whether OpenAI's has.
        self._over = self._done = False
        # What to keep of the last frame instead of its data, if that lacks what the event was made of.
        self._mended: bytes | None = None
        # The last thing that was passed over and may be a gateway's words.
        self._passed_over: object = None
        self.kept: list[Kept] = []
        """Everything that `translate` was given, in order, but for pings and errors."""
        self.ended = False
        """Whether a `Failed` was said."""

    def translate(self, frames: Iterable[Frame]) -> list[Event]:
        """The events of some more frames, in order."""
        events: list[Event] = []
        if self.ended:
            return events
        append, keep = events.append, self.kept.append
        for name, data in frames:
            self._seen += 1
            if name == b"ping":
                append(Ping())
                continue
            if self._over:
                append(self._late(name, data))
                continue
            before = len(events)
            wire: Any
            try:
                wire = decode(data) if name != b"error" else _error(data)
            except (ValueError, RecursionError):
                wire = self._unusual(name, data)
                if self._mended is not None:
                    data, self._mended = self._mended, None  # noqa: PLW2901  it is kept in place of what came
                if type(wire) is _Aside:
                    append(wire.event)
                    continue
                if type(wire) is BlockDelta and type(wire.delta) in PIECE_FIELDS:
                    events += self._piece(wire)
                    keep((data, events[-1] if len(events) > before else None))
                    continue
            # Pieces of output are nearly all of a stream, so they go no further than here.
            if type(wire) is BlockDelta:
                delta: Any = wire.delta
                piece: type = type(delta)
                event: Delta
                if piece is TextDelta:
                    if text := delta.text:
                        append(event := Delta(wire.index, "text", text))
                        keep(event)
                        continue
                elif piece is InputJsonDelta:
                    if text := delta.partial_json:
                        if self._inputs:
                            self._inputs.pop(wire.index, None)
                        append(event := Delta(wire.index, "tool_input", text))
                        keep(event)
                        continue
                elif piece is ThinkingDelta:
                    if text := delta.thinking:
                        append(event := Delta(wire.index, "thinking", text))
                        keep(event)
                        continue
                else:
                    append(Other(str(delta.__struct_config__.tag), wire.index))
                if len(events) == before:
                    self._empty += 1
                    if self._empty > MOST_EMPTY:
                        continue
            elif type(wire) is PingWire:
                append(Ping())
                continue
            else:
                self._take(_error(data) if type(wire) is ErrorWire else wire, append)
                if self.ended:
                    break
            if data:
                keep((data, events[-1] if len(events) > before else None))
        return events

    def last_words(self, foreign: str) -> Failed | None:
        """What a stream that ends here, before its message's end, said last in a form that was passed over; `None` if
        that means nothing.

        :param foreign: lines of the stream that are of no event.
        """
        if self._over or self.ended or self._done:
            return None
        return failures.last_words(foreign) or failures.last_words(self._passed_over)

    def translate_object(self, event: dict[str, Any]) -> list[Event]:
        """The same for one event that has been parsed already."""
        events: list[Event] = []
        if self._over:
            return [self._late(b"", event)]
        if not self.ended:
            self._seen += 1
            wire = self._typed(event, b"", repr(event).encode("utf-8", "backslashreplace"))
            if type(wire) is _Aside:
                return [wire.event]
            if type(wire) is BlockDelta and type(wire.delta) in PIECE_FIELDS:
                return self._piece(wire)
            self._take(wire, events.append)
        return events

    def _piece(self, wire: BlockDelta) -> list[Event]:
        kind, field = PIECE_FIELDS[type(wire.delta)]
        return self.translate_piece(wire.index, kind, getattr(wire.delta, field))

    def translate_piece(self, index: int, kind: DeltaKind, text: str) -> list[Event]:
        """The same for a piece of output whose parts are known."""
        if not text or self.ended:
            return []
        if kind == "tool_input":
            self._inputs.pop(index, None)
        return [Delta(index, kind, text)]

    def _take(self, wire: Any, append: _Append) -> None:
        """Whatever is no piece of output: a wire struct, an event as it is, or nothing."""
        kind = type(wire)
        if (handle := self._HANDLERS.get(kind)) is not None:
            handle(self, wire, append)
        elif wire is not None:
            append(wire)
            self.ended = kind is Failed

    def _started(self, wire: MessageStart, append: _Append) -> None:
        message = wire.message
        name = str(message.id) if isinstance(message.id, int | float) else word(message.id)
        append(Started(name, word(message.model), neutral(message.usage, final=False)))
        # Programmatic tool calling sends all content here, in one piece: every guard is to see it.
        whole = False
        for index, body in enumerate(message.content if isinstance(message.content, list) else ()):
            try:
                block = msgspec.convert(_rawed(body), Block)
            except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
                block = Block(type=str(body.get("type") or "") if isinstance(body, dict) else "")
            if block.type == "text" and not block.text:
                continue  # an empty place for what will come
            whole = True
            self._block_started(BlockStart(index, block), append)
            self._block_stopped(BlockStop(index), append)
        if (reason := stop_reason(message.stop_reason)) is not None:
            self._stop_reason = reason
            if whole:
                usage = neutral(message.usage, final=True)
                append(Metered(usage, reason, word(message.stop_sequence)))

    def _block_started(self, wire: BlockStart, append: _Append) -> None:
        block, index = wire.content_block, wire.index
        kind = BLOCK_KINDS.get(block.type, "other")
        name = str(block.id) if isinstance(block.id, int | float) else word(block.id)
        append(BlockStarted(index, kind, block.type, word(block.name), name))
        if kind == "text" and (text := block.text):
            append(Delta(index, "text", text))
        elif kind == "thinking" and (text := block.thinking):
            append(Delta(index, "thinking", text))
        elif kind in ("tool_input", "server_tool"):
            self._inputs[index] = block.document()

    def _block_stopped(self, wire: BlockStop, append: _Append) -> None:
        # A tool whose input came whole with its start, or who takes none: then the document is `{}`, as in the SDK.
        if self._inputs and (document := self._inputs.pop(wire.index, None)) is not None:
            append(Delta(wire.index, "tool_input", document))
        append(BlockStopped(wire.index))

    def _metered(self, wire: MessageDelta, append: _Append) -> None:
        delta = wire.delta if isinstance(wire.delta, dict) else {}
        reason = stop_reason(delta.get("stop_reason"))
        self._stop_reason = reason or self._stop_reason
        append(Metered(neutral(wire.usage, final=True), reason, word(delta.get("stop_sequence"))))

    def _stopped(self, wire: MessageStop, append: _Append) -> None:
        # Some servers count here only; Bedrock always does.
        for usage in (neutral(wire.usage, final=True), invocation(wire.metrics)):
            if usage != Usage():
                append(Metered(usage))
        append(Stopped(self._stop_reason))
        self._over = True

    def _late(self, name: bytes, data: bytes | dict[str, Any]) -> Event:
        """What comes after the message's own end. Nothing there voids the answer, and only a count still matters."""
        wire: object = data
        if isinstance(data, bytes):
            try:
                wire = json.loads(data)
            except (ValueError, RecursionError):
                wire = data.decode("utf-8", "replace")
        if not isinstance(wire, dict):
            return Other(END_MARK if wire == END_MARK else name.decode("utf-8", "replace"))
        kind = word(wire.get("type")) or name.decode("utf-8", "replace")
        if kind == "ping" or not kind:
            return Ping()
        usage = neutral(wire.get("usage"), final=True)
        return Other(kind) if usage == Usage() else Metered(usage)

    def _pinged(self, wire: PingWire, append: _Append) -> None:  # noqa: ARG002
        append(Ping())

    def _unnamed(self, wire: BlockDelta, append: _Append) -> None:
        append(Other(str(type(wire.delta).__struct_config__.tag), wire.index))

    _HANDLERS: ClassVar[dict[type, Callable[[Translator, Any, _Append], None]]] = {
        BlockStart: _block_started,
        BlockStop: _block_stopped,
        MessageStart: _started,
        MessageDelta: _metered,
        MessageStop: _stopped,
        PingWire: _pinged,
        BlockDelta: _unnamed,
    }

    def _unusual(self, name: bytes, data: bytes) -> Any:
        """A frame the typed decoder refused: an event, a wire struct, or `None` for a frame that says nothing.

        Its reasons: types yet to be invented; lone surrogates (`"\\ud83d"`, half an emoji, is JSON that msgspec
        refuses); a missing type; wrong types; no JSON.
        """
        if not data:
            return None
        try:
            # `NaN` in a field that nobody needs voids no answer; a tool's input is judged by its own text.
            wire = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as reason:
            return self._no_output(name, data) or self._undecodable(name, "is no JSON", reason, data)
        if not isinstance(wire, dict):
            if isinstance(wire, list) and any(isinstance(one, dict) and one.get("error") for one in wire):
                return failures.from_body(wire, status=200)
            return self._no_output(name, data) or self._undecodable(name, "is no JSON object", None, data)
        return self._typed(wire, name, data)

    def _no_output(self, name: bytes, data: bytes) -> _Aside | None:
        """A frame that is no event and carries nothing that was generated; `None` if it may carry something.

        End marks and heartbeats: `[DONE]`, `ping`, `0`. What is meant as one of the known events is none of them, and
        neither is the beginning of an object, which may be an event that was cut.
        """
        said = data.strip()
        if said == END_MARK.encode():
            self._done = True
            return _Aside(Other(END_MARK))
        if not _is_text(said):
            return None
        label = name.decode("utf-8", "replace")
        if label in TYPES or (not label and b"{" in said) or (label and said[:1] == b"{"):
            return None
        self._passed_over = said.decode()
        return _Aside(Other(label) if label else Ping())

    def _typed(self, wire: dict[str, Any], name: bytes, data: bytes) -> Any:
        """A parsed event as `_unusual` returns it."""
        kind, index = word(wire.get("type")), wire.get("index")
        if isinstance(index, float | str) and (number := count(index)) is not None:
            index, wire = number, {**wire, "index": number}
            self._mended = json.dumps(wire).encode()
        label = name.decode("utf-8", "replace")
        if kind is None:
            if failures.is_error(wire) and (label not in TYPES or wire.get("error")):
                return failures.from_body(wire, status=200)
            if not label:
                if _OUTPUT & wire.keys():
                    return self._undecodable(name, "has no type", None, data)
                self._passed_over = wire
                return _Aside(Ping())
            kind, wire = label, {**wire, "type": label}
            self._mended = json.dumps(wire).encode()
        if kind == "error" or (kind not in TYPES and wire.get("error")):
            return failures.from_body(wire, status=200)
        at = index if type(index) is int else None
        if kind not in TYPES:
            self._passed_over = wire
            return Other(kind, at)
        inner: object = wire.get(INNER.get(kind, ""))
        if isinstance(inner, dict) and isinstance(of := inner.get("type"), str) and at is not None:
            if kind == "content_block_delta":
                if of not in DELTA_TYPES:
                    return Other(of, at)
                known = KNOWN_FIELDS.get(of, ())
                if inner.get(known[-1]) is None:
                    return Other(of, at)  # an empty piece
                inner = {name: value for name, value in inner.items() if name in known}
                wire = {"type": kind, "index": at, "delta": inner}
            if kind == "content_block_start" and of not in BLOCK_KINDS:
                return BlockStarted(at, "other", of)
            wire = {**wire, INNER[kind]: _rawed(inner)}
        try:
            return msgspec.convert(wire, Wire)
        except (msgspec.ValidationError, UnicodeEncodeError) as reason:
            # The latter for half an emoji in a name or a type.
            return self._undecodable(name, "has a field of a wrong type", reason, data)
        except RecursionError:
            return self._undecodable(name, "is nested too deeply", None, data)

    def _undecodable(self, name: bytes, what: str, reason: Exception | None, data: bytes) -> Failed:
        label = f" ({name.decode('utf-8', 'replace')})" if name else ""
        # Not the exception's own text where it quotes the data: the excerpt is the one place for that.
        why = f", {reason}" if reason is not None and not isinstance(reason, UnicodeDecodeError) else ""
        if isinstance(reason, UnicodeDecodeError):
            why = f", no UTF-8 at byte {reason.start}"
        return failures.undecodable(f"event {self._seen - 1}{label} of the stream {what}{why}", data)


class _Aside(msgspec.Struct, frozen=True, gc=False):
    """A frame that is no event of the message: what to say of it, and nothing to keep."""

    event: Event


_OUTPUT: Final = frozenset({"delta", "content_block", "index"})
"""Fields of events that carry output: an object with one of them is no heartbeat."""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rawed(block: object) -> object:
    """A parsed block as `Block` takes it."""
    if not isinstance(block, dict) or "input" not in block:
        return block
    return {**block, "input": msgspec.Raw(json.dumps(block["input"]).encode())}


def _error(data: bytes) -> Failed:
    """An event called `error`, whose data some servers leave as text."""
    try:
        body: object = json.loads(data)
    except (ValueError, RecursionError):
        body = data.decode("utf-8", "backslashreplace")
    return failures.from_body(body, status=200)
