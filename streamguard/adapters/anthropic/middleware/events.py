"""What a stream kept → the SDK's own event objects.

In charge of objects that are equal to the ones the SDK makes of the same bytes, but where its accumulator would break
or would invent a tool's input: there they are mended. The SDK validates each event against a
union of models, which is most of what its streams cost. Pieces of output, nearly all of a stream, are built here
without that: what is in them was checked when they were decoded. Everything else goes the SDK's own way.

How a model's instance is laid out is pydantic's affair, so it is looked at once: where one built here is not the same
as the SDK's, or the SDK's own way is not where it was, the models' public `construct` is used instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from streamguard.adapters.anthropic.events import Kept
from streamguard.adapters.anthropic.stop_reasons import stop_reason
from streamguard.events import CUTS, Delta, DeltaKind
from streamguard.files.strict_json import is_object

Make = Callable[[int, str], Any]
"""A block's index and a piece of its output → the event."""

Parse = Callable[[dict[str, Any]], Any]
"""An event's parsed JSON → the event."""

_SET: Final = object.__setattr__

FIELDS: Final[dict[DeltaKind, tuple[str, str]]] = {
    "text": ("text_delta", "text"),
    "tool_input": ("input_json_delta", "partial_json"),
    "thinking": ("thinking_delta", "thinking"),
}
"""Kind of output → the wire's word for the delta, and the field of the text."""

NAMES: Final = {
    "message_start": "RawMessageStartEvent",
    "message_delta": "RawMessageDeltaEvent",
    "message_stop": "RawMessageStopEvent",
    "content_block_start": "RawContentBlockStartEvent",
    "content_block_delta": "RawContentBlockDeltaEvent",
    "content_block_stop": "RawContentBlockStopEvent",
}
"""Event type → the SDK's class."""


class SdkEvents:
    """Makes the SDK's events of one stream.

    :param beta: for `client.beta.messages`, which has classes of its own.
    :param parse: the SDK's own way from parsed JSON to an event; `None` for the public one.
    """

    __slots__ = ("_calls", "_make", "_mended", "_parse", "_waiting")

    def __init__(self, *, beta: bool, parse: Parse | None = None) -> None:
        self._parse = parse or _constructed(beta)
        self._make = {kind: _direct(kind, self._parse) for kind in FIELDS}
        self._mended = Mended()
        # The pieces of open tool blocks: they go out with the block's end, when it is known what they make.
        self._calls: dict[int, list[_Held]] = {}
        self._waiting: list[_Held] = []
        """What waits for them, in order."""

    def of(self, kept: Sequence[Kept]) -> list[Any]:
        """The events of what was kept, in order."""
        make, parse, moved, calls, waiting = self._make, self._parse, self._mended.moved, self._calls, self._waiting
        out: list[Any] = []
        for at, item in enumerate(kept):
            if type(item) is Delta:
                if calls and item.index in calls:
                    self._hold(item.index, item)
                    continue
                index = moved.get(item.index, item.index) if moved else item.index
                made = make[item.kind](index, item.text)
            else:
                event = self._mended.event(json.loads(item[0]))  # type: ignore[index]
                place, kind = event.get("index"), event.get("type")
                if kind == "content_block_start" and event["content_block"].get("type") in CALLS:
                    calls[place] = []  # type: ignore[index]  # a number, or no block was begun
                elif kind == "content_block_delta" and place in calls:
                    self._hold(place, event)
                    continue
                made = parse(self._mended.placed(event))
                if kind == "content_block_stop" and place in calls:
                    waiting.append(_Held(events=[made]))
                    self._settle(place, calls.pop(place), cut=_is_cut(kept[at + 1 :]))
                    out += self._ready()
                    continue
            if waiting:
                waiting.append(_Held(events=[made]))
            else:
                out.append(made)
        return out

    def _hold(self, index: int, piece: Delta | dict[str, Any]) -> None:
        held = _Held(piece=piece)
        self._calls[index].append(held)
        self._waiting.append(held)

    def _ready(self) -> list[Any]:
        """What waits no longer."""
        out: list[Any] = []
        waiting = self._waiting
        settled = next((n for n, held in enumerate(waiting) if held.events is None), len(waiting))
        for held in waiting[:settled]:
            out += held.events or ()
        del waiting[:settled]
        return out

    def _settle(self, index: int, pieces: list[_Held], *, cut: bool) -> None:
        """Make the events of a tool's input. One that is no JSON object is handed on as a JSON text: the SDK's
        accumulator would make a part of it, or `{}`, and a loop would call the tool with that."""
        place = self._mended.moved.get(index, index)
        text = "".join(held.piece.text for held in pieces if type(held.piece) is Delta)
        whole = is_object(text) or (not text and not cut)
        for held in pieces:
            piece = held.piece
            if not whole or piece is None:
                held.events = []
            elif isinstance(piece, Delta):
                held.events = [self._make[piece.kind](place, piece.text)]
            else:
                held.events = [self._parse(self._mended.placed(piece))]
        if not whole:
            told = self._make["tool_input"](place, json.dumps(text))
            last = pieces[-1] if pieces else self._waiting[-1]
            last.events = [told, *(last.events or ())]


class _Held:
    """What waits for the end of a tool's block: a piece of its input, or events behind one."""

    __slots__ = ("events", "piece")

    def __init__(self, *, piece: Delta | dict[str, Any] | None = None, events: list[Any] | None = None) -> None:
        self.piece = piece
        self.events = events


CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""Blocks whose input the SDK's accumulator parses."""


def _is_cut(rest: Sequence[Kept]) -> bool:
    """Whether the message says next that it was cut off."""
    for item in rest:
        event = {} if type(item) is Delta else json.loads(item[0])  # type: ignore[index]
        if event.get("type") == "message_delta":
            delta = event.get("delta")
            return isinstance(delta, dict) and stop_reason(delta.get("stop_reason")) in CUTS
    return False


