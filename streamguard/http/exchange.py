"""One request and its response, as an ASGI application sees them.

In charge of ASGI: the scope, the messages both ways, and the bytes of a response. The socket, its clocks and the order
of requests are the connection's, which is seen here as a `Wire`.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol
from urllib.parse import unquote

from streamguard.http.framing import Head

_log = logging.getLogger("streamguard.http")

KNOWN: Final = "streamguard.known"
"""The key of the scope that an application sets when it knows who asks: the connection is no stranger's any more, and
is not the one that has to go when there are too many."""

STRANGERS: Final = {"strangers": True}
"""The mark (`extra`) of a log line that anybody can cause: whoever writes the log may limit how many there are."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\0[\t\x20-\x7e\x80-\xff]*")
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}
_BODYLESS: Final = (204, 304)


class Wire(Protocol):
    """What an exchange needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send."""

    async def writable(self) -> None:
        """Wait while the client does not read."""

    def wanted(self) -> None:
        """The application asked for the body."""

    def taken(self) -> None:
        """The application took the pieces of the body that had come."""

    def answered(self, exchange: Exchange) -> None:
        """The response has ended."""

    def broken(self) -> None:
        """The response cannot be ended: nothing but the connection's end can say so."""

    def date(self) -> bytes:
        """The value of the `date` header."""


class Exchange:
    """One request and its response. The connection feeds the request; the application is run with `run`."""

    def __init__(
        self, wire: Wire, head: Head, *, client: tuple[str, int] | None, server: tuple[str, int] | None
    ) -> None:
        path, _, query = head.target.partition(b"?")
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": client,
            "server": server,
        }
        self.close = head.close
        """Whether the connection is to end after the response."""
        self.asked = False
        """Whether the whole request has come."""
        self.started = False
        """Whether the response has begun."""
        self.ended = False
        """Whether the response has ended."""
        self.wanted = False
        """Whether the application has asked for the body."""
        self.unread = 0
        """Bytes of the body that came and were not taken."""
        self._wire = wire
        self._head = head
        self._gone = False
        self._news = asyncio.Event()
        self._pieces: list[bytes] = []
        self._told = False
        self._left: int | None = None
        self._chunked = False
        self._silent = False

    @property
    def known(self) -> bool:
        """Whether the application knows who asks."""
        return KNOWN in self.scope

    # The connection calls these

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._pieces.append(data)
        self.unread += len(data)
        self._news.set()

    def end_request(self) -> None:
        """Take the body's end."""
        self.asked = True
        self._news.set()

    def leave(self) -> None:
        """Take it that the client has gone, or is told something else."""
        self._gone = True
        self._news.set()

    async def run(self, app: App) -> None:
        """Run the application to its end, and see to it that the response has one."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._wire.broken()
            raise
        except Exception:
            _log.exception("an error in the application", extra=STRANGERS)
            await self._fail()
        else:
            if not self.ended and not self._gone:
                await self._fail()

    async def _fail(self) -> None:
        if self._gone or self.ended:
            return
        if self.started:
            self._wire.broken()
            return
        body = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    # The application calls these

    async def receive(self) -> Message:
        """The next message: pieces of the body, then the client's end."""
        if not self.wanted:
            self.wanted = True
            self._wire.wanted()
        if self._head.expects_continue and not (self.started or self.asked or self._pieces or self._gone):
            self._wire.write(CONTINUE)
        while not (self._gone or self.ended or self._pieces or (self.asked and not self._told)):
            self._news.clear()
            await self._news.wait()
        if self._gone or self.ended:
            return {"type": "http.disconnect"}
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        self._told = self.asked
        self._wire.taken()
        return {"type": "http.request", "body": body, "more_body": not self.asked}

    async def send(self, message: Message) -> None:
        """Send a part of the response. To a client that has gone nothing is sent, and that is no error.

        :raises RuntimeError: the application broke the protocol.
        """
        await self._wire.writable()
        if self._gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.started:
            self._start(message["status"], list(message.get("headers", ())))
        elif kind == "http.response.body" and self.started and not self.ended:
            self._body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is out of place in this response")

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        lines = [b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, "").encode("ascii")), b"date: " + self._wire.date()]
        if not self.asked:
            # What is left of the request is not waited for.
            self.close = True
        for name, value in headers:
            if not _FIELD.fullmatch(name + b"\0" + value):
                raise RuntimeError(f"the response's header {name!r} cannot be sent")
            lowered = name.lower()
            if lowered == b"content-length":
                self._left = int(value)
            elif lowered == b"connection":
                self.close = self.close or value.lower() == b"close"
                continue
            lines.append(name + b": " + value)
        self._silent = status in _BODYLESS or self._head.method == "HEAD"
        if self._left is None and not self._silent:
            self._chunked = self._head.version == "1.1"
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")
            self.close = self.close or not self._chunked
        if self.close:
            lines.append(b"connection: close")
        self.started = True
        self._wire.write(b"\r\n".join([*lines, b"", b""]))

    def _body(self, data: bytes, *, more: bool) -> None:
        if data and not self._silent:
            if self._left is not None:
                if len(data) > self._left:
                    self._wire.broken()
                    raise RuntimeError("the response is longer than its content-length")
                self._left -= len(data)
            self._wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if more:
            return
        if self._left and not self._silent:
            _log.warning(
                "a response ended %d bytes before its content-length: the connection is broken off", self._left
            )
            self._wire.broken()
            return
        if self._chunked:
            self._wire.write(b"0\r\n\r\n")
        self.ended = True
        self._news.set()
        self._wire.answered(self)
