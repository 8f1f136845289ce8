"""The simulated world: a clock that steps, stores that hang, empty or fail over, processes that pause and die."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import msgspec

from streamguard.batch.claims import Claims
from streamguard.batch.journal.contract import (
    Answer,
    Ask,
    Done,
    JournalEmptied,
    JournalLost,
    Mine,
    Other,
    Result,
)
from streamguard.batch.journal.memory import MemoryJournal
from streamguard.budgets.ledger import Ledger, LedgerLost
from streamguard.budgets.spec import Scope
from streamguard.budgets.stores.memory import MemoryStore
from streamguard.pace.stores.memory import MemoryPaceStore

LEASE = 30.0
HOLD_LEASE = 60.0
TIMEOUT = 5.0
"""Seconds after which a client does not wait for a store any more."""
BOUND = 1000
"""The most that one request can cost."""
SCOPE = "b"


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for the checker."""

    at: float
    """Virtual seconds."""
    store: float
    """What the stores' clock said."""
    kind: str
    node: str
    key: str = ""
    value: Any = None


class World:
    """What all processes share.

    :param dice: the source of every decision.
    :param cap: what the budget allows.
    """

    def __init__(self, dice: random.Random, cap: int) -> None:
        self.dice, self.cap = dice, cap
        self.log: list[Event] = []
        self.skew = 0.0
        self.rows = MemoryJournal(clock=self.clock)
        self.money = MemoryStore(clock=self.clock)
        self.money.configure([Scope(key=SCOPE, unit="micro_usd", cap=cap)])
        self.paces = MemoryPaceStore(clock=self.clock)
        self.provider: Any = None
        """A `pacing.Limited`, in histories with a pace."""
        self.hangs: dict[str, float] = {"journal": 0.0, "ledger": 0.0, "pace": 0.0}
        self.epochs = {"journal": 0, "ledger": 0}
        self.ended: float | None = None
        """When the history was over: the clock stands."""
        self.tasks: anyio.abc.TaskGroup
        self.lost_money = 0
        """What a failover or an emptied ledger forgot."""
        self.forgot_rows: set[str] = set()

    def clock(self) -> float:
        """The clock of the stores."""
        return 1000.0 + (anyio.current_time() if self.ended is None else self.ended) + self.skew

    def note(self, kind: str, node: str = "", key: str = "", value: Any = None) -> None:
        """Write something down."""
        self.log.append(Event(round(anyio.current_time(), 6), round(self.clock(), 6), kind, node, key, value))

    # What goes wrong with stores

    def hang(self, which: str, seconds: float) -> None:
        """A store answers nobody for a while."""
        self.hangs[which] = anyio.current_time() + seconds
        self.note("hang", which, value=seconds)

    def empty(self, which: str) -> None:
        """A store comes back with nothing."""
        self.note("emptied", which)
        self.epochs[which] = self.epochs.get(which, 0) + 1
        if which == "journal":
            self.forgot_rows |= set(self.rows.rows)
            self.rows.rows, self.rows.owners = {}, {}
        elif which == "pace":
            self.paces.states.clear()
        else:
            self.lost_money += self.cap
            self.money = MemoryStore(clock=self.clock)
            self.money.configure([Scope(key=SCOPE, unit="micro_usd", cap=self.cap)])

    async def fail_over(self, which: str) -> None:
        """A store's replica takes over: what was written in the last second is lost."""
        if which == "journal":
            rows, owners = copy.deepcopy(self.rows.rows), dict(self.rows.owners)
            await anyio.sleep(1.0)
            for key, row in self.rows.rows.items():
                before = rows.get(key)
                if before is None or (before.line, before.owner, before.deaths) != (row.line, row.owner, row.deaths):
                    self.forgot_rows.add(key)
            self.rows.rows, self.rows.owners = rows, owners
        elif which == "pace":
            states = copy.deepcopy(self.paces.states)
            await anyio.sleep(1.0)
            self.paces.states = states
        else:
            before = copy.deepcopy((self.money._rows, self.money._accounts))
            taken = self.money.balance(SCOPE).taken
            granted = len(self.log)
            await anyio.sleep(1.0)
            money = sum(one.value[1] for one in self.log[granted:] if one.kind == "held")
            self.lost_money += money + max(0, self.money.balance(SCOPE).taken - taken) + BOUND
            self.money._rows, self.money._accounts = before
        self.note("failover", which)


