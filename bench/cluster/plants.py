"""Planted mistakes: each changes one rule of ledger, queue, journal, claims or work, and the checker must notice."""

# ruff: noqa: ARG001  each mistake is called as the true function is
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import anyio

from bench.cluster.checker import violations
from bench.cluster.history import history
from streamguard.batch import work as work_module
from streamguard.batch.claims import Claims
from streamguard.batch.journal.contract import Done, Mine, Other
from streamguard.batch.journal.memory import MemoryJournal, Row
from streamguard.batch.work import Work, _Turns
from streamguard.budgets.ledger import Hold, Ledger, LedgerLost
from streamguard.budgets.queue import ReservationQueue
from streamguard.budgets.spec import Settlement
from streamguard.budgets.stores.memory import MemoryStore

PLANTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {}
"""Name → where, which attribute, and what stands there instead."""


def plant(name: str, where: Any, attribute: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a mistake: the function gets the true one first."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        PLANTS[name] = (where, attribute, wrong)
        return wrong

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Make the mistake while the block runs."""
    where, attribute, wrong = PLANTS[name]
    true = getattr(where, attribute)

    def instead(*args: Any, **options: Any) -> Any:
        return wrong(true, *args, **options)

    with patch.object(where, attribute, instead if callable(true) else wrong(true)):
        yield


def found_by(name: str, histories: int) -> tuple[int | None, str]:
    """Return the first seed whose history shows a mistake, and what the checker said."""
    with planted(name):
        for seed in range(histories):
            try:
                wrong = violations(history(seed))
            except Exception as error:
                return seed, f"{type(error).__name__}: {error}"[:90]
            if wrong:
                return seed, wrong[0][:90]
    return None, ""


# The ledger's store


@plant("ledger: reserves without a look at the cap", MemoryStore, "reserve")
def _no_cap(true: Any, self: Any, hold: str, amounts: Any, lease: float, caps: Any = None) -> Any:
    return true(self, hold, amounts, lease, dict.fromkeys(amounts, 10**12)) if _raise(self) else None


def _raise(store: Any) -> bool:
    for key, scope in list(store._scopes.items()):
        store._scopes[key] = type(scope)(key=scope.key, unit=scope.unit, cap=10**12)
    return True


@plant("ledger: settling leaves the hold", MemoryStore, "_close")
def _keeps(true: Any, self: Any, key: str, row: Any, settlement: Any) -> None:
    held = row.amount
    true(self, key, row, settlement)
    self._account(key, row.window).held += held // 10


@plant("ledger: settles half of what was spent", MemoryStore, "settle")
def _half(true: Any, self: Any, hold: str, settlements: Any) -> Any:
    return true(self, hold, {key: Settlement(one.settled // 2, one.uncertain) for key, one in settlements.items()})


@plant("ledger: settles twice", MemoryStore, "settle")
def _twice(true: Any, self: Any, hold: str, settlements: Any) -> Any:
    done = true(self, hold, settlements)
    if not done:
        for key, one in settlements.items():
            self._account(key, "").settled += one.settled
    return done


@plant("ledger: an expired hold is freed", MemoryStore, "sweep")
def _frees(true: Any, self: Any) -> int:
    changed = true(self)
    for rows in list(self._rows.values()):
        for key, row in rows.items():
            if row.state == "swept":
                self._clear(key, row, 0)
    return changed


@plant("ledger: expired holds are never swept", MemoryStore, "sweep")
def _no_sweep(true: Any, self: Any) -> int:
    return 0


@plant("ledger: a late settlement is forgotten", MemoryStore, "settle")
def _late(true: Any, self: Any, hold: str, settlements: Any) -> Any:
    rows = self._rows.get(hold, {})
    if any(row.state == "swept" for row in rows.values()):
        return true(self, hold, dict.fromkeys(settlements, Settlement(0)))
    return true(self, hold, settlements)


@plant("ledger: uncertain amounts do not count against the cap", MemoryStore, "reserve")
def _uncertain(true: Any, self: Any, hold: str, amounts: Any, lease: float, caps: Any = None) -> Any:
    kept = {}
    for key in amounts:
        account = self._account(key, "")
        kept[key], account.uncertain = account.uncertain, 0
    try:
        return true(self, hold, amounts, lease, caps)
    finally:
        for key, amount in kept.items():
            self._account(key, "").uncertain = amount


@plant("ledger: heartbeats do not renew", MemoryStore, "heartbeat")
def _no_renewal(true: Any, self: Any, hold: str, lease: float) -> None:
    for key, row in self._rows.get(hold, {}).items():
        if row.state == "held" and row.lease < self._clock() + 45:
            self._account(key, row.window).held -= row.amount
            del self._rows[hold]
            self._account(key, row.window).rows -= 1
            break


# The ledger's client and queue


@plant("ledger: what was not answered is not taken back", Ledger, "reserve")
async def _not_back(true: Any, self: Any, amounts: Any, *, lease: float = 60.0, caps: Any = None) -> Any:
    hold = Hold(id=f"h{id(amounts)}{anyio.current_time()}", amounts=amounts, lease=1e9, heartbeat_due=1e9)
    denied = await self._call(self.store.reserve, hold.id, hold.amounts, 1e9, caps)
    return hold if denied is None else denied


@plant("queue: waits for ever for what dead processes hold", ReservationQueue, "_in_front")
async def _for_ever(true: Any, self: Any, queue: Any, turn: Any, amounts: Any, until: Any, *rest: Any) -> Any:
    while True:
        answer = await self._reserve(amounts, rest[0], rest[1], float("inf"))
        if isinstance(answer, Hold):
            return answer
        await anyio.sleep(5.0)


@plant("queue: sends although it was denied", ReservationQueue, "reserve")
async def _anyway(true: Any, self: Any, amounts: Any, **options: Any) -> Any:
    answer = await true(self, amounts, **options)
    if isinstance(answer, Hold):
        return answer
    return Hold(id="none", amounts=amounts, heartbeat_due=1e9)


@plant("queue: never settles what failed to be settled", ReservationQueue, "settle")
async def _unsettled(true: Any, self: Any, hold: Any, settlements: Any, *, until: float = 0.0) -> bool:
    raise LedgerLost("no")


# The journal's store


@plant("journal: ignores leases of others", MemoryJournal, "_claim")
def _takes(true: Any, self: Any, ask: Any, owner: str) -> Any:
    row = self.rows.get(ask.key)
    if row is not None and row.line is None and row.owner not in (None, owner):
        row.owner = owner
        row.deaths += 1
        return Mine(row.deaths)
    return true(self, ask, owner)


@plant("journal: does not count deaths", MemoryJournal, "_claim")
def _no_deaths(true: Any, self: Any, ask: Any, owner: str) -> Any:
    answer = true(self, ask, owner)
    if isinstance(answer, Mine):
        self.rows[ask.key].deaths = 0
        return Mine(0)
    return answer


@plant("journal: counts a death for what was put back", MemoryJournal, "put_back")
def _blames(true: Any, self: Any, keys: Any, owner: str) -> None:
    true(self, keys, owner)
    for key in keys:
        if key in self.rows:
            self.rows[key].deaths += 1


@plant("journal: the last result wins", MemoryJournal, "_finish")
def _last(true: Any, self: Any, result: Any) -> Any:
    row = self.rows.setdefault(result.key, Row(result.fingerprint))
    row.line, row.reason, row.owner = result.line, result.reason, None
    return Done(result.line)


@plant("journal: finishes and answers with the caller's line", MemoryJournal, "_finish")
def _own_line(true: Any, self: Any, result: Any) -> Any:
    true(self, result)
    return Done(result.line)


@plant("journal: a zombie's result is dropped, and nobody else's kept", MemoryJournal, "_finish")
def _drops(true: Any, self: Any, result: Any) -> Any:
    row = self.rows.get(result.key)
    if row is not None and row.deaths and row.line is None:
        return Done(result.line)
    return true(self, result)


@plant("journal: gives done rows out again", MemoryJournal, "_claim")
def _again(true: Any, self: Any, ask: Any, owner: str) -> Any:
    answer = true(self, ask, owner)
    if isinstance(answer, Done) and self.rows[ask.key].reason is not None:
        self.rows[ask.key] = Row(ask.fingerprint, owner)
        return Mine(0)
    return answer


@plant("journal: rows of dead owners stay theirs", MemoryJournal, "_claim")
def _stays(true: Any, self: Any, ask: Any, owner: str) -> Any:
    row = self.rows.get(ask.key)
    if row is not None and row.owner not in (None, owner) and row.line is None:
        self.owners[row.owner] = self._clock() + 30
    return true(self, ask, owner)


@plant("journal: claiming does not renew the lease", MemoryJournal, "claim")
def _old_lease(true: Any, self: Any, asks: Any, owner: str, lease: float) -> Any:
    before = self.owners.get(owner, self._clock() + 1)
    found = true(self, asks, owner, lease)
    self.owners[owner] = before
    return found


@plant("journal: a beat is not written", MemoryJournal, "beat")
def _no_beat(true: Any, self: Any, owner: str, lease: float) -> None:
    return None


@plant("journal: a result stays owned", MemoryJournal, "_finish")
def _owned(true: Any, self: Any, result: Any) -> Any:
    row = self.rows.get(result.key)
    owner = None if row is None else row.owner
    answer = true(self, result)
    self.rows[result.key].owner = owner
    return answer


# This process


@plant("claims: no heartbeats", Claims, "_do")
def _silent(true: Any, self: Any, wishes: Any, due: bool) -> bool:
    return bool(true(self, wishes, False)) or due


@plant("claims: a claim that nobody waits for is kept", Claims, "put_back")
def _kept(true: Any, self: Any, key: str) -> None:
    return None


@plant("claims: gives up at the first try", Claims, "_serve")
async def _impatient(true: Any, self: Any, wishes: Any) -> None:
    self._patience = -1e9
    await true(self, wishes)


@plant("work: keeps what is no row's own fault", work_module, "own_fault")
def _keeps_all(true: Any, reason: str) -> bool:
    return True


@plant("work: keeps no failure", work_module, "own_fault")
def _keeps_none(true: Any, reason: str) -> bool:
    return False


@plant("work: asks before it claims", Work, "_claimed")
async def _early(true: Any, self: Any, claims: Any, request: Any) -> Any:
    async with self._turns.one():
        await self._asker.ask(request)
    return await true(self, claims, request)


@plant("work: shows its own result, not the one that stands", Work, "_mine")
async def _shows(true: Any, self: Any, claims: Any, request: Any, answer: Any) -> Any:
    asked: list[Any] = []
    ask = self._asker.ask

    async def noted(one: Any, sent: Any = None) -> Any:
        asked.append(await ask(one, sent))
        return asked[-1]

    with patch.object(self._asker, "ask", noted):
        came = await true(self, claims, request, answer)
    return type(came)(asked[-1].line, asked=True) if asked else came


@plant("work: gives a row up at the second death", work_module, "MAX_ROW_FAILURES")
def _too_soon(true: int) -> int:
    return 2


@plant("work: asks a row for ever, whoever dies", work_module, "MAX_ROW_FAILURES")
def _never(true: int) -> int:
    return 1000


@plant("work: asks suspects beside others", _Turns, "all")
def _beside(true: Any, self: Any) -> Any:
    return self.one()


@plant("work: one call too many at a time", _Turns, "__init__")
def _more(true: Any, self: Any, most: int) -> None:
    true(self, most + 1)


@plant("work: a row that is done elsewhere is another question", MemoryJournal, "_claim")
def _other(true: Any, self: Any, ask: Any, owner: str) -> Any:
    answer = true(self, ask, owner)
    return Other("g") if isinstance(answer, Done) else answer
