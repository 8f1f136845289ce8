"""The budgets of a policy at work: bound, reserve in every ledger, keep alive, settle by evidence.

In charge of bringing specs, bounds and ledgers together for one attempt after another. It does not know streams or
retries; it is told what is known of an attempt when it is over.

Within one ledger a reservation is one atomic step over all scopes. Budgets in several ledgers are reserved one ledger
after the other, and given back if a later one has no room: nothing is ever exceeded, but a denial may have been close.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from streamguard.budgets.ledger import DEFAULT_LEASE, TAKE_BACK, Denied, Hold, Ledger, LedgerError, LedgerLost
from streamguard.budgets.queue import ReservationQueue
from streamguard.budgets.spec import BudgetSpec, Evidence, InputBound, NotBilled, Scope, Settlement, settle
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.stores.memory import MemoryStore
from streamguard.budgets.upper_bound import Bound, BudgetMode, Unbounded, bound
from streamguard.outcome import Charge
from streamguard.pricing.price import Price
from streamguard.request import Request


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one limit of one budget holds for an attempt."""

    spec: BudgetSpec
    scope: Scope
    amount: int
    bounds: Bound
    price: Price | None


class Accounts:
    """The ledgers that a runtime's budgets name, each opened once.

    :param base: the folder that relative paths of ledgers are relative to; the current one, if `None`.
    """

    def __init__(self, *, base: Path | None = None) -> None:
        self._base = base
        self._open: dict[str, ReservationQueue] = {}
        self._opening = threading.Lock()

    async def ledger(self, address: str) -> ReservationQueue:
        """The ledger at an address, with its queue.

        :raises LedgerError: it refuses to be used.
        :raises LedgerLost: it cannot be reached.
        """
        if address not in self._open:
            # A server that does not answer must not hold up a call whose deadline has come.
            await anyio.to_thread.run_sync(self._open_once, address, abandon_on_cancel=True)
        return self._open[address]

    def _open_once(self, address: str) -> None:
        with self._opening:
            if address not in self._open:
                self._open[address] = ReservationQueue(open_ledger(address, base=self._base))

    async def caveats(self, budgets: Sequence[BudgetSpec]) -> tuple[str, ...]:
        """All that the promise of these budgets rests on, in sentences, each once."""
        said = [assumption for spec in budgets for assumption in spec.assumptions]
        for address in dict.fromkeys(spec.ledger for spec in budgets if spec.per != "call"):
            said += (await self.ledger(address)).ledger.caveats
        return tuple(dict.fromkeys(said))

    async def for_call(
        self, budgets: Sequence[BudgetSpec], *, job: str | None = None, labels: Mapping[str, Any] | None = None
    ) -> CallAccount:
        """The accounts of one call, its scopes made known to their ledgers.

        :raises LedgerError: a ledger or scope that cannot be used.
        :raises LedgerLost: a ledger that cannot be reached.
        :raises ValueError: a budget per label, and the call has no such label.
        """
        own: ReservationQueue | None = None
        places: list[tuple[ReservationQueue, BudgetSpec, Scope]] = []
        for spec in budgets:
            if spec.per == "call":
                own = own or ReservationQueue(Ledger(MemoryStore()))
            queue = own if spec.per == "call" and own is not None else await self.ledger(spec.ledger)
            places += [(queue, spec, scope) for scope in spec.scopes(job=job, labels=labels)]
        for queue in dict.fromkeys(queue for queue, _, _ in places):
            scopes = {scope.key: scope for its, _, scope in places if its is queue}
            if len(scopes) < sum(its is queue for its, _, _ in places):
                raise LedgerError(f"two budgets are called the same in one ledger: {', '.join(scopes)}; rename one")
            await queue.configure(scopes.values())
        return CallAccount(places)

    async def sweep(self) -> int:
        """Turn what crashed processes held into uncertain amounts, in every open ledger; returns how many holds."""
        return sum([await queue.ledger.sweep() for queue in self._open.values()])

    async def aclose(self, *, until: float = math.inf) -> None:
        """Let go of all ledgers; of those that hang after `until` (on the running backend's clock) without waiting."""
        for queue in self._open.values():
            await queue.ledger.aclose(until=until)
        self._open.clear()


