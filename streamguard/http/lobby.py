"""Who has just connected, until it has its turn.

In charge of accepting. Connections are taken from the kernel's queue as fast as they come, and cost little until they
have said something: under a flood that queue overflows otherwise, and a client that finds it full tries again after a
second. Who has spoken waits for its turn (`turns`): clients that seem to be known before strangers. What it said is
looked at for that, and for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable
from typing import Final

from streamguard.http.clients import Clients
from streamguard.http.connection import ClientConnection
from streamguard.http.exchange import STRANGERS
from streamguard.http.refusals import Refused
from streamguard.http.turns import Turns

_log = logging.getLogger("streamguard.http")

AT_ONCE: Final = 128
"""Connections that are accepted in one pass of the event loop: a few milliseconds."""

LONGEST: Final = 0.005
"""Seconds after which a pass accepts no more: beside a thread at work, each takes several times as long."""

FIRST: Final = 16_384
"""Bytes that are read of a connection before its turn."""

PAUSE: Final = 0.1
"""Seconds until the next try where the process has no files left."""

Guess = Callable[[bytes], str | None]
"""Who seems to ask, by a connection's first bytes; `None`: a stranger."""


class Lobby:
    """Takes connections from a listening socket, until it is closed.

    :param guess: whose turn a connection waits for.
    """

    def __init__(self, clients: Clients, listener: socket.socket, guess: Guess) -> None:
        self.clients, self.guess = clients, guess
        self.turns = Turns()
        self.loop = asyncio.get_running_loop()
        self.waiting: set[Visitor] = set()
        """Those that have said nothing yet."""
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Begin to accept.

        :raises NotImplementedError: the event loop cannot watch sockets (Windows' own).
        """
        if not self._closed:
            self._listener.setblocking(False)
            self.loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take who is in the kernel's queue, accept no more, and let go of who has said nothing."""
        self._accept(math.inf)
        self._closed = True
        self.loop.remove_reader(self._listener)
        for visitor in list(self.waiting):
            visitor.evict()

    def _accept(self, seconds: float = LONGEST) -> None:
        until = time.monotonic() + seconds
        for _ in range(AT_ONCE):
            if time.monotonic() > until:
                return
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("no connection can be accepted: %s", error.strerror or error, extra=STRANGERS)
                self.loop.remove_reader(self._listener)
                self.loop.call_later(PAUSE, self.open)
                return
            sock.setblocking(False)
            Visitor(self, sock, (str(address[0]), int(address[1]))).enter()

    def come_in(self, visitor: Visitor) -> bool:
        """Make a visitor a client's connection; whether it is still there."""
        if visitor.gone:
            return False
        visitor.moving = True
        task = self.loop.create_task(self._make(visitor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _make(self, visitor: Visitor) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: ClientConnection(self.clients, visitor), visitor.sock)
        except OSError:
            visitor.evict()
            visitor.sock.close()


class Visitor:
    """One connection that has not had its turn."""

    __slots__ = ("_lobby", "_timer", "client", "data", "gone", "leaving", "moving", "refusal", "sock")
    known = False
    idle = True

    def __init__(self, lobby: Lobby, sock: socket.socket, client: tuple[str, int]) -> None:
        self._lobby, self.sock = lobby, sock
        self.client: tuple[str, int] | None = client
        self._timer: asyncio.TimerHandle | None = None
        self.data = b""
        """What it has said."""
        self.refusal: Refused | None = None
        """Why there is no place for it."""
        self.gone = self.leaving = self.moving = False

    def enter(self) -> None:
        """Take a place, and wait for the first words."""
        self.refusal = self._lobby.clients.enter(self)
        if self.refusal is not None:
            self._lobby.turns.add(None, self._turn)
        elif not self._read():
            seconds = self._lobby.clients.limits.head_seconds
            self._timer = self._lobby.loop.call_later(seconds, self.evict)
            self._lobby.waiting.add(self)
            self._lobby.loop.add_reader(self.sock, self._read)

    def evict(self) -> None:
        """End now: it is late, has left, or somebody else needs the place."""
        if not self.gone:
            self.gone = True
            self.data = b""  # its turn may be far off yet
            self._stop_waiting()
            self._lobby.clients.exit(self)
            if not self.moving:
                # Else a transport has it by now, and ends it as soon as it is there.
                self.sock.close()

    def leave(self) -> None:
        """End, unless it has asked something."""
        self.leaving = True
        if not self.data:
            self.evict()

    def _read(self) -> bool:
        """Whether the wait is over."""
        try:
            self.data = self.sock.recv(FIRST)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.data = b""
        self._stop_waiting()
        if not self.data:
            self.evict()
            return True
        self._lobby.turns.add(self._lobby.guess(self.data), self._turn)
        return True

    def _turn(self) -> bool:
        return self._lobby.come_in(self)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._lobby.waiting.discard(self)
            self._lobby.loop.remove_reader(self.sock)
