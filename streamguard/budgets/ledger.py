"""Where balances live: the contract of all ledgers, and the ledger that async code uses.

In charge of holds: reserve over all scopes in one atomic step, heartbeat, settle once, sweep what crashed, reconcile
what stayed uncertain. No reservation makes settled + held + uncertain of a scope and window exceed its cap; a hold is
there before the first request byte, and only evidence reduces it. It knows no prices, policies or requests.

A `Store` is a backend with blocking, thread-safe verbs: see `ledgers/`, of which `memory` is the model of them all. A
`Ledger` is one store for async code on any anyio backend.

Life of a hold in one scope: ``held → closed`` by `settle`, or ``held → swept`` when its lease expires (all of it
becomes uncertain) and then ``swept → closed`` by a late `settle`. What a closed hold leaves uncertain waits for
`reconcile_hold` or `reconcile_scope`; what they clear of a swept hold is ``reconciled``, and a late `settle` adds to
it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.upper_bound import Bound
from streamguard.errors import ConfigError, StreamguardError
from streamguard.usage import Unit

DEFAULT_LEASE = 60.0
"""Seconds for which a hold lives without a heartbeat (Cycles uses the same). Only bookkeeping depends on it: an expired
hold is not freed, it becomes uncertain."""

LATE = 7 * 86_400.0
"""Seconds for which a hold that was reconciled before it was settled may still be settled: a suspended machine."""

TAKE_BACK = 0.03
"""Seconds that a store gets after a call's end, before what it was asked for is left to be done late."""

_log = logging.getLogger("streamguard")

T = TypeVar("T")


class LedgerLost(StreamguardError):
    """The store cannot be reached or no longer holds what it held. Nothing may be sent on its account any more."""


class LedgerError(ConfigError):
    """A ledger that cannot be used as it is set up: a scope it does not know, a store it refuses."""


