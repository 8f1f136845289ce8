"""Who is connected to a server: how many, from where, and who has to go when there are too many.

In charge of the places of one server, and of what its connections share: limits, application, the date of responses.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from streamguard.http.exchange import App, Exchange
from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused
from streamguard.http.turns import Turns


class Guest(Protocol):
    """A connection, as far as its place is concerned."""

    client: tuple[str, int] | None

    @property
    def known(self) -> bool:
        """Whether the application knows who asks here."""

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""

    def evict(self) -> None:
        """End now."""

    def leave(self) -> None:
        """End as soon as no request is being answered."""


class Clients:
    """The connections of one server, with what they share.

    Where there are too many, the oldest goes that no known client has. So whoever only holds connections loses them,
    and a client that comes and asks is served. Known clients lose theirs between two requests only.
    """

    def __init__(self, app: App, limits: Limits, on_refused: Callable[[Refused], None]) -> None:
        self.limits = limits
        self.on_refused = on_refused
        """Told of every refusal before there was a request."""
        self.connections: dict[Guest, None] = {}
        """By age, the oldest first."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Applications that run."""
        self.changed = asyncio.Event()
        self._app = app
        self._turns = Turns()
        self._strangers: dict[Guest, None] = {}
        self._by_address: Counter[str] = Counter()
        self._date = (0, b"")

    def enter(self, connection: Guest) -> Refused | None:
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

    def take_over(self, earlier: Guest, connection: Guest) -> None:
        """Give an earlier guest's place to another, as the youngest."""
        for places in (self.connections, self._strangers):
            if earlier in places:
                del places[earlier]
                places[connection] = None

    def exit(self, connection: Guest) -> None:
        """Forget a connection."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self._strangers.pop(connection, None)
        address = self._address(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        self.changed.set()

    def _evict(self, newcomer: Guest) -> bool:
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

    def start(self, exchange: Exchange, *, at_once: bool = True) -> None:
        """Run the application for a request.

        :param at_once: now, and not when strangers have their turn.
        """
        if not at_once:
            self._turns.add(None, lambda: self.start(exchange))
            return
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
    def _address(connection: Guest) -> str:
        return connection.client[0] if connection.client is not None else ""
