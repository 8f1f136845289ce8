"""The first bytes of an answer: an event stream, a whole message, an error, or something else that is told as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.adapters.anthropic.opening import Opening
from streamguard.events import Failed

ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "try later"}}
STREAM = b'event: ping\ndata: {"type": "ping"}\n\n'


def told(label: str, body: bytes, width: int) -> Any:
    """What an opening says of a body, in pieces: bytes of a stream, or the reason and the provider's words."""
    opening = Opening(label, {}, 1 << 20)
    passed = b""
    for at in range(0, len(body), width):
        found = opening.feed(body[at : at + width])
        if isinstance(found, Failed):
            return found.reason, found.message
        passed += found or b""
    if opening.kind == "stream":
        return passed
    found = opening.end()
    return (found.reason, found.message) if isinstance(found, Failed) else (found if found is None else bytes(found))


@pytest.mark.parametrize("width", [1, 5, 1000])
@pytest.mark.parametrize(
    ("label", "body", "expected"),
    [
        ("text/event-stream", STREAM, STREAM),
        ("", STREAM, STREAM),
        ("text/plain", STREAM, STREAM),
        ("application/json", b"\xef\xbb\xbf" + STREAM, b"\xef\xbb\xbf" + STREAM),
        ("text/event-stream", b"", None),
        ("text/event-stream", b" \r\n", None),
        ("application/json", json.dumps(ERROR).encode(), ("provider.overloaded", "try later")),
        ("text/event-stream", json.dumps(ERROR).encode(), ("provider.overloaded", "try later")),
        (
            "text/html",
            b"<html><h1>502 Bad Gateway</h1></html>",
            ("transport.decode", "the answer is text/html, no event stream"),
        ),
        (
            "application/json",
            b'{"type": "mess',
            ("transport.decode", "the answer is application/json, no event stream"),
        ),
        ("text/event-stream", b'{"hello": 1', ("transport.decode", "the answer is text/event-stream, no event stream")),
    ],
)
def test_what_an_answer_begins_with(label: str, body: bytes, expected: Any, width: int) -> None:
    """Whatever its type claims and however it is cut; what is none of these keeps its beginning in the message."""
    found = told(label, body, width)
    if isinstance(expected, tuple):
        assert (found[0], found[1][: len(expected[1])]) == expected
        assert body.decode()[:10].strip('{"') in found[1] or expected[0] != "transport.decode"
    else:
        assert found == expected
