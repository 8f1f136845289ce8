"""What an attempt's script says, and when: a plain reading of the wire, apart from the package's own.

In charge of playing a script to its end without waiting, and of reading what comes as the Messages API writes it: HTTP
head, compression, lines, JSON, protocol. Everything is a `Said` with its moment. It judges nothing but whether the
bytes mean something.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from streamguard.testing import play
from streamguard.testing.steps import Item

Kind = Literal[
    "wait",
    "head",
    "bytes",
    "start",
    "open",
    "delta",
    "close",
    "usage",
    "stop",
    "ping",
    "other",
    "failed",
    "broken",
    "raw",
    "end",
]

REASONS: dict[str, str] = {
    "overloaded_error": "provider.overloaded",
    "rate_limit_error": "provider.rate_limited",
    "api_error": "provider.api_error",
    "timeout_error": "provider.timeout",
    "invalid_request_error": "provider.invalid_request",
    "authentication_error": "provider.authentication",
    "permission_error": "provider.permission",
    "not_found_error": "provider.not_found",
    "request_too_large": "provider.request_too_large",
    "billing_error": "provider.billing",
}
"""The API's error types, as its documentation lists them."""

_BY_STATUS = {
    400: "provider.invalid_request",
    401: "provider.authentication",
    403: "provider.permission",
    404: "provider.not_found",
    413: "provider.request_too_large",
    429: "provider.rate_limited",
    503: "provider.overloaded",
    504: "provider.timeout",
    529: "provider.overloaded",
}
STOP_WORDS = {
    "length": "max_tokens",
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""What OpenAI calls the ends of answers, in the API's words."""

TRANSPORT = ("transport.reset", "transport.connect", "transport.incomplete", "transport.decode")
_PIECES = {"text_delta": ("text", "text"), "thinking_delta": ("thinking", "thinking")}
_PIECES["input_json_delta"] = ("tool_input", "partial_json")


_EVENTS = (
    *("message_start", "message_delta", "message_stop", "ping", "error"),
    *("content_block_start", "content_block_delta", "content_block_stop"),
)


class Said(NamedTuple):
    """One thing that happens in an attempt."""

    time: float
    """Seconds from the attempt's start. Of a wait: when it ends."""
    number: int
    """Of the event, from 0: bytes and waits have that of the event to come."""
    kind: Kind
    about: Any = None


class Answer(NamedTuple):
    """The head of a response that is no stream of events."""

    reasons: tuple[str, ...]
    retry_after: float | None = None
    billable: bool = True
    message: dict[str, Any] | None = None
    """The whole message, where one came as JSON instead of a stream."""


def _in_one_piece(now: float, message: dict[str, Any]) -> Iterator[Said]:
    """What a whole message says, as a stream would have said it."""
    number = 0

    def said(kind: Kind, about: Any = None) -> Said:
        nonlocal number
        number += 1
        return Said(now, number - 1, kind, about)

    yield said("start", message.get("usage") or {})
    for kind, about in _content(message):
        yield said(kind, about)
    yield said("usage", (message.get("stop_reason"), message.get("usage") or {}, message.get("stop_sequence")))
    yield said("stop")
    yield said("end")


def _content(message: dict[str, Any]) -> Iterator[tuple[Kind, Any]]:
    """What the blocks of a whole message say."""
    for index, block in enumerate(message.get("content") or ()):
        yield "open", (index, block["type"], block)
        for field, what in (("text", "text"), ("thinking", "thinking"), ("input", "tool_input")):
            if block.get(field):
                text = block[field] if isinstance(block[field], str) else json.dumps(block[field])
                yield "delta", (index, what, text)
        yield "close", index


def read(items: Sequence[Item], *, event_bytes: int) -> Iterator[Said]:
    """What happens in an attempt, lazily: a script may go on for ever."""
    reader = _Reader(event_bytes)
    now = anchor = 0.0
    for op in play.operations(items, sockets=True):
        until = now
        match op:
            case play.Wait() | play.Expect():
                until = now + (op.seconds if isinstance(op, play.Wait) else op.within)
            case play.Due():
                until = max(now, anchor + op.seconds)
            case play.Anchor():
                anchor = now
            case play.Head():
                answer = reader.head(op)
                yield Said(now, 0, "head")
                if answer is not None and answer.message is not None:
                    yield from _in_one_piece(now, answer.message)
                    return
                if answer is not None:
                    yield Said(now, 0, "failed", answer)
                    return
            case play.Write():
                yield from reader.body(now, op.data)
            case play.Verbatim():
                # Whatever it is, it breaks off; nobody knows what was read of it.
                yield Said(now, reader.number, "raw", TRANSPORT)
                return
            case play.Stop():
                yield from reader.end(now, op.how)
                return
        if until > now:
            yield Said(until, reader.number, "wait", now)
            now = until
        if reader.over or now == float("inf"):
            return


def read_opened(items: Sequence[Item], *, event_bytes: int) -> Iterator[Said]:
    """The same for somebody who is handed the stream when its head has come."""
    head: float | None = None
    for said in read(items, event_bytes=event_bytes):
        if said.kind in ("head", "raw"):
            head = said.time
        if head is not None:
            about = said.about - head if said.kind == "wait" else said.about
            yield said._replace(time=said.time - head, about=about)


class _Reader:
    """Bytes → what they say."""

    def __init__(self, event_bytes: int) -> None:
        self.number = 0
        self.over = False
        self._limit = event_bytes
        self._line = b""
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0
        self._skip_line_feed = False
        self._begun = False
        self._inflate: Any = None
        self._eof = False
        self._head = False
        self._id: str | None = None
        self._blocks = self._stopped = False
        self._words = False
        """Whether something was passed over that may have been a gateway's words."""

    def head(self, op: play.Head) -> Answer | None:
        headers = {name.lower(): value for name, value in op.headers}
        self._head, self._eof = True, op.framing == "eof"
        if headers.get("content-encoding") == "gzip":
            self._inflate = zlib.decompressobj(wbits=31)
        if op.code == 200 and op.body is None:
            return None
        try:
            # An event as a body is read as one.
            body = json.loads((op.body or b"").rpartition(b"data:")[2])
        except ValueError:
            body = None
        if op.code == 200 and isinstance(body, dict) and body.get("type") == "message":
            return Answer((), message=body)
        reasons = error_reasons(body, op.code)
        said = headers.get("retry-after", "")
        refused = op.code in (400, 401, 402, 403, 404, 413, 429, 503, 529)
        return Answer(reasons, float(said) if said.isdigit() else None, billable=not refused)

    def body(self, now: float, data: bytes) -> Iterator[Said]:
        if self._inflate is not None:
            data = self._inflate.decompress(data)
        yield Said(now, self.number, "bytes")
        for byte in _split(data):
            yield from self._part(now, byte)
            if self.over:
                return

    def _part(self, now: float, part: bytes) -> Iterator[Said]:
        """A piece of a line, or a line's end."""
        if part == b"\n" and self._skip_line_feed:
            self._skip_line_feed = False
            return
        self._skip_line_feed = part == b"\r"
        if part not in (b"\n", b"\r"):
            self._line += part
            if len(self._line) > self._limit:
                yield from self._too_large(now)
            return
        line, self._line = self._line, b""
        if not self._begun:
            line, self._begun = line.removeprefix(b"\xef\xbb\xbf"), True
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
                self._size += len(value)
            elif name == b"event":
                self._name = value
            if self._size > self._limit:
                yield from self._too_large(now)
            return
        data, name = b"\n".join(self._data), self._name
        there, self._data, self._name, self._size = bool(self._data), [], b"", 0
        if there:
            yield from self._event(now, name, data)

    def _too_large(self, now: float) -> Iterator[Said]:
        self.over = True
        yield Said(now, self.number, "failed", Answer(("transport.event_too_large",)))

    def _event(self, now: float, name: bytes, data: bytes) -> Iterator[Said]:
        number = self.number
        if name == b"ping" or not data:
            if name == b"ping":
                self.number += 1
                yield Said(now, number, "ping")
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        kind = event.get("type") if isinstance(event, dict) else None
        if isinstance(event, dict) and not kind and name.decode("latin-1") in _EVENTS:
            kind = name.decode("latin-1")
        self.number += 1
        if self._stopped and kind not in ("message_delta", "ping"):
            yield Said(now, number, "other")  # the answer is final
        elif name == b"error" or kind == "error" or (not kind and _is_error(event)):
            self.over = True
            yield Said(now, number, "failed", Answer(error_reasons(event, 200)))
        elif not isinstance(event, dict) and name.decode("latin-1") not in _EVENTS and b"{" not in data:
            self._words = self._words or b" " in data.strip()
            yield Said(now, number, "other")  # a heartbeat, or another protocol's end mark
        elif not kind and isinstance(event, dict):
            self._words = self._words or "message" in event
            yield Said(now, number, "other")
        elif not isinstance(event, dict):
            self.over = True
            yield Said(now, number, "failed", Answer(("transport.decode",)))
        else:
            yield from self._said(now, number, str(kind), event)

    def _said(self, now: float, number: int, kind: str, event: dict[str, Any]) -> Iterator[Said]:
        index = event.get("index")
        match kind:
            case "message_start":
                own = event["message"].get("id")
                if own and own == self._id and not self._blocks:
                    yield Said(now, number, "other")  # said again
                    return
                self._id = own
                yield from self._started(now, number, event["message"])
            case "content_block_start":
                self._blocks = True
                yield Said(now, number, "open", (index, event["content_block"]["type"], event["content_block"]))
            case "content_block_delta":
                what, field = _PIECES.get(event["delta"]["type"], ("", ""))
                if what and event["delta"][field]:
                    yield Said(now, number, "delta", (index, what, event["delta"][field]))
                elif not what:
                    yield Said(now, number, "other")
            case "content_block_stop":
                yield Said(now, number, "close", index)
            case "message_delta":
                delta = event["delta"]
                reason = STOP_WORDS.get(delta.get("stop_reason"), delta.get("stop_reason"))
                yield Said(now, number, "usage", (reason, event.get("usage") or {}, delta.get("stop_sequence")))
            case "message_stop":
                if event.get("usage"):
                    yield Said(now, number, "usage", (None, event["usage"], None))
                    self.number = number = number + 1
                self._stopped = True
                yield Said(now, number, "stop")
            case "ping":
                yield Said(now, number, "ping")
            case _:
                yield Said(now, number, "other")

    def _started(self, now: float, number: int, message: dict[str, Any]) -> Iterator[Said]:
        """A start, and the content that it may hold already."""
        yield Said(now, number, "start", message.get("usage") or {})
        more: list[tuple[Kind, Any]] = list(_content(message))
        if more:
            self._blocks = True
            ends = message.get("stop_reason"), message.get("usage") or {}, message.get("stop_sequence")
            for kind, about in [*more, ("usage", ends)]:
                number += 1
                yield Said(now, number, kind, about)
            self.number = number + 1

    def end(self, now: float, how: str) -> Iterator[Said]:
        whole = how == "end" or (self._eof and how != "rst")
        if not self._head:
            yield Said(now, self.number, "broken", TRANSPORT)
        elif self._inflate is not None and not self._inflate.eof:
            # Cut before the compression's own end: seen as that, or as a stream that ended early.
            yield Said(now, self.number, "broken", TRANSPORT)
        elif not whole:
            yield Said(now, self.number, "broken", ("transport.reset",))
        else:
            # What was passed over may be the reason of the end; how much of a sentence it is, is not read here.
            yield Said(now, self.number, "end", ("transport.incomplete", "provider.api_error") if self._words else None)


def _split(data: bytes) -> Iterator[bytes]:
    """Line ends, and what stands between them."""
    begin = 0
    for at, byte in enumerate(data):
        if byte in b"\r\n":
            if at > begin:
                yield data[begin:at]
            yield data[at : at + 1]
            begin = at + 1
    if begin < len(data):
        yield data[begin:]


def _is_error(event: Any) -> bool:
    """Whether an object without a type is an error, in the forms that gateways have."""
    return isinstance(event, dict) and any(event.get(name) for name in ("error", "errors", "detail"))


def error_reasons(body: Any, status: int) -> tuple[str, ...]:
    """What an error body, or a body that is none, may be called."""
    if isinstance(body, dict):
        given = [body.get(name) for name in ("error", "errors", "detail", "message") if body.get(name)]
        found = given[0] if given else None
        error = next(iter(found), None) if isinstance(found, list) else found
        if isinstance(error, str):
            error = {"message": error}
    else:
        error = None
    if not isinstance(error, dict):
        if status == 200:
            return ("transport.decode", "provider.api_error")
        return (_BY_STATUS.get(status, "provider.api_error" if status >= 500 else "provider.invalid_request"),)
    code = (error.get("details") or {}).get("error_code") or ""
    if code.endswith("spend_limit_reached") or "usage limits" in (error.get("message") or ""):
        return ("provider.spend_limit",)
    kind = error.get("type") or ""
    told = str(error.get("code") or "")
    if status == 200 and told.isdigit():
        status = int(told)
    if status in (401, 403, 429) or (status in _BY_STATUS and kind in ("", "api_error", "server_error")):
        return (_BY_STATUS[status],)
    return (REASONS.get(kind, _BY_STATUS.get(status, "provider.api_error")),)