class LoggedJournal:
    """The journal as one process has it open."""

    blocks = False
    caveats = ()

    def __init__(self, world: World, node: str) -> None:
        self._world, self._node = world, node
        self._epoch = world.epochs["journal"]

    def _open(self) -> MemoryJournal:
        if self._epoch != self._world.epochs["journal"]:
            raise JournalEmptied("emptied")
        return self._world.rows

    def claim(self, asks: list[Ask], owner: str, lease: float) -> list[Answer]:
        found = self._open().claim(asks, owner, lease)
        self._world.note("lease", owner, value=lease)
        for ask, answer in zip(asks, found, strict=True):
            value = answer.deaths if isinstance(answer, Mine) else None
            self._world.note(type(answer).__name__.lower(), owner, ask.key, value)
        return found

    def finish(self, results: list[Result]) -> list[Done | Other]:
        found = self._open().finish(results)
        for result, answer in zip(results, found, strict=True):
            line = answer.line if isinstance(answer, Done) else None
            self._world.note("kept", self._node, result.key, (line, result.line))
        return found

    def put_back(self, keys: list[str], owner: str) -> None:
        self._open().put_back(keys, owner)
        for key in keys:
            self._world.note("back", owner, key)

    def beat(self, owner: str, lease: float) -> None:
        self._open().beat(owner, lease)
        self._world.note("lease", owner, value=lease)

    def leave(self, owner: str) -> None:
        self._open().leave(owner)
        self._world.note("left", owner)

    def failures(self) -> Any:
        return self._open().failures()

    def forget(self, keys: Any = None) -> int:
        return self._open().forget(keys)

    def close(self) -> None:
        """Nothing to close."""


class Node:
    """One process, and its way to the stores."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.alive = True
        self.paused_until = 0.0
        self.cut: dict[str, tuple[float, str]] = {}
        """Store → until when it cannot be reached, and whether what is sent `arrives`."""
        self.running: set[str] = set()

    async def awake(self) -> None:
        """Wait while the process is stopped."""
        while (left := self.paused_until - anyio.current_time()) > 0:  # noqa: ASYNC110  it may be stopped again
            await anyio.sleep(left)

    async def call(self, which: str, lost: type[Exception], verb: Callable[..., Any], *args: Any) -> Any:
        """Ask a store over the network.

        :param lost: what is raised when it cannot be reached.
        """
        world, dice = self.world, self.world.dice
        await self.awake()
        if not self.alive:
            raise lost("this process is dead")
        await anyio.sleep(dice.choice((0.0, 0.001, 0.02)))
        until, how = self.cut.get(which, (0.0, ""))
        if until > anyio.current_time():
            if how == "arrives":
                self._quietly(verb, *args)
            await anyio.sleep(dice.uniform(0.1, TIMEOUT))
            raise lost("no answer")
        wait = world.hangs[which] - anyio.current_time()
        if wait > TIMEOUT:
            # A server runs what it was sent when it wakes, unless it has noticed that nobody waits.
            if dice.random() < 0.5 and which == "journal":
                world.tasks.start_soon(self._later, wait, verb, *args)
            await anyio.sleep(TIMEOUT)
            raise lost("hangs")
        if wait > 0:
            await anyio.sleep(wait)
        if not self.alive:
            raise lost("this process is dead")
        result = verb(*args)
        await anyio.sleep(dice.choice((0.0, 0.001, 0.02)))
        await self.awake()
        if not self.alive:
            raise lost("this process is dead")
        return result

    async def _later(self, wait: float, verb: Callable[..., Any], *args: Any) -> None:
        await anyio.sleep(wait)
        self._quietly(verb, *args)

    def _quietly(self, verb: Callable[..., Any], *args: Any) -> None:
        try:
            verb(*args)
        except (JournalLost, LedgerLost):
            self.world.note("dropped", self.name)


class SimClaims(Claims):
    """Claims over the simulated network."""

    def __init__(self, node: Node, **options: Any) -> None:
        super().__init__(LoggedJournal(node.world, node.name), lease=LEASE, owner=node.name, **options)  # type: ignore[arg-type]
        self._node = node

    async def _call(self, verb: Callable[..., object], *args: object) -> object:
        return await self._node.call("journal", JournalLost, verb, *args)


class SimLedger(Ledger):
    """A ledger over the simulated network."""

    def __init__(self, node: Node) -> None:
        super().__init__(_Opened(node.world))  # type: ignore[arg-type]
        self._node = node
        self._late = _Late(node)  # type: ignore[assignment]

    async def _call(self, verb: Callable[..., Any], *args: Any, leave: bool = False) -> Any:  # noqa: ARG002
        return await self._node.call("ledger", LedgerLost, verb, *args)


class _Opened:
    """The store as one process has it open."""

    blocks = True
    caveats = ()

    def __init__(self, world: World) -> None:
        self._world, self._epoch = world, world.epochs["ledger"]

    def __getattr__(self, name: str) -> Any:
        if self._epoch != self._world.epochs["ledger"]:
            raise LedgerLost("emptied")
        return getattr(self._world.money, name)


class _Late:
    """What nobody waits for any more is done a little later, if the process lives and reaches the store."""

    busy = False

    def __init__(self, node: Node) -> None:
        self._node = node

    def add(self, errand: Callable[[], object]) -> None:
        self._node.world.tasks.start_soon(self._do, errand)

    async def _do(self, errand: Callable[[], object]) -> None:
        node = self._node
        await anyio.sleep(node.world.dice.uniform(0.0, 2.0))
        await node.awake()
        until, _ = node.cut.get("ledger", (0.0, ""))
        if node.alive and until <= anyio.current_time() and node.world.hangs["ledger"] <= anyio.current_time():
            node._quietly(errand)
