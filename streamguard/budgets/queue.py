"""Waiting for room in a budget: first come, first served, until a deadline.

In charge of the queue in front of a ledger. Within a process it is strict among calls that ask for the same scopes; the
one in front is woken by what is settled here, and looks again at growing intervals for what other processes settle. A
call that may not wait asks at once and does not queue. What is held here comes back for sure, so it may be waited for
longer than what others hold. It knows nothing of attempts, and a denial is no provider's failure.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Mapping
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import msgspec

from streamguard.budgets.ledger import DEFAULT_LEASE, Denied, Hold, Ledger, LedgerLost
from streamguard.budgets.spec import Settlement

FIRST_LOOK = 0.02
LAST_LOOK = 1.0
"""Seconds between looks for room that other processes made: they double from the first to the last, so that a queue
costs the ledger at most a few transactions a second."""

ANSWER_LIMIT = 30.0
"""Seconds that a ledger may take to answer a call that waits without a deadline."""


class _Line:
    """Calls that wait for the same scopes, the first in front."""

    def __init__(self) -> None:
        self.turns: deque[anyio.Event] = deque()
        self.denied: Denied | None = None
        """What the one in front was last told."""


class _Queue:
    """Everybody who waits on one event loop."""

    def __init__(self) -> None:
        self.lines: dict[frozenset[str], _Line] = {}
        self.freed: anyio.Event | None = None


class ReservationQueue:
    """A ledger with a queue. All calls of a process that share a ledger share one of these.

    Threads with event loops of their own queue each for themselves, and look for what others settle as they look for
    what other processes do: an event belongs to its loop.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._queues: WeakKeyDictionary[object, _Queue] = WeakKeyDictionary()
        self._own: dict[object, Container[str]] = {}
        """The scopes of what is held through this queue, or is about to be, and not settled yet."""

    def _queue(self) -> _Queue:
        loop = anyio.lowlevel.current_token().native_token
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues.setdefault(loop, _Queue())
        return queue

    @property
    def waiting(self) -> int:
        """Calls in the queue, those in front included."""
        return sum(len(line.turns) for queue in list(self._queues.values()) for line in list(queue.lines.values()))

    def holds(self, scope: str) -> bool:
        """Whether some of a scope is held through this queue: it comes back as soon as the calls of this process end.

        :param scope: the scope's key.
        """
        return any(scope in scopes for scopes in list(self._own.values()))

    async def reserve(
        self,
        amounts: Mapping[str, int],
        *,
        wait_until: float = -math.inf,
        own_until: float = -math.inf,
        lease: float = DEFAULT_LEASE,
    ) -> Hold | Denied:
        """Reserve as soon as there is room, in turn; `Denied` at the deadline, or at once where waiting cannot help.

        :param wait_until: on the running backend's clock; in the past for not waiting.
        :param own_until: the same as long as some of what is missing is held through this queue.
        :raises LedgerLost: the store cannot be reached; or, for a call without a deadline, does not answer.
        """
        last = max(wait_until, own_until)
        if last <= anyio.current_time():
            return await self._reserve(amounts, lease, math.inf)
        scopes = frozenset(amounts)
        queue = self._queue()
        line = queue.lines.setdefault(scopes, _Line())
        turn = anyio.Event()
        line.turns.append(turn)
        try:
            if line.turns[0] is not turn:
                with anyio.move_on_at(last):
                    await turn.wait()
                if not turn.is_set() and line.denied is not None:
                    return msgspec.structs.replace(line.denied, asked=amounts[line.denied.scope])
            return await self._in_front(queue, line, amounts, (wait_until, own_until), lease)
        finally:
            line.turns.remove(turn)
            if line.turns:
                line.turns[0].set()
            else:
                queue.lines.pop(scopes, None)

    async def settle(self, hold: Hold, settlements: Mapping[str, Settlement], *, until: float = math.inf) -> bool:
        """Settle, and let the calls in front look again; see `Ledger.settle`."""
        try:
            return await self.ledger.settle(hold, settlements, until=until)
        finally:
            self._own.pop(hold.id, None)
            queue = self._queue()
            freed, queue.freed = queue.freed, None
            if freed is not None:
                freed.set()

    async def _reserve(self, amounts: Mapping[str, int], lease: float, limit: float) -> Hold | Denied:
        asking = object()
        self._own[asking] = amounts  # the store has the hold before its answer is here
        try:
            with anyio.move_on_after(limit):
                answer = await self.ledger.reserve(amounts, lease=lease)
                if isinstance(answer, Hold):
                    self._own[answer.id] = amounts
                return answer
            raise LedgerLost(f"the ledger has not answered for {limit:g} s")
        finally:
            del self._own[asking]

    async def _in_front(
        self, queue: _Queue, line: _Line, amounts: Mapping[str, int], until: tuple[float, float], lease: float
    ) -> Hold | Denied:
        look = FIRST_LOOK
        while True:
            if queue.freed is None:
                queue.freed = anyio.Event()
            freed = queue.freed  # taken before asking, so that what is settled meanwhile is not missed
            answer = await self._reserve(amounts, lease, ANSWER_LIMIT if max(until) == math.inf else math.inf)
            if isinstance(answer, Hold) or answer.hopeless:
                return answer
            # Asked after the denial: what is settled in between has rung, so it is looked for once more.
            last = max(until) if self.holds(answer.scope) or freed.is_set() else until[0]
            if anyio.current_time() >= last:
                return answer
            line.denied = answer
            with anyio.move_on_at(min(last, anyio.current_time() + look)):
                await freed.wait()
            look = min(LAST_LOOK, look * 2)
