"""Waiting for room in a budget: first come, first served, until a deadline.

In charge of the queue in front of a ledger. Within a process it is strict among calls that wait and share a scope:
small ones do not pass a large one that came before them where that one is short, for as long as it may wait. Who is in
front is woken by what is settled here, and looks again at growing intervals for what other processes settle. A call
that may not wait asks at once and does not queue. What is held here comes back for sure, so it may be waited for longer
than what others hold. It knows nothing of attempts, and a denial is no provider's failure.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterable, Mapping
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import msgspec

from streamguard.budgets.ledger import DEFAULT_LEASE, Denied, Hold, Ledger, LedgerLost
from streamguard.budgets.spec import Scope, Settlement

FIRST_LOOK = 0.02
LAST_LOOK = 1.0
"""Seconds between looks for room that other processes made: they double from the first to the last, so that a queue
costs the ledger at most a few transactions a second."""

MAX_KNOWN = 4096
"""Scopes that are remembered as known to the ledger: tenants are any number."""

ANSWER_LIMIT = 30.0
"""Seconds that a ledger may take to answer a call that waits without a deadline."""


class _Turn:
    """A call that waits."""

    def __init__(self, scopes: Iterable[str]) -> None:
        self.lines = set(scopes)
        """The scopes in whose lines it stands: all of its own at first, then the one that it was denied in."""
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
        for scope in turn.lines:
            self.lines.setdefault(scope, deque()).append(turn)
        self._call(turn)

    def leave(self, turn: _Turn) -> None:
        """Leave all lines, and let those come who are in front now."""
        self.waiting -= 1
        self._leave(turn, set(turn.lines))

    def deny(self, turn: _Turn, denied: Denied) -> None:
        """Stand in front of the one line where there is no room: nobody is held up elsewhere."""
        turn.denied = denied
        if denied.scope not in turn.lines:
            self.lines.setdefault(denied.scope, deque()).appendleft(turn)
            turn.lines.add(denied.scope)
        self._leave(turn, turn.lines - {denied.scope})

    def ahead(self, turn: _Turn) -> Denied | None:
        """What somebody ahead was told of a scope that both want."""
        for scope in turn.lines:
            denied = self.lines[scope][0].denied
            if denied is not None and denied.scope == scope:
                return denied
        return None

    def _leave(self, turn: _Turn, scopes: set[str]) -> None:
        firsts = []
        for scope in scopes:
            turn.lines.discard(scope)
            line = self.lines[scope]
            line.remove(turn)
            if line:
                firsts.append(line[0])
            else:
                del self.lines[scope]
        for first in dict.fromkeys(firsts):
            self._call(first)

    def _call(self, turn: _Turn) -> None:
        if all(self.lines[scope][0] is turn for scope in turn.lines):
            turn.came.set()


class ReservationQueue:
    """A ledger with a queue. All calls of a process that share a ledger share one of these.

    Threads with event loops of their own queue each for themselves, and look for what others settle as they look for
    what other processes do: an event belongs to its loop.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._queues: WeakKeyDictionary[object, _Queue] = WeakKeyDictionary()
        self._known: dict[str, Scope] = {}
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
        return sum(queue.waiting for queue in list(self._queues.values()))

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
        held_until: float = -math.inf,
        lease: float = DEFAULT_LEASE,
        caps: Mapping[str, int] | None = None,
    ) -> Hold | Denied:
        """Reserve as soon as there is room, in turn; `Denied` at the deadline, or at once where waiting cannot help.

        :param wait_until: on the running backend's clock; in the past for not waiting.
        :param own_until: the same as long as some of what is missing is held through this queue.
        :param held_until: the same as long as what is held by anybody would be room enough. What dead processes hold
            becomes uncertain when its lease ends, and is not waited for any more.
        :param caps: scope key → the caller's own cap.
        :raises LedgerLost: the store cannot be reached; or, for a call without a deadline, does not answer.
        """
        last = max(wait_until, own_until, held_until)
        if last <= anyio.current_time():
            return await self._reserve(amounts, lease, caps, math.inf)
        queue, turn = self._queue(), _Turn(amounts)
        queue.join(turn)
        try:
            if not turn.came.is_set():
                with anyio.move_on_at(last):
                    await turn.came.wait()
                if not turn.came.is_set() and (denied := queue.ahead(turn)) is not None:
                    return msgspec.structs.replace(denied, asked=amounts[denied.scope])
            return await self._in_front(queue, turn, amounts, (wait_until, own_until, held_until), lease, caps)
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
            self._own.pop(hold.id, None)
            queue = self._queue()
            freed, queue.freed = queue.freed, None
            if freed is not None:
                freed.set()

    async def _reserve(
        self, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None, limit: float
    ) -> Hold | Denied:
        asking = object()
        self._own[asking] = amounts  # the store has the hold before its answer is here
        try:
            with anyio.move_on_after(limit):
                answer = await self.ledger.reserve(amounts, lease=lease, caps=caps)
                if isinstance(answer, Hold):
                    self._own[answer.id] = amounts
                return answer
            raise LedgerLost(f"the ledger has not answered for {limit:g} s")
        finally:
            del self._own[asking]

    async def _in_front(
        self,
        queue: _Queue,
        turn: _Turn,
        amounts: Mapping[str, int],
        until: tuple[float, float, float],
        lease: float,
        caps: Mapping[str, int] | None,
    ) -> Hold | Denied:
        wait_until, _, held_until = until
        look = FIRST_LOOK
        limit = ANSWER_LIMIT if max(until) == math.inf else math.inf
        while True:
            if queue.freed is None:
                queue.freed = anyio.Event()
            freed = queue.freed  # taken before asking, so that what is settled meanwhile is not missed
            answer = await self._reserve(amounts, lease, caps, limit)
            if isinstance(answer, Hold) or answer.hopeless:
                return answer
            # Asked after the denial: what is settled in between has rung, so it is looked for once more.
            last = wait_until
            if self.holds(answer.scope) or freed.is_set():
                last = max(until)
            elif answer.asked <= answer.available + answer.held:
                last = max(last, held_until)
            if anyio.current_time() >= last:
                return answer
            queue.deny(turn, answer)
            with anyio.move_on_at(min(last, anyio.current_time() + look)):
                await freed.wait()
            if held_until > wait_until and look >= LAST_LOOK:
                await self.ledger.sweep()  # else a dead process would be waited for without an end
            look = min(LAST_LOOK, look * 2)
