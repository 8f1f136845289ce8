"""Messages API bytes: builders of SSE frames, in every spacing that servers are seen to send.

In charge of the wire form: one function per event, streams of a whole answer, and neutral events → bytes (the way back
of `adapters.anthropic_events`). It knows nothing of time, sockets and scripts.

Every builder gives one complete frame, so an answer is a list of frames that can be joined, cut and broken at will.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Failed,
    Metered,
    Other,
    Ping,
    Restarted,
    Started,
    Stopped,
    Usage,
)

MODEL = "claude-sonnet-5-5"
MESSAGE_ID = "msg_scripted"
TOOL_ID = "toolu_scripted"
INPUT_TOKENS = 12
"""Input of an answer whose usage is not given."""


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How the same event is spelled on the wire."""

    padded: bool = False
    """0 to 15 spaces before the last brace, as recorded on most models; how many depends on the event's own bytes."""
    spaced: bool = False
    """Spaces after `:` and `,` in the JSON, as some paths send it."""
    newline: bytes = b"\n"
    named: bool = True
    """Whether there is an `event:` line; the type stands in the JSON too."""
    space: bool = True
    """Whether a space follows the field's colon."""
    comment: bytes | None = None
    """A comment line before each frame, as keep-alives of proxies are."""


PLAIN = Style()
REAL = Style(padded=True)
"""As the API itself sends it."""
STYLES: dict[str, Style] = {
    "plain": PLAIN,
    "real": REAL,
    "spaced": Style(spaced=True),
    "crlf": Style(newline=b"\r\n"),
    "cr": Style(newline=b"\r"),
    "tight": Style(space=False),
    "commented": Style(comment=b"keep-alive"),
}
"""All of them mean the same."""

ERROR_STATUS: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that a response has whose body is an error of this type (https://platform.claude.com/docs/en/api/errors)."""


def frame(type: str, data: Mapping[str, Any] | bytes | str, style: Style = PLAIN) -> bytes:  # noqa: A002
    """One event. `data` is JSON to be, or bytes and text that are sent as they are, line by line."""
    if isinstance(data, str):
        body = data.encode("utf-8", "surrogatepass")
    elif isinstance(data, bytes):
        body = data
    else:
        body = _json(data, style)
    colon = b": " if style.space else b":"
    lines = [] if style.comment is None else [b":" + style.comment]
    if style.named:
        lines.append(b"event" + colon + type.encode())
    lines += [b"data" + colon + line for line in body.split(b"\n")]
    return style.newline.join([*lines, b"", b""])


def _json(data: Mapping[str, Any], style: Style) -> bytes:
    body = (
        json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if style.spaced
        else msgspec.json.encode(data)
    )
    return body[:-1] + b" " * (zlib.crc32(body) % 16) + b"}" if style.padded else body


def usage(counts: Usage | Mapping[str, Any] | None) -> dict[str, Any]:
    """The wire's `usage` of neutral counts; a mapping is taken as it is. What is unknown is left out."""
    if not isinstance(counts, Usage):
        return dict(counts or {})
    wire: dict[str, Any] = {
        "input_tokens": counts.input_tokens,
        "cache_creation_input_tokens": counts.cache_write_tokens,
        "cache_read_input_tokens": counts.cache_read_tokens,
        "output_tokens": counts.output_tokens,
    }
    wire = {name: value for name, value in wire.items() if value is not None}
    if counts.cache_write_1h_tokens is not None:
        hour = counts.cache_write_1h_tokens
        short = max(0, (counts.cache_write_tokens or 0) - hour)
        wire["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour}
    if counts.thinking_tokens is not None:
        wire["output_tokens_details"] = {"thinking_tokens": counts.thinking_tokens}
    return wire


def message_start(
    *,
    id: str | None = MESSAGE_ID,  # noqa: A002
    model: str | None = MODEL,
    usage: Usage | Mapping[str, Any] | None = None,
    placeholder: int = 1,
    style: Style = PLAIN,
) -> bytes:
    """`message_start`.

    :param usage: input counts; 12 input tokens unless given.
    :param placeholder: the output count that the API puts here; it means nothing (0, 1, 3, 5, 7 and 8 are recorded).
    """
    counts = _usage({"input_tokens": INPUT_TOKENS} if usage is None else usage)
    message: dict[str, Any] = {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"output_tokens": placeholder} | counts,
    }
    return frame("message_start", {"type": "message_start", "message": message}, style)


_usage = usage

_BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "redacted_thinking": {"data": "b3BhcXVl"},
    "tool_use": {"id": TOOL_ID, "name": "tool", "input": {}},
    "server_tool_use": {"id": "srvtoolu_scripted", "name": "web_search", "input": {}},
}


def block_start(index: int = 0, type: str = "text", *, style: Style = PLAIN, **fields: Any) -> bytes:  # noqa: A002
    """`content_block_start`; `fields` go into the block over what its type needs."""
    block = {"type": type} | _BLOCKS.get(type, {}) | fields
    return frame("content_block_start", {"type": "content_block_start", "index": index, "content_block": block}, style)


