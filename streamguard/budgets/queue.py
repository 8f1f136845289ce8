"""Waiting for room in a budget: first come, first served, until a deadline.

In charge of the queue in front of a ledger. Within a process it is strict among calls that wait and share a scope:
small ones do not pass a large one that came before them, for as long as it may wait. Who is in front is woken by what
is settled here, and looks again at growing intervals for what other processes settle. A call that may not wait asks at
once and does not queue. It knows nothing of attempts, and a denial is no provider's failure.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import msgspec

from streamguard.budgets.ledger import DEFAULT_LEASE, Denied, Hold, Ledger
from streamguard.budgets.spec import Scope, Settlement

FIRST_LOOK = 0.02
MAX_KNOWN = 4096
"""Scopes that are remembered as known to the ledger: tenants are any number."""

LAST_LOOK = 1.0
"""Seconds between looks for room that other processes made: they double from the first to the last, so that a queue
costs the ledger at most a few transactions a second."""


class _Turn:
    """A call that waits."""

    def __init__(self, scopes: frozenset[str]) -> None:
        self.scopes = scopes
        self.came = anyio.Event()
        self.denied: Denied | None = None
        """What it was last told, in front."""


class _Queue:
    """Everybody who waits on one event loop, in one line per scope. Who is first in all of its lines is in front."""

    def __init__(self) -> None:
        self.lines: dict[str, deque[_Turn]] = {}
        self.waiting = 0
        self.freed: anyio.Event | None = None

    def join(self, turn: _Turn) -> None:
        """Stand at the end of every line."""
        self.waiting += 1
        for scope in turn.scopes:
            self.lines.setdefault(scope, deque()).append(turn)
        self._call(turn)

    def leave(self, turn: _Turn) -> None:
        """Leave all lines, and let those come who are in front now."""
        self.waiting -= 1
        firsts = []
        for scope in turn.scopes:
            line = self.lines[scope]
            line.remove(turn)
            if line:
                firsts.append(line[0])
            else:
                del self.lines[scope]
        for first in dict.fromkeys(firsts):
            self._call(first)

    def ahead(self, turn: _Turn) -> Denied | None:
        """What somebody ahead was told of a scope that both want."""
        for scope in turn.scopes:
            denied = self.lines[scope][0].denied
            if denied is not None and denied.scope in turn.scopes:
                return denied
        return None

    def _call(self, turn: _Turn) -> None:
        if all(self.lines[scope][0] is turn for scope in turn.scopes):
            turn.came.set()


class ReservationQueue:
    """A ledger with a queue. All calls of a process that share a ledger share one of these.

    Threads with event loops of their own queue each for themselves, and look for what others settle as they look for
    what other processes do: an event belongs to its loop.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._known: dict[str, Scope] = {}
        self._queues: WeakKeyDictionary[object, _Queue] = WeakKeyDictionary()

    def _queue(self) -> _Queue:
        loop = anyio.lowlevel.current_token().native_token
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues.setdefault(loop, _Queue())
        return queue

    @property
    def waiting(self) -> int:
        """Calls in the queue, those in front included."""
        return sum(queue.waiting for queue in list(self._queues.values()))

    async def reserve(
        self,
        amounts: Mapping[str, int],
        *,
        wait_until: float = -math.inf,
        lease: float = DEFAULT_LEASE,
        caps: Mapping[str, int] | None = None,
    ) -> Hold | Denied:
        """Reserve as soon as there is room, in turn; `Denied` at the deadline, or at once where waiting cannot help.

        :param wait_until: on the running backend's clock; in the past for not waiting.
        :param caps: scope key → the caller's own cap.
        :raises LedgerLost: the store cannot be reached.
        """
        if wait_until <= anyio.current_time():
            return await self.ledger.reserve(amounts, lease=lease, caps=caps)
        queue, turn = self._queue(), _Turn(frozenset(amounts))
        queue.join(turn)
        try:
            if not turn.came.is_set():
                with anyio.move_on_at(wait_until):
                    await turn.came.wait()
                if not turn.came.is_set() and (denied := queue.ahead(turn)) is not None:
                    return msgspec.structs.replace(denied, asked=amounts[denied.scope])
            return await self._in_front(queue, turn, amounts, wait_until, lease, caps)
        finally:
            queue.leave(turn)

    async def configure(self, scopes: Iterable[Scope]) -> None:
        """Make scopes known to the ledger; those that this process has made known stay so."""
        new = [scope for scope in scopes if self._known.get(scope.key) != scope]
        if not new:
            return
        await self.ledger.configure(new)
        if len(self._known) + len(new) > MAX_KNOWN:
            self._known.clear()
        self._known.update((scope.key, scope) for scope in new)

    async def settle(self, hold: Hold, settlements: Mapping[str, Settlement], *, until: float = math.inf) -> bool:
        """Settle, and let the calls in front look again; see `Ledger.settle`."""
        try:
            return await self.ledger.settle(hold, settlements, until=until)
        finally:
            queue = self._queue()
            freed, queue.freed = queue.freed, None
            if freed is not None:
                freed.set()

    async def _in_front(
        self,
        queue: _Queue,
        turn: _Turn,
        amounts: Mapping[str, int],
        wait_until: float,
        lease: float,
        caps: Mapping[str, int] | None,
    ) -> Hold | Denied:
        look = FIRST_LOOK
        while True:
            if queue.freed is None:
                queue.freed = anyio.Event()
            freed = queue.freed  # taken before asking, so that what is settled meanwhile is not missed
            answer = await self.ledger.reserve(amounts, lease=lease, caps=caps)
            if isinstance(answer, Hold) or answer.hopeless or anyio.current_time() >= wait_until:
                return answer
            turn.denied = answer
            with anyio.move_on_at(min(wait_until, anyio.current_time() + look)):
                await freed.wait()
            look = min(LAST_LOOK, look * 2)