class CallAccount:
    """The budgets of one call: asked for room before each of its attempts."""

    def __init__(self, places: Sequence[tuple[ReservationQueue, BudgetSpec, Scope]]) -> None:
        self._places = places

    async def reserve(
        self,
        request: Request | None,
        price: Price | None,
        *,
        deadline: float = math.inf,
        counted: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        lease: float = DEFAULT_LEASE,
        own_until: float = -math.inf,
        held_until: float = -math.inf,
    ) -> Reservation | Denied | Unbounded:
        """Hold the most that `request` can cost, in every budget or in none, before its first byte is sent.

        Queues for as long as the budgets' `wait` and the `deadline` (on the running backend's clock) allow.

        :param price: of this very request (`PriceBook.for_request`).
        :param counted: the provider's own count of the input, for budgets that rest on it.
        :param input_tokens: an upper estimate of the input, for calibrated budgets.
        :param output_tokens: an upper estimate of the output, for calibrated budgets.
        :param own_until: how long to queue, beyond the budgets' `wait`, for what other calls of this process hold.
        :param held_until: the same for what calls of any process hold.
        :raises LedgerLost: a ledger cannot be reached; nothing may be sent.
        """
        claims: dict[ReservationQueue, list[_Claim]] = {}
        known: dict[tuple[BudgetMode, bool, InputBound], Bound | Unbounded] = {}
        for queue, spec, scope in self._places:
            kind = spec.mode, spec.cost_usd is not None, spec.input_bound
            if kind not in known:
                known[kind] = bound(
                    request,
                    price,
                    mode=spec.mode,
                    needs_price=spec.cost_usd is not None,
                    counted=counted if spec.input_bound == "counted" else None,
                    input_tokens=input_tokens,
                    output_tokens=output_tokens,
                )
            bounds = known[kind]
            if isinstance(bounds, Unbounded):
                return Unbounded(why=f"budget {spec.name!r}: {bounds.why}")
            # A bound that needs a price has one.
            amount = bounds.tokens if bounds.micro_usd is None else bounds.of(scope.unit) or 0
            claim = _Claim(spec=spec, scope=scope, amount=amount, bounds=bounds, price=price)
            claims.setdefault(queue, []).append(claim)
        reservation = Reservation()
        try:
            for queue, its in claims.items():
                answer = await self._alive(reservation, queue, its, (deadline, own_until, held_until), lease)
                if isinstance(answer, Denied):
                    with contextlib.suppress(LedgerLost):
                        await reservation.settle(NotBilled(), until=max(deadline, anyio.current_time() + TAKE_BACK))
                    bounds = next(claim.bounds for claim in its if claim.scope.key == answer.scope)
                    return msgspec.structs.replace(answer, bounds=bounds)
                reservation.add(queue, answer, its)
        except BaseException:
            with anyio.CancelScope(shield=True), contextlib.suppress(LedgerLost):
                await reservation.settle(NotBilled(), until=anyio.current_time() + TAKE_BACK)
            raise
        return reservation

    async def left(self) -> dict[str, int]:
        """What each limit has left, by scope, in the scope's unit.

        :raises LedgerLost: a ledger cannot be reached.
        """
        return {scope.key: (await queue.ledger.balance(scope.key)).available for queue, _, scope in self._places}

    async def _alive(
        self,
        reservation: Reservation,
        queue: ReservationQueue,
        claims: Sequence[_Claim],
        until: tuple[float, float, float],
        lease: float,
    ) -> Hold | Denied:
        """Reserve in one more ledger, and keep what the others hold alive meanwhile: the wait may outlast a lease.

        :raises LedgerLost: one of them is lost.
        """
        waits = max(until[1:]) > -math.inf or any(claim.spec.wait for claim in claims)
        if not reservation or not waits:
            return await self._reserve(queue, claims, until, lease)
        lost: LedgerLost | None = None
        answer: Hold | Denied | None = None
        async with anyio.create_task_group() as beside:

            async def keep() -> None:
                nonlocal lost
                try:
                    while True:
                        await anyio.sleep(max(0.0, reservation.heartbeat_due - anyio.current_time()))
                        await reservation.heartbeat()
                except LedgerLost as error:
                    lost = error
                    beside.cancel_scope.cancel()

            beside.start_soon(keep)
            try:
                answer = await self._reserve(queue, claims, until, lease)
            except LedgerLost as error:
                lost = error
            beside.cancel_scope.cancel()
        if answer is None or lost is not None:
            if isinstance(answer, Hold):
                reservation.add(queue, answer, list(claims))
            raise lost or LedgerLost("stopped while waiting for another ledger")
        return answer

    async def _reserve(
        self, queue: ReservationQueue, claims: Sequence[_Claim], until: tuple[float, float, float], lease: float
    ) -> Hold | Denied:
        """:param until: the call's deadline; how long to queue for what this process holds; the same for all."""
        amounts = {claim.scope.key: claim.amount for claim in claims}
        wait = max(claim.spec.wait for claim in claims)
        deadline = until[0]
        others = min(deadline, anyio.current_time() + wait) if wait else -math.inf
        waits = {"own_until": min(deadline, until[1]), "held_until": min(deadline, until[2])}
        caps = {claim.scope.key: claim.scope.cap for claim in claims}
        answer = await queue.reserve(amounts, wait_until=others, **waits, lease=lease, caps=caps)
        releases = any(claim.scope.release_after is not None for claim in claims)
        if isinstance(answer, Denied) and releases and await queue.ledger.sweep():
            answer = await queue.reserve(amounts, wait_until=others, **waits, lease=lease, caps=caps)
        return answer


