"""Framing: what is well-formed passes byte for byte however it is cut; what is not never does."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.http.framing import Framing
from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused

LIMITS = Limits(head_bytes=2048, target_bytes=512, body_bytes=4096, headers=20)
GET = b"GET /v1/models?limit=3 HTTP/1.1\r\nhost: [::1]:8787\r\naccept: */*\r\n\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"
)
OLD = b"POST /v1/messages HTTP/1.0\r\nhost: a\r\ncontent-length: 0\r\nx-empty:\r\nx-wide: caf\xe9\r\n\r\n"
ALL = GET + POST + CHUNKED + OLD + GET


def fed(data: bytes, width: int) -> tuple[bytes, str | None]:
    """What passes when `data` comes in pieces, and what is refused."""
    framing, passed = Framing(LIMITS), b""
    for at in range(0, len(data), width):
        try:
            passed += framing.feed(data[at : at + width])
        except Refused as refusal:
            assert framing.state == "dead"
            return passed + bytes(framing.passed), refusal.name
    return passed, None


@pytest.mark.parametrize("width", [*range(1, 20), 1000])
def test_what_is_well_formed_passes_byte_for_byte(width: int) -> None:
    """Five requests on one connection, in pieces of any size."""
    assert fed(ALL, width) == (ALL, None)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (b"GET /v1/models HTTP/1.1\r\nhost: a\n\r\n", "bad_line_end"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\rx: b\r\n\r\n", "bad_line_end"),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\tb\r\n\r\n", "folded_header"),
        (CHUNKED.replace(b"5\r\n", b"5;x\r\n"), "bad_chunk"),
        (CHUNKED.replace(b"hello\r\n", b"hello\n"), "bad_chunk"),
        (CHUNKED.replace(b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n"), "bad_trailer"),
        (CHUNKED.replace(b"A\r\n", b"FFFF\r\n"), "body_too_large"),
        (POST.replace(b" 5", b" 5000"), "body_too_large"),
    ],
)
def test_a_refusal_does_not_depend_on_how_the_bytes_are_cut(bad: bytes, name: str, width: int) -> None:
    """The same name, and what stood before passes whole."""
    passed, refused = fed(POST + bad + GET, width)
    assert refused == name
    assert passed.startswith(POST)
    assert (POST + bad).startswith(passed)


def test_a_head_that_comes_byte_by_byte_is_looked_through_once() -> None:
    """Linear: the look at each byte does not begin at the head's first byte again."""
    framing = Framing(Limits(head_bytes=65_536, target_bytes=65_536))
    head = b"GET /" + b"a" * 60_000
    for at in range(len(head)):
        framing.feed(head[at : at + 1])
        assert framing._seen == at + 1


def test_after_a_refusal_nothing_is_read() -> None:
    """A dead framing passes nothing more."""
    framing = Framing(LIMITS)
    with pytest.raises(Refused):
        framing.feed(b"NO\r\n\r\n")
    assert framing.feed(GET) == b""


PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/v1/messages",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b" ",
            b"\t",
        ),
        *(
            b"host: a",
            b"content-length: 5",
            b"content-length: 0",
            b"transfer-encoding: chunked",
            b"expect: 100-continue",
        ),
        *(b":", b";", b"5", b"0", b"a", b"hello", b"\x00", b"\xff", b"5\r\nhello\r\n", b"0\r\n\r\n", b"-", b"x: y"),
        *(GET, POST, CHUNKED, OLD, GET[:-2], POST[:-5], CHUNKED[:-5]),
    ]
)


@settings(max_examples=600, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), width=st.integers(1, 40))
def test_what_passes_is_no_offence_to_h11(pieces: list[bytes], width: int) -> None:
    """Whatever the bytes: the cut does not matter, and the parser behind has no objection to what passes."""
    data = b"".join(pieces)
    passed, refused = fed(data, width)
    whole, again = fed(data, max(1, len(data)))
    assert (passed, refused) == (whole, again)
    assert parsed(passed) is not None


def parsed(data: bytes) -> int | None:
    """How many requests end in `data`, by h11; `None` if it takes offence."""
    connection = h11.Connection(h11.SERVER)
    if data:  # none at all would be the end
        connection.receive_data(data)
    ended = 0
    while ended <= len(data):
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            return ended
        if isinstance(event, h11.EndOfMessage):
            ended += 1
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return ended
            connection.start_next_cycle()
    raise AssertionError("more requests than bytes")


def test_h11_reads_what_passes() -> None:
    """The five requests that are all right are five requests to the parser behind, up to the one that ends it all."""
    assert parsed(GET + POST + CHUNKED + GET) == 4
    assert parsed(b"NO") == 0
    assert parsed(b"NO\r\n\r\n") is None
