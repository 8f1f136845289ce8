"""What came in one stream → the provider's own message, as a dict.

In charge of the message that a caller of the SDK would have got: the same values as `messages.stream()` accumulates,
citations, signatures and blocks yet to be invented included. It is made of what the translator keeps, when somebody
asks: until then a message costs next to nothing. It judges nothing: whether the stream was sound is for others.

Where it is more careful than the SDK: a tool's input is parsed once, strictly, and only if its block was closed. An
input that is no JSON object, or that a cut answer ends with, is handed on as the text that came, as `input` and as
`partial_json`: a plausible part of an input never looks like one, and no loop can call a tool with a text. A later
`message_delta` that has only counts takes no stop reason away. Deltas without a place of their own stand in the block
as a list called `deltas`, as they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from streamguard.adapters.anthropic.events import Kept
from streamguard.adapters.anthropic.stop_reasons import stop_reason
from streamguard.adapters.anthropic.usage import COUNTS, count
from streamguard.events import CUTS, Delta
from streamguard.files.strict_json import no_constant

PIECES: Final = {
    "text_delta": ("text", ("text",)),
    "thinking_delta": ("thinking", ("thinking",)),
    "input_json_delta": ("partial_json", ("tool_use", "server_tool_use", "mcp_tool_use")),
}
"""Deltas that are pieces of one string: their field, and the blocks that take them."""

_TYPES: Final[dict[str, str]] = {"text": "text_delta", "thinking": "thinking_delta", "tool_input": "input_json_delta"}
"""The deltas of our three kinds."""


class _Piece(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = -1
    delta: _Piece | None = None


_decode: Final = msgspec.json.Decoder(_Event).decode


class _Block:
    """A block under construction."""

    __slots__ = ("body", "closed", "pieces")

    def __init__(self, body: dict[str, Any], *, closed: bool = False) -> None:
        self.body = body
        self.pieces: list[str] = []
        self.closed = closed

    def finished(self) -> dict[str, Any]:
        """The block with its pieces in place."""
        text = "".join(self.pieces)
        kind = self.body.get("type")
        if kind == "tool_use":
            return self._call(text)
        if not text:
            return self.body
        if kind in ("text", "thinking"):
            return {**self.body, kind: (self.body.get(kind) or "") + text}
        try:
            if self.closed:
                return {**self.body, "input": json.loads(text, parse_constant=no_constant)}
        except (ValueError, RecursionError):
            pass  # what is no JSON is handed on as the text it is
        return {**self.body, "partial_json": text}

    def _call(self, text: str) -> dict[str, Any]:
        """A call of the caller's own tool, in a form that can be run only if its input is whole."""
        if not text:
            given = self.body.get("input")
            if given is None:
                return {**self.body, "input": {}}
            return self.body if isinstance(given, dict) else {**self.body, "partial_json": json.dumps(given)}
        try:
            value = json.loads(text, parse_constant=no_constant) if self.closed else None
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return {**self.body, "input": value}
        return {**self.body, "input": text, "partial_json": text}

    @property
    def bare(self) -> bool:
        """Whether it is a call whose input never came."""
        return self.body.get("type") == "tool_use" and not any(self.pieces) and not self.body.get("input")


class Assembly:
    """The message that one stream makes.

    :param kept: what came so far, as a `Translator` keeps it; it may grow.
    """

    __slots__ = ("_kept",)

    def __init__(self, kept: list[Kept]) -> None:
        self._kept = kept

    def message(self) -> dict[str, Any] | None:
        """The message so far; `None` before it started."""
        return assembled(item if isinstance(item, Delta) else item[0] for item in self._kept)


