"""An HTTP/1.1 server for one ASGI application, in the running asyncio loop.

In charge of who is connected: how many, from where, who has to go when there are too many, and an end in good order.
Every connection has a clock for each of its states, see `connection`. Signals, processes and TLS are not its business.

Why not uvicorn: its connections have no clock for a body, none between an early answer and the next request, and its
parser is a second reader behind the framing; to give it clocks meant to subclass what it does not promise to keep.
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import anyio

from streamguard.http.connection import ClientConnection
from streamguard.http.exchange import App, Exchange
from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused

BACKLOG: Final = 2048
"""Connections that the kernel keeps for us until they are accepted."""


class Clients:
    """The connections of one server, with what they share.

    Where there are too many, the oldest goes that no known client has. So whoever only holds connections loses them,
    and a client that comes and asks is served. Known clients lose theirs between two requests only.
    """

    def __init__(self, app: App, limits: Limits, on_refused: Callable[[Refused], None]) -> None:
        self.limits = limits
        self.on_refused = on_refused
        """Told of every refusal before there was a request."""
        self.connections: dict[ClientConnection, None] = {}
        """By age, the oldest first."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Applications that run."""
        self.changed = asyncio.Event()
        self._app = app
        self._strangers: dict[ClientConnection, None] = {}
        self._by_address: Counter[str] = Counter()
        self._date = (0, b"")

    def enter(self, connection: ClientConnection) -> Refused | None:
        """Count a new connection. What it is refused with, if there is no place for it."""
        limits, address = self.limits, self._address(connection)
        self.connections[connection] = self._strangers[connection] = None
        self._by_address[address] += 1
        most = limits.connections_per_address
        if most is not None and self._by_address[address] > most:
            return Refused("too_many_connections", f"{most} from one address", headers={"retry-after": "1"})
        if len(self.connections) > limits.connections and not self._evict(connection):
            return Refused("too_many_connections", headers={"retry-after": "1"})
        return None

    def exit(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        self.connections.pop(connection, None)
        self._strangers.pop(connection, None)
        address = self._address(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        self.changed.set()

    def _evict(self, newcomer: ClientConnection) -> bool:
        """Make room for a new connection. Whether there is."""
        while self._strangers:
            oldest = next(iter(self._strangers))
            if oldest is newcomer:
                break
            del self._strangers[oldest]
            if not oldest.known:
                oldest.evict()
                return True
        idle = next((one for one in self.connections if one.idle and one.known), None)
        if idle is None:
            return False
        idle.evict()
        return True

    def start(self, exchange: Exchange) -> None:
        """Run the application for a request."""
        task = asyncio.get_running_loop().create_task(exchange.run(self._app))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.changed.set()
        if not task.cancelled():
            task.exception()  # an Exchange lets none out; whatever it is, it was seen

    def date(self) -> bytes:
        """The value of the `date` header."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, email.utils.formatdate(now, usegmt=True).encode("ascii")
        return self._date[1]

    @staticmethod
    def _address(connection: ClientConnection) -> str:
        return connection.client[0] if connection.client is not None else ""


def _ignore(refusal: Refused) -> None:
    """Tell nobody."""


class Server:
    """A server on one socket. Serve once.

    :param on_refused: told of every refusal before there was a request.
    :param goodbye: seconds that running answers get to end after `stop`, before their tasks are cancelled.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        *,
        on_refused: Callable[[Refused], None] = _ignore,
        goodbye: float = 5.0,
    ) -> None:
        self._clients: Clients | None = None
        self._app, self._limits, self._on_refused = app, limits, on_refused
        self._goodbye = goodbye
        self._stopping = anyio.Event()
        self._at_once = False

    @property
    def connected(self) -> int:
        """Clients connected."""
        return 0 if self._clients is None else len(self._clients.connections)

    async def serve(self, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then let running answers end. Closes the socket."""
        clients = self._clients = Clients(self._app, self._limits, self._on_refused)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: ClientConnection(clients), sock=listener, backlog=BACKLOG)
        try:
            started()
            await self._stopping.wait()
        finally:
            listening.close()
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
