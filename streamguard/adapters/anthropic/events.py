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
from streamguard.adapters.sse.decoder import Frame
from streamguard.events import (
    BlockKind,
    BlockStarted,
    BlockStopped,
    Delta,
    DeltaKind,
    Event,
    Failed,
    Iteration,
    Metered,
    Other,
    Ping,
    Started,
    Stopped,
    Usage,
)
from streamguard.files.strict_json import no_constant

BLOCK_KINDS: dict[str, BlockKind] = {
    "text": "text",
    "thinking": "thinking",
    "redacted_thinking": "thinking",
    "tool_use": "tool_input",
    "server_tool_use": "server_tool",
    "mcp_tool_use": "server_tool",
}
"""The provider's block types; every other one is `other`."""


MOST_TOKENS: Final = 1_000_000_000
"""The largest count that is believed: a thousand times the largest context window."""


def _count(tokens: int | None) -> int | None:
    """A count of tokens; one that cannot be true is unknown."""
    return tokens if tokens is not None and 0 <= tokens <= MOST_TOKENS else None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _WireCounts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None

    @property
    def impossible(self) -> bool:
        """Whether a count cannot be true."""
        lifetimes = self.cache_creation or _CacheCreation()
        return any(
            count is not None and _count(count) is None
            for count in (
                *(self.input_tokens, self.output_tokens, self.cache_creation_input_tokens),
                *(self.cache_read_input_tokens, lifetimes.ephemeral_1h_input_tokens),
            )
        )

    def counts(self) -> dict[str, int | None]:
        """The counts that every sampling has, in neutral words."""
        by_lifetime = self.cache_creation or _CacheCreation()
        return {
            "input_tokens": _count(self.input_tokens),
            "output_tokens": _count(self.output_tokens),
            "cache_read_tokens": _count(self.cache_read_input_tokens),
            "cache_write_tokens": _count(self.cache_creation_input_tokens),
            "cache_write_1h_tokens": _count(by_lifetime.ephemeral_1h_input_tokens),
        }


class WireIteration(_WireCounts):
    """One entry of `usage.iterations`."""

    type: str = ""
    model: str | None = None

    def neutral(self) -> Iteration:
        """In neutral words."""
        return Iteration(type=self.type, model=self.model, **self.counts())


class WireUsage(_WireCounts):
    """`usage` of `message_start` and of `message_delta`."""

    output_tokens_details: _OutputDetails | None = None
    # Of any form: a server's own idea of them must not end a stream that is sound otherwise.
    server_tool_use: Any = None
    inference_geo: Any = None
    speed: Any = None
    service_tier: Any = None
    iterations: Any = None

    def neutral(self, *, final: bool) -> Usage:
        """In neutral words. The output count of `message_start` is a placeholder: not `final`, so it is left out."""
        counts = self.counts()
        details = self.output_tokens_details or _OutputDetails()
        return Usage(
            **{**counts, "output_tokens": counts["output_tokens"] if final else None},
            thinking_tokens=_count(details.thinking_tokens) if final else None,
            web_searches=_whole(self.server_tool_use.get("web_search_requests"))
            if isinstance(self.server_tool_use, dict)
            else None,
            inference_geo=_word(self.inference_geo),
            speed=_word(self.speed),
            service_tier=_word(self.service_tier),
            impossible=self.impossible,
            iterations=_iterations(self.iterations),
        )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return _count(value) if type(value) is int else None


def _iterations(value: object) -> tuple[Iteration, ...] | None:
    """The samplings of an answer; one without counts stands for what cannot be read."""
    if not value:
        return None
    try:
        return tuple(one.neutral() for one in msgspec.convert(value, list[WireIteration]))
    except msgspec.ValidationError:
        return (Iteration(type="unreadable"),)


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: WireUsage | None = None


class _MessageStart(msgspec.Struct, tag="message_start"):
    message: _Message


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")

    def __post_init__(self) -> None:
        self.document()  # a raw value is not checked when it is decoded: what is no UTF-8 is refused here

    def document(self) -> str:
        return bytes(self.input).decode()


