"""What a body of status 200 is: an event stream, a whole message, an error, or something else.

In charge of looking at a body's first bytes, since labels lie: event streams come as `text/plain`, `application/json`
or `application/octet-stream`, and errors and pages come as `text/event-stream`. A server that ignores `stream: true`
answers with the message in one piece, which is handed on as the event stream that it would have been.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from streamguard.adapters.anthropic import failures
from streamguard.events import Failed
from streamguard.redaction import EXCERPT_BYTES

Kind = Literal["unknown", "stream", "text"]

_BOM: Final = b"\xef\xbb\xbf"
_FIELDS: Final = (b"event", b"data", b"id", b"retry", b":")
_LINE_END: Final = re.compile(rb"[\r\n]")
_BLANK: Final = _BOM + b" \t\r\n"
_SOON: Final = 65_536
"""Bytes of a body in one piece that is tried whenever it may be complete: its connection may stay open."""


class Opening:
    """The beginning of one body. Feed it until it says what the body is.

    :param label: the media type that the answer claims, in lower case.
    :param limit: the most bytes of a body in one piece.
    """

    __slots__ = ("_data", "_headers", "_label", "_limit", "kind")

    def __init__(self, label: str, headers: Mapping[str, str], limit: int) -> None:
        self.kind: Kind = "unknown"
        self._data = b""
        self._label = label
        self._headers = headers
        self._limit = limit

    @property
    def labelled(self) -> bool:
        """Whether the answer claims to be an event stream, or claims nothing."""
        return self._label in ("", "text/event-stream")

    def feed(self, data: bytes) -> bytes | Failed | None:
        """Take some more of the body.

        :returns: bytes of an event stream; what the body means, if it is none; `None` while more is needed.
        """
        self._data += data
        if self.kind == "unknown":
            self.kind = self._seen()
        if self.kind == "stream":
            taken, self._data = self._data, b""
            return taken
        most = self._limit if self._data.lstrip(_BLANK)[:1] in (b"{", b"[") else EXCERPT_BYTES
        if len(self._data) > most:
            return self.end()
        complete = self.kind == "text" and len(self._data) < _SOON and self._data.rstrip().endswith((b"}", b"]"))
        return self._parsed() if complete else None

    def end(self) -> bytes | Failed | None:
        """The body has ended: what it means; `None` for a stream of which nothing came."""
        if self.labelled and not self._data.strip():
            return None
        found = self._parsed()
        if found is not None:
            return found
        what = f"the answer is {self._label or 'of no type'}, no event stream"
        request_id = self._headers.get("request-id")
        return failures.undecodable(what, self._data, limit=EXCERPT_BYTES, request_id=request_id)

    def _seen(self) -> Kind:
        said = self._data.removeprefix(_BOM).lstrip()
        if not said or _BOM.startswith(self._data):
            return "unknown"
        if said[:1] in (b"{", b"[", b"<"):
            return "text"
        if self.labelled:
            return "stream"  # any other field, too, may be part of one
        if said[:1] == b":":
            return "stream"
        line = _LINE_END.split(said, maxsplit=1)[0]
        field, colon, _ = line.partition(b":")
        if (colon or len(line) < len(said)) and field.strip() in _FIELDS:
            return "stream"
        may_come = not colon and line == said and any(name.startswith(said) for name in _FIELDS)
        return "unknown" if may_come else "text"

    def _parsed(self) -> bytes | Failed | None:
        try:
            body = json.loads(self._data)
        except (ValueError, RecursionError):
            return None
        if isinstance(body, dict) and is_message(body):
            return b"".join(as_stream(body))
        first = body[0] if isinstance(body, list) and body else body
        if isinstance(first, dict) and (first.get("type") == "error" or failures.is_error(first, alone=True)):
            return failures.from_body(body, status=200, headers=self._headers)
        return None


def is_message(body: Mapping[str, Any]) -> bool:
    """Return whether a JSON body is a whole message of the API."""
    whole = isinstance(body.get("content"), list) and isinstance(body.get("stop_reason"), str)
    return body.get("type") == "message" and body.get("role") == "assistant" and whole


def as_stream(message: Mapping[str, Any]) -> Iterator[bytes]:
    """Give the event stream of a whole message, frame by frame."""
    usage = message.get("usage") if isinstance(message.get("usage"), dict) else {}
    ends = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in message}
    begun = {**message, "content": [], **dict.fromkeys(ends)}
    yield _frame("message_start", message={**begun, "usage": {**usage, "output_tokens": 1} if usage else {}})
    for index, block in enumerate(message["content"]):
        body = block if isinstance(block, dict) else {"type": "unknown"}
        opened, deltas = _split(body)
        yield _frame("content_block_start", index=index, content_block=opened)
        for delta in deltas:
            yield _frame("content_block_delta", index=index, delta=delta)
        yield _frame("content_block_stop", index=index)
    yield _frame("message_delta", delta=ends, usage=usage)
    yield _frame("message_stop")


def _split(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and the pieces that make the rest of it."""
    kind = block.get("type")
    if kind == "text" and isinstance(text := block.get("text"), str):
        return {**block, "text": ""}, [{"type": "text_delta", "text": text}]
    if kind == "thinking" and isinstance(text := block.get("thinking"), str):
        signature = {"type": "signature_delta", "signature": block.get("signature")}
        signed = [signature] if block.get("signature") else []
        return {**block, "thinking": "", "signature": ""}, [{"type": "thinking_delta", "thinking": text}, *signed]
    if kind in ("tool_use", "server_tool_use", "mcp_tool_use") and "input" in block:
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    return block, []


def _frame(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
