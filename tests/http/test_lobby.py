"""Who has just connected: taken at once, in turn, and let go of."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from streamguard.http.limits import Limits
from streamguard.http.server import Server
from tests.proxy.running import until

ASK = b"GET /%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class Serving:
    """A server of a small application that notes the order of requests.

    :param stops: stop with the first.
    """

    def __init__(self, *, stops: bool = False, **limits: Any) -> None:
        self.stops = stops
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self.listener.getsockname()[1]
        self.asked: list[str] = []
        self.made: list[socket.socket] = []
        self.server = Server(self.app, Limits(**limits), guess=self.guess, goodbye=1)

    def guess(self, first: bytes) -> str | None:
        return "known" if first.startswith(b"GET /known") else None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        if self.stops:
            self.server.stop()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def connection(self, data: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.made.append(made)
        made.sendall(data)
        return made

    def close(self) -> None:
        for one in self.made:
            one.close()


def run(serving: Serving, test: Callable[[], Awaitable[None]]) -> None:
    """Run `test` while the server serves."""

    async def main() -> None:
        started = anyio.Event()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serving.server.serve, serving.listener, started.set)
                await started.wait()
                await test()
                serving.server.stop()

    try:
        anyio.run(main)
    finally:
        serving.close()


async def read(connection: socket.socket) -> bytes:
    return await anyio.to_thread.run_sync(connection.recv, 65_536)


def test_known_clients_come_before_strangers_that_came_before_them() -> None:
    """Two hundred strangers ask at once, then somebody who is known: that request is among the first."""
    serving = Serving()

    async def test() -> None:
        held = [serving.connection(ASK % b"stranger") for _ in range(200)]
        held.append(serving.connection(ASK % b"known"))
        assert (await read(held[-1])).startswith(b"HTTP/1.1 200")
        assert serving.asked.index("/known") < 100
        await until(lambda: len(serving.asked) == 201)
        assert [(await read(one))[:12] for one in held[:-1]] == [b"HTTP/1.1 200"] * 200

    run(serving, test)


def test_a_flood_of_connections_leaves_room() -> None:
    """Whoever holds connections and says nothing loses them, the oldest first; who asks is answered."""
    serving = Serving(connections=20)

    async def test() -> None:
        held = [serving.connection() for _ in range(500)]
        assert (await read(serving.connection(ASK % b"known"))).startswith(b"HTTP/1.1 200")
        assert serving.server.connected <= 20
        assert await read(held[0]) == b""

    run(serving, test)


def test_who_says_nothing_is_let_go_of() -> None:
    """After the head's time, without a word; as is who has left, at once."""
    serving = Serving(head_seconds=0.2)

    async def test() -> None:
        silent = serving.connection()
        serving.connection().close()
        began = anyio.current_time()
        assert await read(silent) == b""
        assert 0.1 < anyio.current_time() - began < 2
        await until(lambda: serving.server.connected == 0)

    run(serving, test)


def test_a_head_may_come_in_pieces() -> None:
    """What was said before the turn is the beginning of the request."""
    serving = Serving()

    async def test() -> None:
        request = ASK % b"known"
        connection = serving.connection(request[:3])
        for byte in request[3:]:
            await anyio.sleep(0.001)
            connection.sendall(bytes([byte]))
        assert (await read(connection)).endswith(b"ok")

    run(serving, test)


def test_who_has_asked_is_answered_though_the_server_stops() -> None:
    """What waits for its turn has it; who has said nothing is let go of."""
    serving = Serving(stops=True)

    async def test() -> None:
        silent = serving.connection()
        held = [serving.connection(ASK % b"stranger") for _ in range(20)]
        assert await read(silent) == b""
        assert [(await read(one))[:12] for one in held] == [b"HTTP/1.1 200"] * 20

    run(serving, test)
    assert serving.asked == ["/stranger"] * 20


def test_without_files_left_it_tries_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An accept that fails is said once, and no connection is lost."""
    serving = Serving()
    accept, failures = socket.socket.accept, iter([OSError(errno.EMFILE, "Too many open files")])

    def failing(self: socket.socket) -> Any:
        for failure in failures:
            raise failure
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)

    async def test() -> None:
        assert (await read(serving.connection(ASK % b"known"))).startswith(b"HTTP/1.1 200")

    with caplog.at_level(logging.WARNING, "streamguard"):
        run(serving, test)
    assert [record.getMessage() for record in caplog.records] == ["no connection can be accepted: Too many open files"]


def test_a_place_that_is_lost_while_the_turn_comes_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a turn and its transport a connection may be evicted: its number of a file is nobody else's until then."""
    serving = Serving(connections=1)
    made = asyncio.BaseEventLoop.connect_accepted_socket

    async def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.05)
        return await made(self, *arguments, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "connect_accepted_socket", slow)

    async def test() -> None:
        held = [serving.connection(ASK % b"known") for _ in range(5)]
        assert (await read(held[-1])).startswith(b"HTTP/1.1 200")
        assert serving.asked == ["/known"]
        await until(lambda: serving.server.connected == 0)

    run(serving, test)