class _BlockStart(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: _Block


# A piece with fields that we do not know is none of the plain ones: nothing of it may be lost.
class _TextDelta(msgspec.Struct, tag="text_delta", gc=False, forbid_unknown_fields=True):
    text: str


class _InputJsonDelta(msgspec.Struct, tag="input_json_delta", gc=False, forbid_unknown_fields=True):
    partial_json: str


class _ThinkingDelta(msgspec.Struct, tag="thinking_delta", gc=False, forbid_unknown_fields=True):
    thinking: str


class _SignatureDelta(msgspec.Struct, tag="signature_delta", gc=False):
    signature: str


class _CitationsDelta(msgspec.Struct, tag="citations_delta", gc=False):
    pass


_AnyDelta = _TextDelta | _InputJsonDelta | _ThinkingDelta | _SignatureDelta | _CitationsDelta


class _BlockDelta(msgspec.Struct, tag="content_block_delta", forbid_unknown_fields=True):
    index: int
    delta: _AnyDelta


class _BlockStop(msgspec.Struct, tag="content_block_stop", gc=False):
    index: int


class _StopDelta(msgspec.Struct):
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _MessageDelta(msgspec.Struct, tag="message_delta"):
    delta: _StopDelta | None = None
    usage: WireUsage | None = None


class _MessageStop(msgspec.Struct, tag="message_stop"):
    pass


class _Ping(msgspec.Struct, tag="ping"):
    pass


class _Error(msgspec.Struct, tag="error"):
    error: Any = None
    request_id: Any = None


_Wire = _BlockDelta | _BlockStart | _BlockStop | _MessageStart | _MessageDelta | _MessageStop | _Ping | _Error


def _tags(union: Any) -> frozenset[str]:
    return frozenset(struct.__struct_config__.tag for struct in union.__args__)


_TYPES: Final = _tags(_Wire)
_DELTA_TYPES: Final = _tags(_AnyDelta)
_INNER: Final = {"content_block_delta": "delta", "content_block_start": "content_block"}
_PIECES: Final[dict[type, tuple[DeltaKind, str]]] = {
    _TextDelta: ("text", "text"),
    _InputJsonDelta: ("tool_input", "partial_json"),
    _ThinkingDelta: ("thinking", "thinking"),
}
_KNOWN: Final = {struct.__struct_config__.tag: ("type", *struct.__struct_fields__) for struct in _AnyDelta.__args__}
_decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(_Wire).decode

Kept = Delta | tuple[bytes, Event | None]
"""What came, for whoever needs more than neutral words: a plain piece of output as the very `Delta` that was made of it
(it says all there was), anything else as its data and the last event made of it."""

_Append = Callable[[Event], None]


class Translator:
    """Translates one stream. After a `Failed` it says nothing more."""

    __slots__ = ("_inputs", "_seen", "_stop_reason", "ended", "kept")

    def __init__(self) -> None:
        # The initial input of open tool blocks that have not sent a piece of JSON yet.
        self._inputs: dict[int, str] = {}
        self._stop_reason: str | None = None
        self._seen = 0
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
            before = len(events)
            wire: Any
            try:
                wire = _decode(data) if name != b"error" else _error(data)
            except (ValueError, RecursionError):
                wire = self._unusual(name, data)
                if type(wire) is _BlockDelta and type(wire.delta) in _PIECES:
                    events += self._piece(wire)
                    keep((data, events[-1] if len(events) > before else None))
                    continue
            # Pieces of output are nearly all of a stream, so they go no further than here.
            if type(wire) is _BlockDelta:
                delta: Any = wire.delta
                piece: type = type(delta)
                event: Delta
                if piece is _TextDelta:
                    if text := delta.text:
                        append(event := Delta(wire.index, "text", text))
                        keep(event)
                        continue
                elif piece is _InputJsonDelta:
                    if text := delta.partial_json:
                        if self._inputs:
                            self._inputs.pop(wire.index, None)
                        append(event := Delta(wire.index, "tool_input", text))
                        keep(event)
                        continue
                elif piece is _ThinkingDelta:
                    if text := delta.thinking:
                        append(event := Delta(wire.index, "thinking", text))
                        keep(event)
                        continue
                else:
                    append(Other(str(delta.__struct_config__.tag), wire.index))
            elif type(wire) is _Ping:
                append(Ping())
                continue
            else:
                self._take(wire, append)
                if self.ended:
                    break
            if data:
                keep((data, events[-1] if len(events) > before else None))
        return events

    def translate_object(self, event: dict[str, Any]) -> list[Event]:
        """The same for one event that has been parsed already."""
        events: list[Event] = []
        if not self.ended:
            self._seen += 1
            wire = self._typed(event, b"", repr(event).encode("utf-8", "backslashreplace"))
            if type(wire) is _BlockDelta and type(wire.delta) in _PIECES:
                return self._piece(wire)
            self._take(wire, events.append)
        return events

    def _piece(self, wire: _BlockDelta) -> list[Event]:
        kind, field = _PIECES[type(wire.delta)]
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

    def _started(self, wire: _MessageStart, append: _Append) -> None:
        usage = wire.message.usage.neutral(final=False) if wire.message.usage else Usage()
        append(Started(wire.message.id, wire.message.model, usage))

    def _block_started(self, wire: _BlockStart, append: _Append) -> None:
        block, index = wire.content_block, wire.index
        kind = BLOCK_KINDS.get(block.type, "other")
        append(BlockStarted(index, kind, block.type, block.name, block.id))
        if kind == "text" and block.text:
            append(Delta(index, "text", block.text))
        elif kind == "thinking" and block.thinking:
            append(Delta(index, "thinking", block.thinking))
        elif kind in ("tool_input", "server_tool"):
            self._inputs[index] = block.document()

    def _block_stopped(self, wire: _BlockStop, append: _Append) -> None:
        # A tool whose input came whole with its start, or who takes none: then the document is `{}`, as in the SDK.
        if self._inputs and (document := self._inputs.pop(wire.index, None)) is not None:
            append(Delta(wire.index, "tool_input", document))
        append(BlockStopped(wire.index))

    def _metered(self, wire: _MessageDelta, append: _Append) -> None:
        usage = wire.usage.neutral(final=True) if wire.usage else Usage()
        delta = wire.delta or _StopDelta()
        self._stop_reason = delta.stop_reason or self._stop_reason
        append(Metered(usage, delta.stop_reason, delta.stop_sequence))

    def _stopped(self, wire: _MessageStop, append: _Append) -> None:  # noqa: ARG002
        append(Stopped(self._stop_reason))

    def _pinged(self, wire: _Ping, append: _Append) -> None:  # noqa: ARG002
        append(Ping())

    def _unnamed(self, wire: _BlockDelta, append: _Append) -> None:
        append(Other(str(type(wire.delta).__struct_config__.tag), wire.index))

    def _failed(self, wire: _Error, append: _Append) -> None:
        append(failures.from_body({"error": wire.error, "request_id": wire.request_id}, status=200))
        self.ended = True

    _HANDLERS: ClassVar[dict[type, Callable[[Translator, Any, _Append], None]]] = {
        _BlockStart: _block_started,
        _BlockStop: _block_stopped,
        _MessageStart: _started,
        _MessageDelta: _metered,
        _MessageStop: _stopped,
        _Ping: _pinged,
        _BlockDelta: _unnamed,
        _Error: _failed,
    }

    def _unusual(self, name: bytes, data: bytes) -> Any:
        """A frame the typed decoder refused: an event, a wire struct, or `None` for a frame that says nothing.

        Its reasons: types yet to be invented; lone surrogates (`"\\ud83d"`, half an emoji, is JSON that msgspec
        refuses); a missing type; wrong types; no JSON.
        """
        if not data:
            return None
        try:
            wire = json.loads(data.decode("utf-8"), parse_constant=no_constant)
        except (ValueError, RecursionError) as reason:
            return self._undecodable(name, "is no JSON", reason, data)
        if not isinstance(wire, dict):
            return self._undecodable(name, "is no JSON object", None, data)
        return self._typed(wire, name, data)

    def _typed(self, wire: dict[str, Any], name: bytes, data: bytes) -> Any:
        """A parsed event as `_unusual` returns it."""
        if "type" not in wire:
            if "error" in wire:
                return failures.from_body(wire, status=200)
            wire = {**wire, "type": name.decode("utf-8", "replace")}
        kind, index = wire["type"], wire.get("index")
        if not isinstance(kind, str) or not kind:
            return self._undecodable(name, "has no type", None, data)
        at = index if type(index) is int else None
        if kind not in _TYPES:
            return Other(kind, at)
        inner: object = wire.get(_INNER.get(kind, ""))
        if isinstance(inner, dict) and isinstance(of := inner.get("type"), str) and at is not None:
            if kind == "content_block_delta":
                if of not in _DELTA_TYPES:
                    return Other(of, at)
                known = _KNOWN.get(of, ())
                inner = {name: value for name, value in inner.items() if name in known}
                wire = {"type": kind, "index": at, "delta": inner}
            if kind == "content_block_start" and of not in BLOCK_KINDS:
                return BlockStarted(at, "other", of)
            if "input" in inner:
                inner = {**inner, "input": msgspec.Raw(json.dumps(inner["input"]).encode())}
                wire = {**wire, _INNER[kind]: inner}
        try:
            return msgspec.convert(wire, _Wire)
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


def _error(data: bytes) -> Failed:
    """An event called `error`, whose data some servers leave as text."""
    try:
        body: object = json.loads(data)
    except (ValueError, RecursionError):
        body = data.decode("utf-8", "backslashreplace")
    return failures.from_body(body, status=200)
