"""Framing: requests are read the same however they are cut, and as another strict parser reads them; or are refused."""

from __future__ import annotations

import h11
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.http.framing import CHUNK_BYTES, END, FREE_CHUNKS, PIECE, Framing, Head
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


class Read(msgspec.Struct):
    """A request that was read to its end."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def fed(data: bytes, width: int, limits: Limits = LIMITS) -> tuple[list[Read], str | None]:
    """The requests in `data`, which comes in pieces, and what is refused behind them."""
    framing, found = Framing(limits), []
    head, body = None, b""
    for at in range(0, len(data), width):
        framing.receive(data[at : at + width])
        try:
            while (part := framing.next()) is not None:
                if isinstance(part, Head):
                    head, body = part, b""
                elif part is END:
                    assert head is not None
                    found.append(Read(head.method, head.target, head.version, head.headers, body))
                else:
                    body += part
        except Refused as refusal:
            assert framing.state == "dead"
            return found, refusal.name
    return found, None


HOST = (b"host", b"[::1]:8787")
FIVE = [
    Read("GET", b"/v1/models?limit=3", "1.1", [HOST, (b"accept", b"*/*")], b""),
    Read("POST", b"/v1/messages", "1.1", [(b"host", b"localhost"), (b"content-length", b"5")], b"hello"),
    Read("POST", b"/v1/messages", "1.1", [(b"host", b"a"), (b"transfer-encoding", b"Chunked")], b"hello0123456789"),
    Read(
        *("POST", b"/v1/messages", "1.0"),
        [(b"host", b"a"), (b"content-length", b"0"), (b"x-empty", b""), (b"x-wide", b"caf\xe9")],
        b"",
    ),
    Read("GET", b"/v1/models?limit=3", "1.1", [HOST, (b"accept", b"*/*")], b""),
]


@pytest.mark.parametrize("width", [*range(1, 20), 1000])
def test_requests_are_read_whole(width: int) -> None:
    """Five requests on one connection, in pieces of any size."""
    assert fed(ALL, width) == (FIVE, None)


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
    """The same name, and what stood before is read."""
    assert fed(POST + bad + GET, width) == ([FIVE[1]], name)


def test_a_head_that_comes_byte_by_byte_is_looked_through_once() -> None:
    """Linear: the look at each byte does not begin at the head's first byte again."""
    framing = Framing(Limits(head_bytes=65_536, target_bytes=65_536))
    head = b"GET /" + b"a" * 60_000
    for at in range(len(head)):
        framing.receive(head[at : at + 1])
        assert framing.next() is None
        assert framing._seen == at + 1


def test_after_a_refusal_nothing_is_read() -> None:
    """A dead framing reads nothing more."""
    framing = Framing(LIMITS)
    framing.receive(b"NO\r\n\r\n")
    with pytest.raises(Refused):
        framing.next()
    framing.receive(GET)
    assert framing.next() is None


def test_a_large_body_comes_in_bounded_pieces() -> None:
    """What one step costs does not grow with what has arrived."""
    framing = Framing(Limits())
    framing.receive(POST.replace(b" 5\r\n", b" 1000005\r\n") + bytes(1_000_000))
    assert isinstance(framing.next(), Head)
    sizes = []
    while isinstance(part := framing.next(), bytes):
        sizes.append(len(part))
    assert (sum(sizes), max(sizes), part) == (1_000_005, PIECE, END)


def chunks_of(size: int, count: int) -> bytes:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + (b"%x\r\n%b\r\n" % (size, bytes(size))) * count + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("size", "count", "refused"),
    [
        (1, FREE_CHUNKS, None),
        (1, FREE_CHUNKS + FREE_CHUNKS // CHUNK_BYTES + 2, "tiny_chunks"),
        (CHUNK_BYTES - 1, 100 * FREE_CHUNKS, "tiny_chunks"),
        (CHUNK_BYTES, 100 * FREE_CHUNKS, None),
    ],
)
def test_chunks_may_not_all_be_tiny(size: int, count: int, refused: str | None) -> None:
    """Work is bounded by bytes: a body of many one-byte chunks is refused, one of many fair ones is not."""
    found, name = fed(chunks_of(size, count), 65_536, Limits())
    assert name == refused
    assert [len(one.body) for one in found] == ([size * count] if refused is None else [])


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


@settings(max_examples=1000, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), width=st.integers(1, 40))
def test_another_parser_reads_the_same(pieces: list[bytes], width: int) -> None:
    """Whatever the bytes: the cut does not matter, and h11 reads the very requests that are read here."""
    data = b"".join(pieces)
    found, refused = fed(data, width)
    assert (found, refused) == fed(data, max(1, len(data)))
    for one in found:  # which h11 writes in lower case
        one.headers = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in one.headers]
    assert by_h11(data)[: len(found)] == found


def by_h11(data: bytes) -> list[Read]:
    """The requests in `data`, as h11 reads them, up to what it takes offence at."""
    connection = h11.Connection(h11.SERVER)
    if data:  # none at all would be the end
        connection.receive_data(data)
    found: list[Read] = []
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        if isinstance(event, h11.Request):
            version = event.http_version.decode()
            read = Read(event.method.decode(), event.target, version, [*map(tuple, event.headers)], b"")
        elif isinstance(event, h11.Data):
            read.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append(read)
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                # A client of HTTP/1.0 is not heard out after its first request; the next is read by another.
                connection, (rest, _) = h11.Connection(h11.SERVER), connection.trailing_data
                if not rest:
                    return found
                connection.receive_data(rest)
            else:
                connection.start_next_cycle()
        else:
            return found


def test_h11_reads_the_five() -> None:
    """The comparison compares: the five requests are five to h11, and what is none is none."""
    assert [one.body for one in by_h11(ALL)] == [one.body for one in FIVE]
    assert by_h11(b"NO\r\n\r\n") == []
