"""Who may look at the live view, and who may act: a table of requests."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard import ConfigError
from streamguard.view.access import checked_token, is_loopback, refused

TOKEN = "0123456789abcdef"
HERE = {"host": "127.0.0.1:8788"}
ACT = {"x-streamguard": "view"}


def asked(method: str, headers: dict[str, str], client: Any = ("127.0.0.1", 4711)) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/state", "headers": pairs, "client": client}


@pytest.mark.parametrize(
    ("method", "headers", "client", "status"),
    [
        ("GET", HERE, ("127.0.0.1", 1), None),
        ("GET", {"host": "localhost"}, ("127.0.0.1", 1), None),
        ("GET", {"host": "LOCALHOST.:80"}, ("::1", 1), None),
        ("GET", {"host": "[::1]:8788"}, ("::ffff:127.0.0.1", 1), None),
        ("GET", HERE, ("127.8.9.1", 1), None),
        ("GET", HERE, ("192.168.1.7", 1), 403),
        ("GET", HERE, ("testclient", 1), 403),
        ("GET", HERE, None, 403),
        ("GET", {}, ("127.0.0.1", 1), 403),
        ("GET", {"host": "evil.example"}, ("127.0.0.1", 1), 403),
        ("GET", {"host": "127.0.0.1.evil.example"}, ("127.0.0.1", 1), 403),
        ("GET", {"host": "localhost.evil.example"}, ("127.0.0.1", 1), 403),
        ("GET", {"host": "x@evil.example"}, ("127.0.0.1", 1), 403),
        ("GET", {"host": "[::1"}, ("127.0.0.1", 1), 403),
        ("POST", HERE, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT, ("127.0.0.1", 1), None),
        ("POST", HERE | ACT | {"origin": "http://127.0.0.1:8788"}, ("127.0.0.1", 1), None),
        ("POST", HERE | ACT | {"origin": "http://127.0.0.1:9999"}, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT | {"origin": "http://evil.example"}, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT | {"origin": "null"}, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT | {"sec-fetch-site": "cross-site"}, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT | {"sec-fetch-site": "same-site"}, ("127.0.0.1", 1), 403),
        ("POST", HERE | ACT | {"sec-fetch-site": "same-origin"}, ("127.0.0.1", 1), None),
        ("DELETE", HERE, ("127.0.0.1", 1), 403),
        ("OPTIONS", HERE, ("127.0.0.1", 1), 403),
    ],
)
def test_without_a_token(method: str, headers: Any, client: Any, status: int | None) -> None:
    """Without a token this machine alone may look, under its own name alone; acts come from the view's own page."""
    refusal = refused(asked(method, headers, client), None, public=False)
    assert (None if refusal is None else refusal.status) == status


@pytest.mark.parametrize(
    ("method", "headers", "public", "status"),
    [
        ("GET", {}, True, None),
        ("GET", {}, False, 401),
        ("GET", {"authorization": f"Bearer {TOKEN}"}, False, None),
        ("GET", {"authorization": f"bearer  {TOKEN}"}, False, None),
        ("GET", {"authorization": f"Bearer {TOKEN}x"}, False, 401),
        ("GET", {"authorization": "Bearer "}, False, 401),
        ("GET", {"authorization": TOKEN}, False, 401),
        ("GET", {"authorization": f"Basic {TOKEN}"}, False, 401),
        ("GET", {"cookie": f"token={TOKEN}"}, False, 401),
        ("GET", {"authorization": "Bearer ä"}, False, 401),
        ("POST", {"authorization": f"Bearer {TOKEN}"}, False, 403),
        ("POST", {"authorization": f"Bearer {TOKEN}"} | ACT, False, None),
        ("POST", ACT, False, 401),
        ("POST", ACT, True, None),
    ],
)
def test_with_a_token(method: str, headers: Any, public: bool, status: int | None) -> None:
    """With a token anybody who knows it may look, from anywhere; the page's own files are open."""
    refusal = refused(asked(method, {"host": "jobs.example"} | headers, ("203.0.113.9", 1)), TOKEN, public=public)
    assert (None if refusal is None else refusal.status) == status


@pytest.mark.parametrize("token", ["", "short", "0123456789 abcdef", "0123456789abcdeä", "0123456789abcde\n"])
def test_no_token(token: str) -> None:
    """A token that is short, or cannot stand in a header, is refused before anything listens."""
    with pytest.raises(ConfigError, match="at least 16 printable ASCII characters"):
        checked_token(token)
    assert checked_token(None) is None
    assert checked_token(TOKEN) == TOKEN


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *(("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("::ffff:127.0.0.1", True)),
        *(
            ("0.0.0.0", False),
            ("::", False),
            ("10.0.0.1", False),
            ("example.org", False),
            ("", False),
            ("127.1", False),
        ),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    """What is this machine's own, and what only looks like it."""
    assert is_loopback(host) is own
