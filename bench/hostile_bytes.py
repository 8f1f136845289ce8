"""Bytes for hostile hops: well-formed requests and upstream answers, what is spliced into them, and the mutants."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from typing import Final

from bench.siege import BODY, KEY, TOKENS, head
from streamguard.testing import wire

GOOD: Final = b"".join(one if isinstance(one, bytes) else b"" for one in wire.text_stream("fine"))
"""A whole answer as a stream."""

MODELS: Final = b'{"data":[{"type":"model","id":"m"}],"has_more":false}'
ERROR: Final = json.dumps(
    {"type": "error", "error": {"type": "overloaded_error", "message": f"no {KEY}"}, "request_id": "req_1"}
).encode()
MESSAGE: Final = (
    b'{"type":"message","id":"msg_1","role":"assistant","model":"m","content":[{"type":"text","text":"fine"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}'
)

SPLICES: Final = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"0", b"-1", b"99999999999999999999", b"{", b"[", b'"'),
    *(b"\\", b"\\ud83d", b"%0d%0a", b"..", b"//", b"%2e%2e%2f", b";", b",", b"\xc3\x28", b"\xef\xbb\xbf", b"1e308"),
    *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"host: b\r\n"),
    *(b"transfer-encoding: identity\r\n", b"content-length: +5\r\n", b"content-length: 0\r\n", b"trailer: x\r\n"),
    *(b"expect: 100-continue\r\n", b"connection: keep-alive, host\r\n", b"upgrade: h2c\r\n", b"x-a: " + b"a" * 9000),
    *(b"authorization: Bearer x\r\n", b"x-streamguard-policy: off\r\n", b"origin: null\r\n", b"te: trailers\r\n"),
    *(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0", b"HTTP/2.0", b"GET / HTTP/1.1\r\n"),
    *(
        b"event: error\n",
        b"event: ping\n",
        b"data: null\n\n",
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
        b"\n\n",
        b": x\n\n",
    ),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"5;a=b\r\nhello\r\n", b"fffffffff\r\n"),
    *(b"retry-after: 1e999\r\n", b"retry-after: 1795000000000\r\n", b"retry-after: -1\r\n", b"retry-after-ms: nan\r\n"),
    *(b"content-encoding: gzip\r\n", b"content-encoding: br\r\n", b"content-type: text/html\r\n"),
    *(b'"usage":{"output_tokens":-5}', b'"type":"error"', b'"index":-1', b'"stop_reason":null', KEY.encode()),
    *(b"set-cookie: a=b\r\n", b"location: http://x/\r\n", b"x-streamguard-refused: x\r\n", b"request-id: \xff\r\n"),
]


def chunked(data: bytes, size: int = 40) -> bytes:
    """A body in chunks, with its end."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(body: bytes, kind: str = "text/event-stream", status: str = "200 OK", *lines: str) -> bytes:
    """An upstream's answer with its length."""
    said = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *lines]
    return "\r\n".join([*said, "", ""]).encode() + body


def requests() -> list[bytes]:
    """What mutated requests are made of."""
    token, close = TOKENS["good"], "connection: close"
    packed = gzip.compress(BODY)
    healthy = head(None, method="GET", path="/healthz")
    return [
        head(token, close, length=len(BODY)) + BODY,
        head(token, close, "transfer-encoding: chunked") + chunked(BODY),
        head(token, close, "content-encoding: gzip", length=len(packed)) + packed,
        head(token, close, "expect: 100-continue", "anthropic-beta: a,b", length=len(BODY)) + BODY,
        head(token, length=len(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
        head(None, close, length=len(BODY)) + BODY,
        head(token, close, method="GET", path="/v1/models"),
        head(token, close, path="/v1/messages/count_tokens", length=len(BODY)) + BODY,
        head(token, close, path="/off/v1/messages?beta=true", length=len(BODY)) + BODY,
        head(None, close, method="GET", path="/_streamguard/state"),
        head(None, close, method="GET", path="/healthz"),
        head(TOKENS["bad"], close, method="GET", path="/metrics"),
        healthy + head(token, length=len(BODY)) + BODY + healthy,
    ]


def good_requests() -> list[bytes]:
    """Requests by which every way of answering meets a broken upstream."""
    token, close = TOKENS["good"], "connection: close"
    plain = BODY.replace(b"true", b"false")
    return [
        head(token, close, length=len(BODY)) + BODY,
        head(token, close, length=len(BODY)) + BODY,
        head(token, close, length=len(plain)) + plain,
        head(token, close, path="/off/v1/messages", length=len(BODY)) + BODY,
        head(token, close, path="/again/v1/messages", length=len(BODY)) + BODY,
        head(token, close, method="GET", path="/v1/models"),
        head(token, close, path="/v1/messages/count_tokens", length=len(BODY)) + BODY,
    ]


def answers() -> list[bytes]:
    """What mutated answers are made of."""
    head_of_stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    tool = b"".join(one for one in wire.tool_stream("t", '{"a": [1, "b"]}') if isinstance(one, bytes))
    packed, json_type = gzip.compress(GOOD), "application/json"
    return [
        answer(GOOD),
        answer(tool),
        head_of_stream + b"transfer-encoding: chunked\r\n\r\n" + chunked(GOOD, 100),
        head_of_stream + b"\r\n" + GOOD,
        answer(packed, "text/event-stream", "200 OK", "content-encoding: gzip"),
        answer(zlib.compress(GOOD), "text/event-stream", "200 OK", "content-encoding: deflate"),
        answer(MESSAGE, json_type),
        answer(MODELS, json_type, "200 OK", "request-id: req_1"),
        answer(ERROR, json_type, "529 Overloaded"),
        answer(ERROR, json_type, "429 Slow", "retry-after: 1"),
        answer(ERROR.replace(b"overloaded_error", KEY.encode()), json_type, "401 No", f"request-id: {KEY}"),
        answer(b"<h1>502</h1>" + KEY.encode(), "text/html", "502 Bad Gateway"),
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + answer(GOOD),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://x/" + KEY.encode() + b"\r\ncontent-length: 0\r\n\r\n",
        answer(GOOD + b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"late"}}\n\n'),
    ]


def mutant(chance: random.Random, seed: bytes) -> bytes:
    """A few changes at random places; half of them in the head, where the framing is."""
    data = bytearray(seed)
    end = max(1, seed.find(b"\r\n\r\n") + 4)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange((end if chance.random() < 0.5 else len(data)) + 1)
        match chance.randrange(7):
            case 0 | 1:
                data[at:at] = chance.choice(SPLICES)
            case 2:
                del data[at : at + chance.randint(1, 40)]
            case 3 if at < len(data):
                data[at] = chance.randrange(256)
            case 4:
                data[at:at] = data[at : at + chance.randint(1, 200)]
            case 5:
                # A splice where a line begins: it is read as a line.
                line = data.find(b"\r\n", at)
                data[line + 2 : line + 2] = chance.choice(SPLICES) if line >= 0 else b""
            case _:
                data = data[:at] if chance.random() < 0.3 else data
    return bytes(data)
