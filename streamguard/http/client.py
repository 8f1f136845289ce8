"""Requests to one origin over HTTP/1.1, and the connections that are used again.

In charge of sending a request, of reading its response by h11, and of one question: whether a connection may be used
again. It may only if every byte that came belonged to the response before, and its length was beyond doubt. Bytes
behind an answer would be the beginning of somebody else's.

Why not httpcore's pool: it keeps what came behind an answer, in the same read, for the next request; and it hands on
each tiny chunk by itself, which lets an upstream at line speed hold the loop up. The exceptions are httpcore's, since
whoever reads failures knows them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
import h11
import httpcore2

from streamguard.http.network import Connection, Network

PIECE: Final = 16_384
"""Bytes that are looked at before others have their turn."""

STEP: Final = 262_144
"""Bytes of a body that are handed to the transport at a time."""

MAX_HEAD: Final = 102_400
"""Bytes of a response's head, and of a chunk's line."""

MAX_INFORMATIONAL: Final = 16
"""Informational responses (1xx) before a response; servers send one or two."""

EXPIRY: Final = 15.0
"""Seconds that an idle connection is kept; the provider closes its end after a while, without a word."""

MAX_IDLE: Final = 100

HeaderList = list[tuple[bytes, bytes]]


class Origin:
    """One scheme, host and port, and the connections to it. Belongs to one event loop."""

    def __init__(self, network: Network, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._network = network
        self._host, self._port, self._tls = host, port, tls
        self._idle: list[tuple[float, _Link]] = []
        self._used: set[_Link] = set()

    async def send(
        self, method: str, target: bytes, headers: HeaderList, content: bytes | None, *, connect: float | None = None
    ) -> Answer:
        """Send a request, and wait for the response's head. To be closed.

        :param headers: with `Host`, and with the body's length if there is one.
        :param connect: seconds that a new connection may take, TLS included; `None` for no limit.
        :raises httpcore2.ConnectTimeout: it took longer; nothing was sent.
        :raises httpcore2.NetworkError: no connection, or it broke.
        :raises httpcore2.ProtocolError: a request or a response that is none.
        """
        link = self._take() or await self._connect(connect)
        self._used.add(link)
        try:
            head = await link.ask(method, target, headers, content)
        except BaseException:
            self._drop(link)
            raise
        return Answer(self, link, head)

    async def aclose(self) -> None:
        """Close all connections."""
        for link in [*self._used, *(link for _, link in self._idle)]:
            link.close()
        self._idle.clear()
        self._used.clear()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._used) + len(self._idle)

    def release(self, link: _Link) -> None:
        """Take a connection back, its response read or not."""
        if link.next_cycle() and len(self._idle) < MAX_IDLE:
            self._used.discard(link)
            self._idle.append((anyio.current_time() + EXPIRY, link))
        else:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        self._used.discard(link)
        link.close()

    def _take(self) -> _Link | None:
        """The connection that was used last, if it can be used again."""
        now = anyio.current_time()
        while self._idle and (self._idle[0][0] < now or not self._idle[0][1].quiet):
            self._idle.pop(0)[1].close()
        while self._idle:
            _, link = self._idle.pop()
            if link.quiet:
                return link
            link.close()
        return None

    async def _connect(self, within: float | None) -> _Link:
        began = anyio.current_time()
        stream = await self._network.connect_tcp(self._host, self._port, within)
        assert isinstance(stream, Connection)
        if self._tls is not None:
            left = None if within is None else max(0.0, within - (anyio.current_time() - began))
            await stream.start_tls(self._tls, self._host, left)
        return _Link(stream)


class Answer:
    """A response whose head has come."""

    def __init__(self, origin: Origin, link: _Link, head: h11.Response) -> None:
        self._origin, self._link = origin, link
        self._closed = False
        self.status = head.status_code
        raw = head.headers.raw_items()
        chunked = any(name.lower() == b"transfer-encoding" for name, _ in raw)
        self.headers: HeaderList = [
            (name, value) for name, value in raw if not (chunked and name.lower() == b"content-length")
        ]
        """As they came; without a length that the chunks contradict (RFC 9112, 6.3)."""
        if len(self.headers) < len(raw):
            link.doubtful = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, in the pieces in which it arrives."""
        while piece := await self._link.piece():
            yield piece

    async def aclose(self) -> None:
        """Give the connection back, or close it."""
        if not self._closed:
            self._closed = True
            self._origin.release(self._link)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class _Link:
    """One connection with the state of its protocol."""

    def __init__(self, stream: Connection) -> None:
        self._stream = stream
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.doubtful = False
        """Whether two readers could find its response's end in two places."""

    @property
    def quiet(self) -> bool:
        """Whether nothing has come since the last response, not even the end."""
        return not self._stream.get_extra_info("is_readable")

    def close(self) -> None:
        self._stream.close()

    async def ask(self, method: str, target: bytes, headers: HeaderList, content: bytes | None) -> h11.Response:
        state = self._state
        try:
            data = state.send(h11.Request(method=method, target=target, headers=headers)) or b""
            if content:
                # Checks the length; the bytes themselves need not be copied together with the head's.
                state.send(h11.Data(data=content))
            state.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise httpcore2.LocalProtocolError(str(error)) from error
        try:
            await self._stream.write(data)
            # In steps: the transport would keep a copy of all that the socket does not take.
            for at in range(0, len(content or b""), STEP):
                await self._stream.write(memoryview(content)[at : at + STEP] if content else b"")
        except httpcore2.WriteError:
            # A server may refuse a request that it has not read to its end; its answer is here then.
            pass
        informational = 0
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            informational += 1
            if informational > MAX_INFORMATIONAL:
                raise httpcore2.RemoteProtocolError(f"more than {MAX_INFORMATIONAL} informational responses")

    async def piece(self) -> bytes:
        """The next piece of the body: all that one read brought. Nothing at its end."""
        parts: list[bytes] = []
        while self._state.their_state is not h11.DONE and self._state.their_state is not h11.MUST_CLOSE:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                if parts:
                    # It is raised again by the next call.
                    break
                raise httpcore2.RemoteProtocolError(str(error)) from error
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif event is not h11.NEED_DATA or parts:
                break
            else:
                self._state.receive_data(await self._read())
        return b"".join(parts)

    async def _event(self) -> object:
        """The next event before the body."""
        while True:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                raise httpcore2.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._read()
            if not data:
                raise httpcore2.RemoteProtocolError("the server disconnected without sending a response")
            self._state.receive_data(data)

    async def _read(self) -> bytes:
        if not self.quiet:
            # What is here already is read without waiting: everybody else's turn first.
            await anyio.lowlevel.checkpoint()
        return await self._stream.read(PIECE)

    def next_cycle(self) -> bool:
        """Whether the connection can be used again; it is made ready for that."""
        state = self._state
        if self.doubtful or state.our_state is not h11.DONE or state.their_state is not h11.DONE:
            return False
        if state.trailing_data[0] or not self.quiet:
            return False
        state.start_next_cycle()
        return True
