"""One client's connection: uvicorn's h11 protocol behind the strict framing, with clocks for slow clients.

In charge of the socket's side of a client: nothing reaches the parser that `Framing` has not passed; a head that does
not come and a reader that does not read are not waited for. It knows no routes; what it answers by itself is in
`refusals`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from streamguard.http.framing import Framing
from streamguard.http.limits import Limits
from streamguard.http.refusals import PHRASES, Refused

LINGER = 2.0
"""Seconds for which the rest of a refused request is read and dropped: a close on unread bytes is a reset, and a reset
may overtake the refusal."""


def protocol(limits: Limits, on_refused: Callable[[Refused], None]) -> type[asyncio.Protocol]:
    """The class for uvicorn's `http`.

    :param on_refused: told of every refusal before there was a request.
    """

    class Limited(ClientConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(limits, on_refused, *args, **kwargs)

    return Limited


class ClientConnection(H11Protocol):
    """See the module; made by uvicorn through `protocol()`."""

    def __init__(self, limits: Limits, on_refused: Callable[[Refused], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._on_refused = on_refused
        self._framing = Framing(limits)
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._refusal: Refused | None = None

    # The transport calls these

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(Refused("too_many_connections", headers={"retry-after": "1"}))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        framing = self._framing
        try:
            passed = framing.feed(data)
        except Refused as refusal:
            if framing.passed:
                super().data_received(bytes(framing.passed))
            self._refuse(refusal, inside_body=framing.broken_in != "head")
            return
        if framing.state != "head":
            self._set_timer(None)
        elif self._timer is None:
            self._await_head()
        if passed:
            super().data_received(passed)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # uvicorn calls these

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refusal is not None and not self._busy:
            self._say(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """What h11 refuses though the framing did not."""
        self._refuse(Refused("bad_header", msg), inside_body=self._busy)

    # Refusals

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _await_head(self) -> None:
        self._set_timer(self._limits.head_seconds)

    def _late(self) -> None:
        self._timer = None
        if self._refusal is not None:
            self.transport.abort()
        elif self._framing.state == "head":
            self._refuse(Refused("slow_head", f"it takes longer than {self._limits.head_seconds:g} s"))
        elif not self._busy:
            self.transport.close()

    def _refuse(self, refusal: Refused, *, inside_body: bool = False) -> None:
        """Take no more of this connection. A request that is being answered gets its answer, unless it is the one."""
        self._refusal = refusal
        self._set_timer(None)
        self._on_refused(refusal)
        if not self._busy:
            self._say(refusal)
        elif inside_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
            else:
                self._say(refusal)

    def _say(self, refusal: Refused) -> None:
        self._unset_keepalive_if_required()
        body = refusal.body()
        headers = {
            **refusal.headers,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-streamguard-refused": refusal.name,
        }
        lines = [f"HTTP/1.1 {refusal.status} {PHRASES[refusal.status]}", *(f"{k}: {v}" for k, v in headers.items())]
        if self.transport.is_closing():
            return
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._set_timer(LINGER)
        else:
            self.transport.close()