class Hold(msgspec.Struct, kw_only=True, eq=False):
    """An amount put aside in several scopes until an attempt is settled."""

    id: str
    amounts: Mapping[str, int]
    """Scope key → amount, in the scope's unit."""
    lease: float = DEFAULT_LEASE
    """Seconds that a heartbeat is good for."""
    heartbeat_due: float = 0.0
    """When to call `Ledger.heartbeat`, on the running backend's clock: a third of the lease after the last one."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """A scope has no room. Nothing was reserved in any scope."""

    scope: str
    unit: Unit
    asked: int
    available: int
    cap: int
    held: int
    """Of what is taken, the part that may come back when open holds settle."""
    window: str = ""
    bounds: Bound | None = None
    """What the denied request can cost at the most, as the reservation worked it out; `None` from a bare ledger."""

    @property
    def hopeless(self) -> bool:
        """Whether waiting cannot help: not even if all open holds came back, and no new window will begin."""
        return self.asked > (self.cap if self.window else self.available + self.held)


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """A scope's account in one window, in the scope's unit."""

    scope: str
    unit: Unit
    cap: int
    settled: int = 0
    held: int = 0
    uncertain: int = 0
    window: str = ""
    """Such as `2026-11-21T03`, `2026-11-21` or `2026-11` (UTC); empty for a scope without windows."""

    @property
    def taken(self) -> int:
        """All that counts against the cap."""
        return self.settled + self.held + self.uncertain

    @property
    def available(self) -> int:
        """What can still be reserved."""
        return max(0, self.cap - self.taken)


DoubtKind = Literal["aborted", "lost"]
"""Why an amount is uncertain: an attempt without a final count, or a process whose lease ran out."""


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """What is uncertain in a scope, of one kind."""

    kind: DoubtKind
    holds: int
    amount: int
    since: float
    """Unix seconds of the oldest."""


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """A counter that did not agree with the rows it counts."""

    scope: str
    window: str
    was: tuple[int, int, int]
    """Settled, held, uncertain."""
    now: tuple[int, int, int]


class Store(Protocol):
    """A backend: blocking verbs, safe to call from several threads, atomic each."""

    blocks: bool
    """Whether verbs wait for a disk or a network, so that async code calls them in a thread."""

    @property
    def caveats(self) -> Sequence[str]:
        """What the store's promise rests on, in sentences, to be shown to whoever relies on it."""

    def configure(self, scopes: Sequence[Scope]) -> None:
        """Make scopes known with the caps of a policy; the latest call wins. Unit and window of a scope never change.

        :raises LedgerError: a known scope with another unit or window.
        """

    def set_cap(self, scope: str, cap: int | None) -> None:
        """Hold a scope's cap down to `cap`, whatever policies say, until it is unset (`None`).

        :raises LedgerError: a scope that was never configured.
        """

    def scopes(self) -> Sequence[Scope]:
        """Every scope that was ever configured, by key, with the cap that counts now."""

    def reserve(
        self, hold: str, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        """Put `amounts` aside in all scopes, or in none. The same id again changes nothing.

        The smallest cap of a scope counts: the caller's in `caps`, the one last configured, the one that was set.

        :raises LedgerError: a scope that was never configured.
        """

    def heartbeat(self, hold: str, lease: float) -> None:
        """Make the lease good for `lease` seconds from now.

        :raises LedgerLost: the lease expired and was swept, or the hold is gone.
        """

    def settle(self, hold: str, settlements: Mapping[str, Settlement]) -> bool:
        """Close a hold: once; later calls change nothing and return False. A scope left out stays uncertain.

        What a hold spent that was reconciled, or freed by time, before it was settled is added: nobody had counted it.
        """

    def reconcile_hold(self, hold: str, settled: Mapping[str, int]) -> bool:
        """Replace what a closed or swept hold left uncertain by what it truly cost; False if nothing was uncertain.

        A scope without amount keeps what it has.
        """

    def reconcile_scope(self, scope: str, settled: int, window: str | None = None, before: float | None = None) -> bool:
        """Replace all that is uncertain in a scope (in its present window, if none is named) by what it truly cost.

        :param before: Unix seconds: only what has been uncertain since before then.
        """

    def uncertain(self, scope: str, window: str | None = None) -> Sequence[Doubt]:
        """What is uncertain in a scope, by kind."""

    def balance(self, scope: str, window: str | None = None) -> Balance:
        """The account of a scope, in its present window if none is named."""

    def sweep(self) -> int:
        """Turn holds whose lease expired into uncertain amounts, and free uncertain ones whose time is over.

        Returns how many were changed.
        """

    def rebuild(self) -> Sequence[Repair]:
        """Sum the rows up again and correct the counters; returns what was wrong."""

    def close(self) -> None:
        """Let go of files and sockets."""


class Ledger:
    """A store for async code: asyncio and trio, any number of tasks.

    A cancelled `reserve` leaves no hold behind; a cancelled `settle` still settles.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._late = _Late()
        self._limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar(f"ledger-{id(self)}")

    @property
    def caveats(self) -> Sequence[str]:
        """What the ledger's promise rests on, in sentences."""
        return self.store.caveats

    async def configure(self, scopes: Iterable[Scope]) -> None:
        """See `Store.configure`."""
        await self._call(self.store.configure, tuple(scopes), leave=True)

    async def scopes(self) -> Sequence[Scope]:
        """See `Store.scopes`."""
        return await self._call(self.store.scopes)

    async def set_cap(self, scope: str, cap: int | None) -> None:
        """See `Store.set_cap`."""
        await self._call(self.store.set_cap, scope, cap)

    async def reserve(
        self,
        amounts: Mapping[str, int],
        *,
        lease: float = DEFAULT_LEASE,
        caps: Mapping[str, int] | None = None,
    ) -> Hold | Denied:
        """Put `amounts` (scope key → amount) aside in one atomic step over all scopes, or in none.

        :param caps: scope key → the caller's own cap; the smallest one counts.
        :raises LedgerLost: the store cannot be reached.
        :raises LedgerError: a scope that was never configured.
        """
        hold = Hold(id=secrets.token_hex(8), amounts=dict(amounts), lease=lease, heartbeat_due=_due(lease))
        task = _Errand(
            lambda: self.store.reserve(hold.id, hold.amounts, lease, caps),
            undo=lambda: self.store.settle(hold.id, dict.fromkeys(hold.amounts, Settlement(0))),
        )
        try:
            denied = await self._call(task.run, leave=True)
        except LedgerLost:
            # The store may have taken the hold all the same, or take it as soon as it wakes.
            self._late.add(task.take_back)
            raise
        except anyio.get_cancelled_exc_class():
            # Nobody will ever settle this hold: its thread may be at work still, or be done without our knowing.
            if task.abandon():
                with contextlib.suppress(LedgerLost):
                    await self._surely(_Errand(task.take_back), anyio.current_time() + TAKE_BACK)
            raise
        return hold if denied is None else denied

    async def reserve_as(
        self, hold: str, amounts: Mapping[str, int], *, lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        """Reserve under a name of the caller's, who has noted it before: the same name again is the same hold.

        A call that is cancelled, or whose store is lost, may have made the hold: say it again, or settle it.

        :raises LedgerLost: the store cannot be reached.
        :raises LedgerError: a scope that was never configured.
        """
        return await self._call(self.store.reserve, hold, dict(amounts), lease, caps, leave=True)

    async def heartbeat(self, hold: Hold) -> None:
        """Keep a hold's lease alive. Call it when `hold.heartbeat_due` has come.

        :raises LedgerLost: the store cannot be reached or the lease has expired: abort the stream.
        """
        due = _due(hold.lease)
        await self._call(self.store.heartbeat, hold.id, hold.lease, leave=True)
        hold.heartbeat_due = due

    async def settle(self, hold: Hold, settlements: Mapping[str, Settlement], *, until: float = math.inf) -> bool:
        """Close a hold once; see `Store.settle`. Runs to its end even if cancelled.

        :param until: when to stop waiting for a store that hangs, on the running backend's clock. It is settled all
            the same, behind our back, as soon as the store answers.
        :raises LedgerLost: the store cannot be reached; the hold stays and its lease will turn it uncertain.
        """
        settlements = dict(settlements)
        return await self._surely(_Errand(lambda: self.store.settle(hold.id, settlements)), until)

    async def reconcile_hold(self, hold: Hold | str, settled: Mapping[str, int]) -> bool:
        """See `Store.reconcile_hold`."""
        return await self._call(self.store.reconcile_hold, hold if isinstance(hold, str) else hold.id, dict(settled))

    async def reconcile_scope(
        self, scope: str, settled: int, window: str | None = None, before: float | None = None
    ) -> bool:
        """See `Store.reconcile_scope`."""
        return await self._call(self.store.reconcile_scope, scope, settled, window, before)

    async def uncertain(self, scope: str, window: str | None = None) -> Sequence[Doubt]:
        """See `Store.uncertain`."""
        return await self._call(self.store.uncertain, scope, window)

    async def balance(self, scope: str, window: str | None = None) -> Balance:
        """See `Store.balance`."""
        return await self._call(self.store.balance, scope, window, leave=True)

    async def sweep(self) -> int:
        """See `Store.sweep`."""
        return await self._call(self.store.sweep, leave=True)

    async def rebuild(self) -> Sequence[Repair]:
        """See `Store.rebuild`."""
        return await self._call(self.store.rebuild)

    async def aclose(self, *, until: float = math.inf) -> None:
        """Let go of files and sockets; after `until` behind our back, see `settle`."""
        with contextlib.suppress(LedgerLost):
            await self._surely(_Errand(self.store.close), until)

    async def _surely(self, task: _Errand[T], until: float = math.inf) -> T:
        """Run a task to its end. asyncio's own `Task.cancel` passes shields, so what it stopped is begun again.

        :raises LedgerLost: it has not ended by `until`.
        """
        if self._late.busy and until < math.inf:
            self._late.add(task.again)
            raise LedgerLost("earlier requests still wait for the store; this one waits behind them")
        stopped: BaseException | None = None
        ended = False
        with anyio.CancelScope(shield=True, deadline=until) as scope:
            while not task.started:
                try:
                    result = await self._call(task.run, leave=until < math.inf)
                    ended = True
                except anyio.get_cancelled_exc_class() as cancelled:
                    if scope.cancel_called:
                        raise
                    stopped = cancelled
        if scope.cancelled_caught:
            # A thread may be at it, or not have begun. Verbs run twice change nothing.
            self._late.add(task.again)
            raise LedgerLost("the store hangs; what it was asked for is done as soon as it answers")
        if stopped is not None or not ended:
            raise stopped or LedgerLost("stopped before it ended")
        return result

    async def _call(self, verb: Callable[..., T], *args: Any, leave: bool = False) -> T:
        """Run a verb, in a thread if it blocks.

        :param leave: whether a cancellation may leave the thread to end by itself: a locked file must not hold up a
            call whose deadline has come.
        """
        if not self.store.blocks:
            return verb(*args)
        try:
            limiter = self._limiter.get()
        except LookupError:
            # One thread at a time: a store has one connection, and others must not wait for it in the shared pool.
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(functools.partial(verb, *args), limiter=limiter, abandon_on_cancel=leave)


class _Errand(Generic[T]):
    """A verb on its way through a thread, so that what was asked for can be taken back."""

    def __init__(self, verb: Callable[[], T], undo: Callable[[], object] | None = None) -> None:
        self._verb, self._undo = verb, undo
        self._lock = threading.Lock()
        self.started = self.done = self.abandoned = False

    def run(self) -> T:
        """In the thread."""
        with self._lock:
            self.started = True
            if self.abandoned:
                raise LedgerLost("cancelled before it began")
        result = self._verb()
        with self._lock:
            self.done = True
            late = self.abandoned
        if late:
            self.take_back()
        return result

    def again(self) -> T:
        """The verb, whether or not it was run before."""
        return self._verb()

    def abandon(self) -> bool:
        """Say that nobody waits any more; True if the verb is done already, so that somebody must take it back."""
        with self._lock:
            self.abandoned = True
            return self.done

    def take_back(self) -> None:
        """Undo the verb. A store that cannot be reached keeps it, and its lease turns it uncertain."""
        if self._undo is not None:
            with contextlib.suppress(StreamguardError):
                self._undo()


class _Late:
    """What nobody waits for any more, done in order by a thread of its own that ends with it. Daemonic: a process that
    ends before the store answers leaves holds behind, which their leases turn uncertain."""

    def __init__(self) -> None:
        self._todo: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether something is still to be done."""
        return self._thread is not None

    def add(self, errand: Callable[[], object]) -> None:
        """Do it after what was added before."""
        with self._lock:
            self._todo.append(errand)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-late", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    self._thread = None
                    return
                errand = self._todo.popleft()
            try:
                errand()
            except Exception as error:
                _log.warning("a ledger's late request failed, its lease turns the hold uncertain: %s", error)


def _due(lease: float) -> float:
    return anyio.current_time() + lease / 3
