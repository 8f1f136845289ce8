"""A server of raw bytes on a loopback socket, for faults that no HTTP library would send."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nrequest-id: req_wire\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
RESET, HANG, CLOSE = "reset", "hang", "close"
Step = bytes | str
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def events(stream: bytes) -> list[bytes]:
    """Each event of a stream as an HTTP chunk of its own."""
    return [chunk(part + b"\n\n") for part in stream.split(b"\n\n") if part.strip()]


def gzipped(stream: bytes) -> bytes:
    return gzip.compress(stream, mtime=0)


class Server:
    """Plays a script for each request, and remembers what it saw."""

    def __init__(self, script: Callable[[int], Sequence[Step]]) -> None:
        self.script = script
        self.port = 0
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent = anyio.Event()
        """The first script was played to its end, or to where it hangs."""
        self.eof = anyio.Event()
        """The client closed a connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _connection(self, stream: SocketStream) -> None:
        self.connections += 1
        async with stream:
            with suppress(*BROKEN):
                while True:
                    await self._request(stream)
                    for step in self.script(len(self.requests) - 1):
                        if isinstance(step, bytes):
                            await stream.send(step)
                        elif step == RESET:
                            raw = stream.extra(SocketAttribute.raw_socket)
                            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            return
                        elif step == CLOSE:
                            return
                        else:
                            self.sent.set()
                            await stream.receive()  # ends only when the client closes
                    self.sent.set()
            self.eof.set()

    async def _request(self, stream: SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += await stream.receive()
        self.requests.append(head + b"\r\n\r\n" + body)


@asynccontextmanager
async def serving(script: Callable[[int], Sequence[Step]] | Sequence[Step]) -> AsyncIterator[Server]:
    """A server that plays one script for every request, or the one that `script(n)` gives for the n-th."""
    server = Server(script if callable(script) else lambda _: script)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server._connection)
        yield server
        tasks.cancel_scope.cancel()


def mocked(
    content: Any, *, status: int = 200, headers: dict[str, str] | None = None, seen: list[Any] | None = None
) -> Any:
    """An `httpx2` client that answers everything with `content`: bytes, or pieces of them."""
    import httpx2

    async def pieces() -> AsyncIterator[bytes]:
        for piece in content:
            yield piece

    def answer(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        body = content if isinstance(content, bytes) else pieces()
        return httpx2.Response(status, headers={"content-type": "text/event-stream", **(headers or {})}, content=body)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