def block_stop(index: int = 0, *, style: Style = PLAIN) -> bytes:
    """`content_block_stop`."""
    return frame("content_block_stop", {"type": "content_block_stop", "index": index}, style)


def block_delta(index: int, delta: Mapping[str, Any], *, style: Style = PLAIN) -> bytes:
    """`content_block_delta` with any delta."""
    return frame("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}, style)


def text_delta(text: str, index: int = 0, *, style: Style = PLAIN) -> bytes:
    """A piece of text."""
    return block_delta(index, {"type": "text_delta", "text": text}, style=style)


def thinking_delta(thinking: str, index: int = 0, *, style: Style = PLAIN) -> bytes:
    """A piece of thinking."""
    return block_delta(index, {"type": "thinking_delta", "thinking": thinking}, style=style)


def signature_delta(signature: str = "c2lnbmVk", index: int = 0, *, style: Style = PLAIN) -> bytes:
    """The signature of a thinking block."""
    return block_delta(index, {"type": "signature_delta", "signature": signature}, style=style)


def input_json_delta(partial_json: str, index: int = 0, *, style: Style = PLAIN) -> bytes:
    """A piece of a tool's input. The first one on the wire is empty."""
    return block_delta(index, {"type": "input_json_delta", "partial_json": partial_json}, style=style)


def message_delta(
    stop_reason: str | None = "end_turn",
    *,
    stop_sequence: str | None = None,
    usage: Usage | Mapping[str, Any] | None = None,
    style: Style = PLAIN,
) -> bytes:
    """`message_delta`: cumulative usage (one output token unless given) and the stop reason."""
    data = {
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
        "usage": _usage({"output_tokens": 1} if usage is None else usage),
    }
    return frame("message_delta", data, style)


def message_stop(*, style: Style = PLAIN) -> bytes:
    """`message_stop`."""
    return frame("message_stop", {"type": "message_stop"}, style)


def ping() -> bytes:
    """A keep-alive, spaced as the API spaces it whatever the model."""
    return frame("ping", b'{"type": "ping"}')


def error_body(
    type: str,  # noqa: A002
    message: str = "",
    *,
    code: str | None = None,
    request_id: str | None = None,
) -> dict[str, Any]:
    """The JSON of an error, in a response or inside a stream. `code` is `error.details.error_code`."""
    details = None if code is None else {"error_code": code}
    body: dict[str, Any] = {
        "type": "error",
        "error": {"details": details, "type": type, "message": message or _said(type)},
    }
    return body if request_id is None else body | {"request_id": request_id}


def _said(type: str) -> str:  # noqa: A002
    return type.removesuffix("_error").replace("_", " ").capitalize()


def error(
    type: str = "overloaded_error",  # noqa: A002
    message: str = "",
    *,
    code: str | None = None,
    request_id: str | None = None,
    style: Style = PLAIN,
) -> bytes:
    """An `error` event inside a stream."""
    return frame("error", error_body(type, message, code=code, request_id=request_id), style)


def pieces(text: str, chunk: int) -> list[str]:
    """The text in pieces of `chunk` characters."""
    return [text[at : at + chunk] for at in range(0, len(text), chunk)]


def counted(characters: int) -> int:
    """Output tokens of an answer whose usage is not given: a token for every four characters begun, at least one."""
    return max(1, -(-characters // 4))


def text_stream(
    text: str,
    chunk: int = 4,
    stop_reason: str = "end_turn",
    *,
    usage: Usage | Mapping[str, Any] | None = None,
    style: Style = PLAIN,
) -> list[bytes]:
    """The frames of a complete text answer, ping included. `usage` is that of the closing `message_delta`."""
    return [
        message_start(style=style),
        block_start(0, "text", style=style),
        ping(),
        *(text_delta(piece, 0, style=style) for piece in pieces(text, chunk)),
        block_stop(0, style=style),
        *_end(stop_reason, usage, counted(len(text)), style),
    ]


def tool_stream(
    name: str,
    json_text: str,
    chunk: int = 4,
    stop_reason: str = "tool_use",
    *,
    preamble: str = "",
    usage: Usage | Mapping[str, Any] | None = None,
    style: Style = PLAIN,
) -> list[bytes]:
    """The frames of one tool call, with the empty first fragment; `preamble` is a text block before it."""
    index = 1 if preamble else 0
    before = [
        block_start(0, "text", style=style),
        *(text_delta(piece, 0, style=style) for piece in pieces(preamble, chunk)),
        block_stop(0, style=style),
    ]
    return [
        message_start(style=style),
        *(before if preamble else ()),
        block_start(index, "tool_use", name=name, style=style),
        ping(),
        input_json_delta("", index, style=style),
        *(input_json_delta(piece, index, style=style) for piece in pieces(json_text, chunk)),
        block_stop(index, style=style),
        *_end(stop_reason, usage, counted(len(preamble) + len(json_text)), style),
    ]


def thinking_then_text(
    thinking: str,
    text: str,
    chunk: int = 4,
    stop_reason: str = "end_turn",
    *,
    usage: Usage | Mapping[str, Any] | None = None,
    style: Style = PLAIN,
) -> list[bytes]:
    """The frames of a thinking block with its signature, then a text block. Some models leave `thinking` empty."""
    counts = Usage(output_tokens=counted(len(thinking) + len(text)), thinking_tokens=counted(len(thinking)))
    return [
        message_start(style=style),
        block_start(0, "thinking", style=style),
        ping(),
        *(thinking_delta(piece, 0, style=style) for piece in pieces(thinking, chunk)),
        signature_delta(style=style),
        block_stop(0, style=style),
        block_start(1, "text", style=style),
        *(text_delta(piece, 1, style=style) for piece in pieces(text, chunk)),
        block_stop(1, style=style),
        *_end(stop_reason, counts if usage is None else usage, 0, style),
    ]


def _end(stop_reason: str, usage: Usage | Mapping[str, Any] | None, tokens: int, style: Style) -> list[bytes]:
    counts = Usage(output_tokens=tokens) if usage is None else usage
    return [message_delta(stop_reason, usage=counts, style=style), message_stop(style=style)]


def _block_started(event: BlockStarted, style: Style) -> bytes:
    types = {"tool_input": "tool_use", "server_tool": "server_tool_use"}
    fields = {name: value for name, value in (("name", event.name), ("id", event.id)) if value is not None}
    return block_start(event.index, event.type or types.get(event.kind, event.kind), style=style, **fields)


_DELTAS: dict[str, Callable[..., bytes]] = {
    "text": text_delta,
    "thinking": thinking_delta,
    "tool_input": input_json_delta,
}


def _other(event: Other, style: Style) -> bytes:
    if event.index is not None:
        fields = {"signature": "c2lnbmVk"} if event.type == "signature_delta" else {}
        return block_delta(event.index, {"type": event.type, **fields}, style=style)
    return frame(event.type, {"type": event.type}, style)


def _failed(event: Failed, style: Style) -> bytes:
    return error(error_type(event), event.message, code=event.code, request_id=event.request_id, style=style)


def _restarted(event: Restarted, _: Style) -> bytes:
    raise ValueError(f"{event!r} has no wire form: it comes from the engine, never from a provider")


_ENCODERS: dict[type, Callable[[Any, Style], bytes]] = {
    Started: lambda event, style: message_start(id=event.id, model=event.model, usage=event.usage, style=style),
    BlockStarted: _block_started,
    Delta: lambda event, style: _DELTAS[event.kind](event.text, event.index, style=style),
    BlockStopped: lambda event, style: block_stop(event.index, style=style),
    Metered: lambda event, style: message_delta(
        event.stop_reason, stop_sequence=event.stop_sequence, usage=event.usage, style=style
    ),
    Stopped: lambda _, style: message_stop(style=style),
    Ping: lambda _, __: ping(),
    Other: _other,
    Failed: _failed,
    Restarted: _restarted,
}


def error_type(failed: Failed) -> str:
    """The provider's own word for a failure; `api_error` where the failure names none and its reason tells none."""
    if failed.type is not None:
        return failed.type
    from streamguard.adapters.anthropic.failures import TYPES

    return next((type_ for type_, reason in TYPES.items() if reason == failed.reason), "api_error")


def encode(event: Event, style: Style = PLAIN) -> bytes:
    """The frame of a neutral event.

    :raises ValueError: `Restarted`, which no provider sends.
    """
    return _ENCODERS[type(event)](event, style)


def assemble(frames: Iterable[bytes] | bytes) -> dict[str, Any]:
    """The JSON that the same answer has without streaming: a `message`, or the body of the `error` event.

    For streams of this module's making. A stream that ends early gives what there was.
    """
    from streamguard.adapters.sse.decoder import Decoder

    data = frames if isinstance(frames, bytes) else b"".join(frames)
    message: dict[str, Any] = {"id": MESSAGE_ID, "type": "message", "role": "assistant", "model": MODEL}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": {}}
    blocks: dict[int, dict[str, Any]] = {}
    for _, body in Decoder(max_event_bytes=1 << 30).feed(data):
        wire = _parsed(body)
        match wire.get("type") if isinstance(wire, dict) else None:
            case "error":
                return dict(wire)
            case "message_start":
                message |= wire["message"]
            case "content_block_start":
                blocks[wire["index"]] = wire["content_block"]
            case "content_block_delta" if wire["index"] in blocks:
                _grow(blocks[wire["index"]], wire["delta"])
            case "content_block_stop" if "partial_json" in (block := blocks.get(wire["index"], {})):
                block["input"] = _parsed(block.pop("partial_json") or "{}")
            case "message_delta":
                message |= wire["delta"]
                message["usage"] |= wire["usage"]
    return message | {"content": list(blocks.values())}


def _parsed(text: str | bytes) -> Any:
    """JSON; the text itself where it is none, as scripts of faults have it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _grow(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name in ("text", "thinking", "signature", "partial_json"):
        if name in delta:
            block[name] = block.get(name, "") + delta[name]