class Reservation:
    """What all budgets hold for one attempt."""

    def __init__(self) -> None:
        self._parts: list[tuple[ReservationQueue, Hold, list[_Claim]]] = []

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._parts)

    def add(self, queue: ReservationQueue, hold: Hold, claims: list[_Claim]) -> None:
        """Another ledger's hold."""
        self._parts.append((queue, hold, claims))

    @property
    def good_until(self) -> float:
        """When the first hold's lease ends, on the running backend's clock, unless `heartbeat` is called before."""
        return min((hold.heartbeat_due + hold.lease * 2 / 3 for _, hold, _ in self._parts), default=math.inf)

    @property
    def heartbeat_due(self) -> float:
        """When to call `heartbeat`, on the running backend's clock; `inf` once settled, and without budgets."""
        return min((hold.heartbeat_due for _, hold, _ in self._parts), default=math.inf)

    async def heartbeat(self) -> None:
        """Keep the holds alive that are due.

        :raises LedgerLost: a hold or its ledger is lost: abort the stream, for nothing covers it any more.
        """
        now = anyio.current_time()
        for queue, hold, _ in self._parts:
            if hold.heartbeat_due <= now:
                await queue.ledger.heartbeat(hold)

    async def settle(self, evidence: Evidence, *, until: float = math.inf) -> tuple[Charge, ...]:
        """Close all holds by what is known of the attempt. Once: a second call does nothing and returns nothing.

        :param until: when to stop waiting for a ledger that hangs, on the running backend's clock.
        :raises LedgerLost: a ledger cannot be reached; the others are settled, and its lease turns the hold uncertain.
        """
        parts, self._parts = self._parts, []
        done: list[Charge] = []
        failed: BaseException | None = None
        for queue, hold, claims in parts:
            settlements: dict[str, Settlement] = {}
            for claim in claims:
                unit = claim.scope.unit
                settlement = settle(claim.spec, unit, claim.amount, evidence, claim.bounds, claim.price)
                settlements[claim.scope.key] = settlement
                done.append(
                    Charge(
                        budget=claim.spec.name,
                        unit=unit,
                        held=claim.amount,
                        settled=settlement.settled,
                        uncertain=settlement.uncertain,
                    )
                )
            try:
                with anyio.CancelScope(shield=True):
                    await queue.settle(hold, settlements, until=until)
            except (LedgerLost, anyio.get_cancelled_exc_class()) as error:
                failed = failed or error  # the other ledgers are settled first
        if failed is not None:
            raise failed
        return tuple(done)
