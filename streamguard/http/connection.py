"""One client's connection: requests in order, each with its response, and a clock for every state it can be in.

In charge of the socket's side of a client: what has arrived is read by `Framing`, one request at a time; a head or a
body that does not come, a reader that does not read and a connection that is not used are not waited for, whoever
answers them. After an answer that came before its request was complete, the connection ends. It knows no routes; what
it answers by itself is in `refusals`.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal, Protocol, cast

from streamguard.http.clients import Clients, Guest
from streamguard.http.exchange import Exchange
from streamguard.http.framing import END, Framing, Head
from streamguard.http.refusals import PHRASES, Refused

LINGER: Final = 2.0
"""Seconds for which the rest of a refused request is read and dropped: a close on unread bytes is a reset, and a reset
may overtake the refusal."""

HIGH_WATER: Final = 262_144
"""Bytes received and not taken, beyond which the socket is left alone: TCP holds the client back."""


class Earlier(Guest, Protocol):
    """Who had a connection's place before."""

    gone: bool
    leaving: bool
    data: bytes
    refusal: Refused | None


Clock = Literal["none", "idle", "head", "body", "linger", "close"]


class ClientConnection(asyncio.Protocol):
    """See the module; made by the server for each connection.

    :param clients: the server's connections, limits and application.
    :param earlier: who has had the connection's place until its turn came.
    """

    def __init__(self, clients: Clients, earlier: Earlier | None = None) -> None:
        self._clients = clients
        self._earlier = earlier
        # The first request of a connection that has waited for its turn does not wait again.
        self._had_its_turn = earlier is not None
        self._limits = clients.limits
        self._framing = Framing(clients.limits)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._exchange: Exchange | None = None
        self._clock: Clock = "none"
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._refusal: Refused | None = None
        self._deaf = self._paused = self._leaving = self._was_known = False
        self.client: tuple[str, int] | None = None
        """The client's address."""
        self._server: tuple[str, int] | None = None

    @property
    def known(self) -> bool:
        """Whether the application knows who asks here, or who asked last."""
        return self._was_known or (self._exchange is not None and self._exchange.known)

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None

    def evict(self) -> None:
        """End now: somebody else needs the place."""
        self._transport.abort()

    def leave(self) -> None:
        """End as soon as no request is being answered."""
        self._leaving = True
        if self._exchange is not None:
            self._exchange.close = True
        elif not self._had_its_turn or self._framing.state != "idle":
            # Who has had its turn and was not heard yet has asked something.
            self._end()

    # The transport calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        refusal = self._take_place()
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._set_clock("head")

    def _take_place(self) -> Refused | None:
        earlier, self._earlier = self._earlier, None
        if earlier is None:
            return self._clients.enter(self)
        if earlier.gone:
            self._transport.abort()
            return None
        self._clients.take_over(earlier, self)
        self._leaving = earlier.leaving
        if earlier.data:
            # Not here: the transport does not read yet, and cannot be told to wait.
            self._loop.call_soon(self.data_received, earlier.data)
        return earlier.refusal

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._set_clock("none")
        self.resume_writing()
        if self._exchange is not None:
            self._exchange.leave()
        self._clients.exit(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._framing.receive(data)
        self._advance()

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._stuck is None:
            self._stuck = self._loop.call_later(self._limits.write_seconds, self._transport.abort)

    def resume_writing(self) -> None:
        self._writable.set()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # The exchange calls these

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def writable(self) -> None:
        await self._writable.wait()

    def wanted(self) -> None:
        self._loop.call_soon(self._advance)

    def taken(self) -> None:
        if self._paused:
            self._loop.call_soon(self._advance)

    def answered(self, exchange: Exchange) -> None:
        self._was_known = exchange.known
        if self._refusal is not None:
            self._say(self._refusal)
        elif not exchange.asked:
            self._linger()
        elif exchange.close or self._leaving:
            self._end()
        else:
            self._exchange = None
            self._set_clock("idle")
            # Not here: a thousand requests that came in one piece would be a thousand frames deep.
            self._loop.call_soon(self._advance)

    def broken(self) -> None:
        self._transport.abort()

    def date(self) -> bytes:
        return self._clients.date()

    # Requests

    def _advance(self) -> None:
        """Take what can be taken of what has arrived."""
        if self._deaf or self._transport.is_closing():
            return
        framing = self._framing
        while not self._must_wait():
            try:
                part = framing.next()
            except Refused as refusal:
                self._refuse(refusal)
                return
            if part is None:
                break
            if isinstance(part, Head):
                self._begin(part)
            else:
                assert self._exchange is not None
                if part is END:
                    self._exchange.end_request()
                    self._set_clock("none")
                else:
                    self._exchange.feed(cast("bytes", part))
        if framing.state == "head" and self._clock != "head":
            self._set_clock("head")
        self._pause(framing.waiting > HIGH_WATER)

    def _must_wait(self) -> bool:
        """Whether what follows is for later: one request at a time, and no more of it than the application takes.

        Chunks are read when the application wants them: of a request that is refused nobody looks at them.
        """
        exchange = self._exchange
        if exchange is None:
            return False
        return exchange.asked or exchange.unread > HIGH_WATER or (self._framing.chunked and not exchange.wanted)

    def _begin(self, head: Head) -> None:
        self._exchange = Exchange(self, head, client=self.client, server=self._server)
        self._exchange.close = self._exchange.close or self._leaving
        self._set_clock("body")
        self._clients.start(self._exchange, at_once=self._was_known or self._had_its_turn)
        self._had_its_turn = False

    def _pause(self, pause: bool) -> None:
        if pause != self._paused and not self._transport.is_closing():
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    # Clocks

    def _set_clock(self, clock: Clock) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._clock = clock
        if clock != "none":
            self._timer = self._loop.call_later(self._seconds(clock), self._late)

    def _seconds(self, clock: Clock) -> float:
        limits = self._limits
        return {
            "idle": limits.idle_seconds,
            "head": limits.head_seconds,
            "body": limits.body_seconds,
            "close": limits.write_seconds,
        }.get(clock, LINGER)

    def _late(self) -> None:
        self._timer = None
        limits = self._limits
        match self._clock:
            case "head" if self._framing.state == "head":
                self._refuse(Refused("slow_head", f"it takes longer than {limits.head_seconds:g} s"))
            case "body":
                self._refuse(Refused("slow_body", f"it takes longer than {limits.body_seconds:g} s"))
            case "head" | "idle":
                self._end()
            case _:
                self._transport.abort()

    # Ends

    def _refuse(self, refusal: Refused) -> None:
        """Take no more of this connection. A request that is being answered gets its answer, unless it is the one."""
        self._refusal = refusal
        self._deaf = True
        self._set_clock("none")
        self._clients.on_refused(refusal)
        exchange = self._exchange
        if exchange is None or exchange.ended:
            self._say(refusal)
        elif not exchange.asked:
            exchange.leave()
            if exchange.started:
                self._transport.abort()
            else:
                self._say(refusal)

    def _say(self, refusal: Refused) -> None:
        if self._transport.is_closing():
            return
        body = refusal.body()
        headers = {
            **refusal.headers,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-streamguard-refused": refusal.name,
        }
        lines = [f"HTTP/1.1 {refusal.status} {PHRASES[refusal.status]}", *(f"{k}: {v}" for k, v in headers.items())]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        self._linger()

    def _linger(self) -> None:
        """Say the end, and drop what the client still sends, for a while."""
        self._deaf = True
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except (OSError, NotImplementedError):
            # The client has gone by itself, and the transport has not noticed yet.
            self._transport.abort()
            return
        self._pause(False)
        self._set_clock("linger")

    def _end(self) -> None:
        """Close once what was written is sent."""
        self._deaf = True
        self._transport.close()
        self._set_clock("close")


def _address(found: object) -> tuple[str, int] | None:
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) and len(found) >= 2 else None
