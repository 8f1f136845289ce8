"""A client that is nothing but a socket, and what it saw."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

import anyio

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import Delta
from streamguard.testing import ScriptedServer, wire

A = Delta(0, "text", "a")


FRAME = wire.encode(A)


ASK = {"model": "m", "max_tokens": 9, "stream": True}


class Client:
    """A socket, and what came over it: reads with their times, and how it ended."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.reads: list[tuple[float, bytes]] = []
        self.end: tuple[float, str] | None = None

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.reads)

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.data.split(b" ")[1])

    @property
    def chunks(self) -> list[bytes]:
        """The HTTP chunks; the empty one is the last chunk."""
        chunks, rest = [], self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return chunks

    async def ask(self, body=ASK, path="/v1/messages", method="POST", **headers) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        fields = {"host": "x", "content-length": str(len(data))} | headers
        lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
        await self.stream.send("\r\n".join([*lines, "", ""]).encode() + data)

    async def read(self, until=None) -> None:
        """Read to the end, or until these bytes have come."""
        while until is None or until not in self.data:
            try:
                data = await self.stream.receive()
            except anyio.EndOfStream:
                self.end = (anyio.current_time(), "fin")
                return
            except anyio.BrokenResourceError:
                self.end = (anyio.current_time(), "rst")
                return
            self.reads.append((anyio.current_time(), data))


async def connect(server):
    return await anyio.connect_tcp("127.0.0.1", urllib.parse.urlsplit(server.url).port)


async def whole(*attempts, body=ASK, path="/v1/messages", method="POST", until=None, headers=None, **options):
    """One request to a fresh server, read to the end: the client and the server, which is closed."""
    async with ScriptedServer(*attempts, **options) as server, await connect(server) as stream:
        client = Client(stream)
        await client.ask(body, path, method, **({"connection": "close"} | (headers or {})))
        await client.read(until)
    return client, server


def events_of(data: bytes):
    return Translator().translate(Decoder().feed(data))
