"""What a stream kept → the SDK's own event objects.

In charge of objects that are equal to the ones the SDK makes of the same bytes. The SDK validates each event against a
union of models, which is most of what its streams cost. Pieces of output, nearly all of a stream, are built here
without that: what is in them was checked when they were decoded. Everything else goes the SDK's own way.

How a model's instance is laid out is pydantic's affair, so it is looked at once: where one built here is not the same
as the SDK's, or the SDK's own way is not where it was, the models' public `construct` is used instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from streamguard.adapters.anthropic.events import Kept
from streamguard.events import Delta, DeltaKind

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

    __slots__ = ("_make", "_parse")

    def __init__(self, *, beta: bool, parse: Parse | None = None) -> None:
        self._parse = parse or _constructed(beta)
        self._make = {kind: _direct(kind, self._parse) for kind in FIELDS}

    def of(self, kept: Iterable[Kept]) -> list[Any]:
        """The events of what was kept, in order."""
        make, parse = self._make, self._parse
        return [
            make[item.kind](item.index, item.text) if type(item) is Delta else parse(json.loads(item[0]))  # type: ignore[index]
            for item in kept
        ]


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