def assembled(events: Iterable[Delta | bytes | dict[str, Any]]) -> dict[str, Any] | None:
    """The message that the stream's events make, given as JSON, parsed or in our words. What is no event is passed
    over; what comes after the message's end is no part of it."""
    message: dict[str, Any] | None = None
    blocks: dict[int, _Block] = {}
    for event in events:
        if type(event) is Delta:
            of = _TYPES[event.kind]
            block = blocks.get(event.index)
            if block is not None:
                if block.body.get("type") in PIECES[of][1]:
                    block.pieces.append(event.text)
                else:
                    _extend(block, {"type": of, PIECES[of][0]: event.text})
            continue
        if isinstance(event, bytes):
            if _took_piece(event, blocks):
                continue
            try:
                parsed = json.loads(event.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                continue
        else:
            parsed = event
        if not isinstance(parsed, dict):
            continue
        if message is not None:
            if parsed.get("type") == "message_stop":
                _count(parsed, message)
                break
            if parsed.get("type") == "message_start" and not blocks:  # said again
                message, blocks = _begun(parsed, blocks) or (message, blocks)
                continue
            _add(parsed, message, blocks)
        elif parsed.get("type") == "message_start":
            message, blocks = _begun(parsed, blocks) or (None, blocks)
    if message is not None:
        content = [block.finished() for block in blocks.values()]
        last = next(reversed(blocks.values()), None)
        if last is not None and last.bare and stop_reason(message.get("stop_reason")) in CUTS:
            content[-1] = {**content[-1], "input": "", "partial_json": ""}
        message["content"] = content
    return message


def _begun(event: dict[str, Any], blocks: dict[int, _Block]) -> tuple[dict[str, Any], dict[int, _Block]] | None:
    """The message that a start makes, and the blocks that it has already; `None` for a start without a message."""
    if not isinstance(event.get("message"), dict):
        return None
    message = dict(event["message"])
    if isinstance(message.get("usage"), dict):
        message["usage"] = _counted(message["usage"])
    content = message.get("content")
    bodies = content if isinstance(content, list) else ()
    blocks = {index: _Block(_mapping(body), closed=True) for index, body in enumerate(bodies)}
    return message, blocks


def _took_piece(event: bytes, blocks: dict[int, _Block]) -> bool:
    """Whether the event was a piece of a string, which nearly all are: then its block has it now."""
    try:
        wire = _decode(event)
    except (ValueError, RecursionError):
        return False  # odd, but perhaps JSON all the same
    if wire.delta is None or wire.type != "content_block_delta" or wire.delta.type not in PIECES:
        return False
    field, takers = PIECES[wire.delta.type]
    piece, block = getattr(wire.delta, field), blocks.get(wire.index)
    if block is None or piece is None or block.body.get("type") not in takers:
        return False
    block.pieces.append(piece)
    return True


def _add(event: dict[str, Any], message: dict[str, Any], blocks: dict[int, _Block]) -> None:
    kind, index = event.get("type"), event.get("index")
    if kind == "message_delta":
        _update(event, message)
    elif not isinstance(index, int):
        return
    elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
        block = event["content_block"]
        blocks[index] = _Block(block)
        if block.get("type") == "fallback" and isinstance(block.get("to"), dict):
            # The last hop of a server-side fallback names the model that answers from here on.
            message["model"] = block["to"].get("model", message.get("model"))
    elif kind == "content_block_delta" and index in blocks and isinstance(event.get("delta"), dict):
        _extend(blocks[index], event["delta"])
    elif kind == "content_block_stop" and index in blocks:
        blocks[index].closed = True


def _extend(block: _Block, delta: dict[str, Any]) -> None:
    of, body = delta.get("type"), block.body
    field, takers = PIECES.get(of, ("", ())) if isinstance(of, str) else ("", ())
    if body.get("type") in takers and isinstance(delta.get(field), str):
        block.pieces.append(delta[field])
    elif of == "signature_delta" and body.get("type") == "thinking":
        body["signature"] = delta.get("signature")
    elif of == "citations_delta" and body.get("type") == "text":
        body["citations"] = [*(body.get("citations") or ()), delta.get("citation")]
    elif of == "compaction_delta" and body.get("type") == "compaction":
        body.update((name, delta.get(name)) for name in ("content", "encrypted_content"))
    else:
        body["deltas"] = [*body.get("deltas", ()), delta]


def _update(event: dict[str, Any], message: dict[str, Any]) -> None:
    """`message_delta`: whatever is given replaces; the end's reasons stand in the message, given or not."""
    delta = _mapping(event.get("delta"))
    for name in ("stop_reason", "stop_sequence", "stop_details"):
        if message.get(name) is None:
            message[name] = delta.get(name)
    message.update({name: value for name, value in delta.items() if value is not None})
    for name in ("context_management", "input_transformations"):
        if event.get(name) is not None:
            message[name] = event[name]
    _count(event, message)


def _count(event: dict[str, Any], message: dict[str, Any]) -> None:
    """Counts are cumulative: they replace and never add, and what is left out keeps the value of `message_start`. The
    message's end, where the API counts nothing, can only add to what was told."""
    before = _mapping(message.get("usage"))
    given = {name: value for name, value in _counted(event.get("usage")).items() if value is not None}
    if event.get("type") == "message_stop":
        given = {name: value for name, value in given.items() if name not in COUNTS or _grew(before.get(name), value)}
    if given or event.get("type") == "message_delta":
        message["usage"] = {**before, **given}


def _grew(before: object, value: object) -> bool:
    """Whether a count is one, and not lower than it was."""
    told = count(value)
    return told is not None and told >= (count(before) or 0)


def _counted(usage: object) -> dict[str, Any]:
    """`usage` with its counts as the numbers that they are, where a server wrote them otherwise."""
    told = _mapping(usage)
    known = {name: count(told[name]) for name in COUNTS if isinstance(told.get(name), str | float)}
    return {**told, **{name: value for name, value in known.items() if value is not None}}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
