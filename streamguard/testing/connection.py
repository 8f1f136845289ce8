"""One connection of the scripted server: HTTP/1.1 over a plain non-blocking socket.

In charge of reading requests and of bytes on the socket, down to how it closes, which is what streams of higher
libraries hide. It knows nothing of scripts.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

MAX_HEAD = 65_536
MAX_BODY = 64 * 1024 * 1024
"""Twice the API's own limit, so that too large a request can be told so."""


class Gone(Exception):
    """The client closed or reset the connection."""


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came."""

    method: str
    path: str
    """Without the query."""
    headers: dict[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes
    query: str = ""

    @property
    def json(self) -> Any:
        """The parsed body; `None` if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Connection:
    """A client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._buffer = bytearray()

    async def request(self) -> HttpRequest | None:
        """The next request; `None` if the client closes instead.

        :raises Gone: it closed inside of one.
        :raises ValueError: it is no HTTP/1.1 request, or too large.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ValueError(f"a request head of more than {MAX_HEAD} bytes")
            if not await self._more():
                if self._buffer:
                    raise Gone
                return None
        first, *lines = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._chunked_body()
        else:
            body = await self._exactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        return HttpRequest(method=method, path=path, headers=headers, body=body, query=query)

    async def _chunked_body(self) -> bytes:
        body = bytearray()
        while size := int((await self._line()).partition(b";")[0], 16):
            body += await self._exactly(size)
            await self._line()
        while await self._line():
            pass
        return bytes(body)

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not await self._more():
                raise Gone
        return self._take(end + 2)[:-2]

    async def _exactly(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BODY:
            raise ValueError(f"a request body of {size} bytes")
        while len(self._buffer) < size:
            if not await self._more():
                raise Gone
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> bool:
        """Read on. False at the end."""
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                raise Gone from error
            else:
                self._buffer += data
                return bool(data)

    async def gone(self) -> None:
        """Wait until the client closes or resets. What it says until then is kept for the next request."""
        try:
            while await self._more():
                if len(self._buffer) > MAX_BODY:
                    return
        except Gone:
            return

    async def send(self, data: bytes) -> None:
        """Send everything.

        :raises Gone: the client does not take it any more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise Gone from error
        await anyio.lowlevel.checkpoint()

    def half_close(self) -> None:
        """Say no more, but listen."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the coming close a reset (RST): lingering for zero seconds drops what is unsent and is rude about it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def response_head(code: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a response."""
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        # 529 is the provider's own.
        phrase = "Overloaded" if code == 529 else ""
    lines = [f"HTTP/1.1 {code} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def json_response(code: int, body: object, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole response with a JSON body."""
    data = json.dumps(body).encode()
    fields = [("content-type", "application/json"), ("content-length", str(len(data))), *headers]
    return response_head(code, fields) + data
