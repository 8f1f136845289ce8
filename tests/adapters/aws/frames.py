"""AWS event streams, made by the specification: messages, chunks and exceptions."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from typing import Any
from zlib import crc32

from streamguard.adapters.sse.decoder import Decoder

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nx-amzn-RequestId: req_aws\r\n"


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message with text headers."""
    head = b"".join(
        bytes([len(name.encode())]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    body = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return body + struct.pack(">I", crc32(body))


def chunk(data: bytes, padding: str = "abcdefgh") -> bytes:
    """One event of the Messages API."""
    payload = json.dumps({"bytes": base64.b64encode(data).decode(), "p": padding}).encode()
    return message({":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}, payload)


def exception(name: str, **fields: Any) -> bytes:
    """An exception inside the stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps(fields).encode())


def error(code: str, words: str) -> bytes:
    """An error of the stream itself, which has no payload."""
    return message({":message-type": "error", ":error-code": code, ":error-message": words}, b"")


def of_sse(frames: Iterable[bytes]) -> list[bytes]:
    """The same events as Bedrock sends them."""
    return [chunk(data) for _, data in Decoder().feed(b"".join(frames))]