class Mended:
    """Makes events of servers that leave fields out into events that the SDK's accumulator can take.

    It reads fields that the API always sends, takes a block's index for its place in the list, and lets a later
    `message_delta` wipe the stop reason. An event that has everything stays as it is.
    """

    __slots__ = ("_blocks", "_known", "_output", "moved")

    def __init__(self) -> None:
        self.moved: dict[int, int] = {}
        """Index → the block's place in the SDK's list, where it is another."""
        self._blocks = 0
        self._output = 0
        self._known: dict[str, Any] = {}

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with what the SDK needs of it; its index is the server's."""
        kind = event.get("type")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            return self._started(event, event["message"])
        if kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            return self._block(event, event["content_block"])
        if kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
            field = _PIECE_FIELDS.get(str(delta.get("type")))
            if field is not None and delta.get(field) is None:
                return {**event, "delta": {**delta, field: ""}}
        if kind == "message_delta":
            return self._ended(event)
        return event

    def placed(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with the index that its block has in the SDK's list."""
        index = event.get("index")
        return {**event, "index": self.moved[index]} if index in self.moved else event

    def _started(self, event: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        lacks: dict[str, Any] = {} if isinstance(message.get("content"), list) else {"content": []}
        self._blocks = len(message["content"]) if not lacks else 0
        usage = message.get("usage")
        told = usage if isinstance(usage, dict) else {}
        if (counts := {name: 0 for name in ("input_tokens", "output_tokens") if told.get(name) is None}) or not told:
            lacks["usage"] = {**told, **counts}
        self._output = told.get("output_tokens") or 0
        return {**event, "message": {**message, **lacks}} if lacks else event

    def _block(self, event: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        index, place = event.get("index"), self._blocks
        self._blocks += 1
        if isinstance(index, int) and index != place:
            self.moved[index] = place
        needs = _NEEDS.get(str(block.get("type")), {})
        lacks = {name: value for name, value in needs.items() if block.get(name) is None}
        return {**event, "content_block": {**block, **lacks}} if lacks else event

    def _ended(self, event: dict[str, Any]) -> dict[str, Any]:
        delta, usage = event.get("delta"), event.get("usage")
        said = delta if isinstance(delta, dict) else {}
        known = {name: value for name, value in self._known.items() if said.get(name) is None}
        self._known |= {name: said[name] for name in _REASONS if said.get(name) is not None}
        lacks: dict[str, Any] = {"delta": {**said, **known}} if known or not isinstance(delta, dict) else {}
        told = usage if isinstance(usage, dict) else {}
        if told.get("output_tokens") is None:
            lacks["usage"] = {**told, "output_tokens": self._output}
        else:
            self._output = told["output_tokens"]
        return {**event, **lacks} if lacks else event


_REASONS: Final = ("stop_reason", "stop_sequence", "stop_details")
_PIECE_FIELDS: Final = {**dict(FIELDS.values()), "signature_delta": "signature"}
"""Deltas that the SDK appends to a block: their text."""

_NEEDS: Final[dict[str, dict[str, Any]]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    **{kind: {"input": {}} for kind in CALLS},
}
"""What the SDK reads of a block's start."""


def _types(beta: bool) -> tuple[Any, str]:
    if beta:
        from anthropic.types import beta as types

        return types, "Beta"
    from anthropic import types as plain

    return plain, ""


def _constructed(beta: bool) -> Parse:
    """The public way: the class by the event's type; the SDK, too, takes the first of its union for unknown ones."""
    types, prefix = _types(beta)
    classes = {kind: getattr(types, prefix + name) for kind, name in NAMES.items()}
    other = classes["message_start"]

    def parse(data: dict[str, Any]) -> Any:
        return classes.get(data.get("type", ""), other).construct(**data)

    return parse


def _direct(kind: DeltaKind, parse: Parse) -> Make:
    """A function that builds the events of one kind of output, after the pattern of one that the SDK has made."""
    word, field = FIELDS[kind]

    def parsed(index: int, text: str) -> Any:
        return parse({"type": "content_block_delta", "index": index, "delta": {"type": word, field: text}})

    pattern = parsed(0, "")
    new = object.__new__
    try:
        event_class, delta_class = type(pattern), type(pattern.delta)
        event_fields, delta_fields = dict(pattern.__dict__), dict(pattern.delta.__dict__)
        event_set, delta_set = set(pattern.model_fields_set), set(pattern.delta.model_fields_set)
    except AttributeError:
        return parsed

    def make(index: int, text: str) -> Any:
        delta = new(delta_class)
        _SET(delta, "__dict__", {**delta_fields, field: text})
        _SET(delta, "__pydantic_fields_set__", delta_set.copy())
        _SET(delta, "__pydantic_extra__", {})
        _SET(delta, "__pydantic_private__", None)
        event = new(event_class)
        _SET(event, "__dict__", {**event_fields, "index": index, "delta": delta})
        _SET(event, "__pydantic_fields_set__", event_set.copy())
        _SET(event, "__pydantic_extra__", {})
        _SET(event, "__pydantic_private__", None)
        return event

    try:
        return make if _layout(make(3, "a")) == _layout(parsed(3, "a")) else parsed
    except (AttributeError, TypeError):
        return parsed


def _layout(event: Any) -> list[Any]:
    """Everything that an instance consists of."""
    return [
        (
            type(one),
            [(name, value) for name, value in one.__dict__.items() if name != "delta"],
            one.__pydantic_fields_set__,
            one.__pydantic_extra__,
            one.__pydantic_private__,
        )
        for one in (event, event.delta)
    ]
