"""Requests to an origin: what comes back, and which connections are used again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import anyio
import httpcore2
import pytest

from streamguard.http.client import MAX_INFORMATIONAL, PIECE, Origin
from streamguard.http.network import Network

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


class Server:
    """Answers requests with raw bytes, and counts connections."""

    def __init__(self, answers: Iterable[bytes], *, close: bool = False) -> None:
        self.answers = list(answers)
        self.connections = self.requests = 0
        self._close = close

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                answer = self.answers[min(self.requests, len(self.answers) - 1)]
                self.requests += 1
                writer.write(answer)
                await writer.drain()
                if self._close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def with_origin(server: Server, test: Callable[[Origin], Awaitable[None]]) -> None:
    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        origin = Origin(Network(), "127.0.0.1", listening.sockets[0].getsockname()[1])
        with anyio.fail_after(8):
            await test(origin)
        await origin.aclose()
        listening.close()
        assert origin.connections == 0

    asyncio.run(main())


async def get(origin: Origin, *, read: bool = True) -> tuple[int, bytes]:
    async with await origin.send("GET", b"/", [(b"host", b"a")], None) as answer:
        return answer.status, b"".join([piece async for piece in answer.pieces()]) if read else b""


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (CHUNKED, 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + OK, 1),
        (OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), 3),
        (OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL", 3),
        (CHUNKED + b"EVIL", 3),
        (CHUNKED.replace(b"transfer", b"content-length: 2\r\ntransfer"), 3),
        (CHUNKED.replace(b"transfer", b"content-length: 99\r\ntransfer"), 3),
    ],
)
def test_a_connection_is_used_again_only_where_its_answer_ended_beyond_doubt(answer: bytes, connections: int) -> None:
    """Every byte that came was of the answer, which had one length; else the connection is never used again."""
    server = Server([answer])

    async def test(origin: Origin) -> None:
        for _ in range(3):
            assert await get(origin) == (200, b"ok")
            assert origin.connections <= 1

    with_origin(server, test)
    assert server.connections == connections


def test_an_answer_that_was_not_read_is_not_waited_for() -> None:
    """Leaving in the middle closes the connection: its rest is nobody's."""
    server = Server([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"])

    async def test(origin: Origin) -> None:
        await get(origin, read=False)
        assert origin.connections == 0

    with_origin(server, test)


def test_bytes_that_come_between_two_requests_end_the_connection() -> None:
    """What nobody asked for reaches nobody, whenever it comes."""
    late: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        late.append(writer)

    async def main() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        origin = Origin(Network(), "127.0.0.1", listening.sockets[0].getsockname()[1])
        assert await get(origin) == (200, b"ok")
        late[0].write(OK.replace(b"ok", b"no"))
        await asyncio.sleep(0.05)
        assert await get(origin) == (200, b"ok")
        assert len(late) == 2
        await origin.aclose()
        for writer in late:
            writer.close()
        listening.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early\r\n\r\n" * (MAX_INFORMATIONAL + 1) + OK,
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 50_000 + b"\r\n",
        b"\0" * 1000,
        b"event: message_start\n\n",
        CHUNKED.replace(b"2\r\nok", b"2;" + b"a" * 200_000 + b"\r\nok"),
        CHUNKED.replace(b"2\r\nok", b"FFFFFFFFFFFFFFFFFFFFFF\r\nok"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        b"",
    ],
)
def test_what_is_no_response_is_one_typed_error(answer: bytes) -> None:
    """However it is broken; and its connection is closed."""

    async def test(origin: Origin) -> None:
        with pytest.raises(httpcore2.ProtocolError):
            await get(origin)
        assert origin.connections == 0

    with_origin(Server([answer], close=True), test)


def test_others_have_their_turn_while_an_upstream_sends_at_line_speed() -> None:
    """Between two pieces everything else that is ready runs; tiny chunks of one read come as one piece."""
    body = b"1\r\nx\r\n" * 100_000
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"

    async def test(origin: Origin) -> None:
        turns = pieces = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        size = 0
        async with await origin.send("GET", b"/", [(b"host", b"a")], None) as found:
            async for piece in found.pieces():
                size += len(piece)
                pieces += 1
                assert turns >= pieces
        beside.cancel()
        assert size == 100_000
        assert pieces >= len(body) / PIECE

    with_origin(Server([answer]), test)
