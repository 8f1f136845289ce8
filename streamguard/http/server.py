"""An HTTP/1.1 server for one ASGI application, in the running asyncio loop.

In charge of the listening socket and of an end in good order. Who is connected is `clients`; every connection has a
clock for each of its states, see `connection`. Signals, processes and TLS are not its business.

Why not uvicorn: its connections have no clock for a body, none between an early answer and the next request, and its
parser is a second reader behind the framing; to give it clocks meant to subclass what it does not promise to keep.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import anyio

from streamguard.http.clients import Clients
from streamguard.http.connection import ClientConnection
from streamguard.http.exchange import App
from streamguard.http.limits import Limits
from streamguard.http.lobby import Guess, Lobby
from streamguard.http.refusals import Refused

BACKLOG: Final = 2048
"""Connections that the kernel keeps for us until they are accepted."""


def _ignore(refusal: Refused) -> None:
    """Tell nobody."""


def _everybody(first: bytes) -> str | None:  # noqa: ARG001
    """Take everybody for the same client."""
    return ""


class Server:
    """A server on one socket. Serve once.

    :param on_refused: told of every refusal before there was a request.
    :param guess: who seems to ask, by a connection's first bytes: known clients have their turn before strangers.
    :param goodbye: seconds that running answers get to end after `stop`, before their tasks are cancelled.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        *,
        on_refused: Callable[[Refused], None] = _ignore,
        guess: Guess = _everybody,
        goodbye: float = 5.0,
    ) -> None:
        self._clients: Clients | None = None
        self._app, self._limits, self._on_refused = app, limits, on_refused
        self._guess, self._goodbye = guess, goodbye
        self._stopping = anyio.Event()
        self._at_once = False

    @property
    def connected(self) -> int:
        """Clients connected."""
        return 0 if self._clients is None else len(self._clients.connections)

    async def serve(self, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then let running answers end. Closes the socket."""
        clients = self._clients = Clients(self._app, self._limits, self._on_refused)
        close = await _listen(clients, listener, self._guess)
        try:
            started()
            await self._stopping.wait()
        finally:
            close()
            listener.close()
            with anyio.CancelScope(shield=True):
                await self._end(clients)

    def stop(self, *, at_once: bool = False) -> None:
        """End `serve`: nothing new is accepted, idle connections are closed, running answers may end.

        :param at_once: cancel those that run.
        """
        self._at_once = self._at_once or at_once
        self._stopping.set()
        if self._clients is not None:
            self._clients.changed.set()

    async def _end(self, clients: Clients) -> None:
        # A connection that was accepted a moment ago is made in the loop's next pass.
        await asyncio.sleep(0)
        for connection in list(clients.connections):
            connection.leave()
        with anyio.move_on_after(self._goodbye):
            while (clients.connections or clients.tasks) and not self._at_once:
                clients.changed.clear()
                await clients.changed.wait()
        for task in list(clients.tasks):
            task.cancel()
        if clients.tasks:
            await asyncio.wait(clients.tasks, timeout=self._goodbye)
        for connection in list(clients.connections):
            connection.evict()


async def _listen(clients: Clients, listener: socket.socket, guess: Guess) -> Callable[[], None]:
    """Begin to accept connections; returns what ends it."""
    lobby = Lobby(clients, listener, guess)
    listener.listen(BACKLOG)
    try:
        lobby.open()
    except NotImplementedError:
        # Windows' own event loop: it accepts by itself, in the order of coming.
        listening = await lobby.loop.create_server(lambda: ClientConnection(clients), sock=listener)
        return listening.close
    return lobby.close
