"""What the client takes of other libraries, so that a new version of theirs fails here, with a sentence."""

from __future__ import annotations

import h11
import httpcore2

CHANGED = "{} of {} is not what streamguard.http.client builds on; look at the release, then at http/client.py"


def test_h11_says_what_came_behind_an_answer() -> None:
    """`trailing_data` is how bytes of somebody else's answer are noticed, `their_state` how its end is."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEVIL")
    kinds = [type(connection.next_event()) for _ in range(3)]
    assert kinds == [h11.Response, h11.Data, h11.EndOfMessage], CHANGED.format("next_event", "h11")
    assert connection.their_state is h11.DONE, CHANGED.format("their_state", "h11")
    assert connection.trailing_data == (b"EVIL", False), CHANGED.format("trailing_data", "h11")


def test_httpcore_has_the_errors_that_failures_are_told_by() -> None:
    """The classification goes by these, and by where they are defined."""
    for name, base in {
        "ConnectError": httpcore2.NetworkError,
        "ReadError": httpcore2.NetworkError,
        "WriteError": httpcore2.NetworkError,
        "RemoteProtocolError": httpcore2.ProtocolError,
        "LocalProtocolError": httpcore2.ProtocolError,
    }.items():
        found = getattr(httpcore2, name, None)
        assert found is not None, CHANGED.format(name, "httpcore2")
        assert issubclass(found, base), CHANGED.format(name, "httpcore2")
        assert found.__module__.startswith("httpcore2"), CHANGED.format(name, "httpcore2")
