"""One history from one seed: who asks for what, what goes wrong and when, and how it all ended."""

from __future__ import annotations

import random
from typing import Any

import anyio
import msgspec

from bench.cluster.pacing import SimClock, SimPacer, provider_of, simulated_threads
from bench.cluster.world import BOUND, HOLD_LEASE, SCOPE, Node, SimClaims, SimLedger, World
from streamguard.batch.journal.contract import JournalLost
from streamguard.batch.work import Stopped, Work
from streamguard.budgets.ledger import Hold, LedgerLost
from streamguard.budgets.queue import ReservationQueue
from streamguard.budgets.spec import Settlement
from streamguard.engine.pacing.local import GivenTurn
from streamguard.errors import StreamguardError
from streamguard.jobs.asking import Denial, Ended
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.input.plan import Entry
from streamguard.pace.reports import Began, Refused, Returned, Seen, Settled
from streamguard.pace.sharing import Ask
from streamguard.testing import run_virtual

TRIES = 6
"""Attempts of a call that the provider refuses."""

HORIZON = 20_000.0
"""Virtual seconds after which somebody waits for ever."""

RERUNS = 6
"""How often an engine runs the rows of a process again that died."""


class History(msgspec.Struct):
    """What happened under a seed."""

    seed: int
    world: World
    concurrency: int
    rows: list[str]
    stuck: bool = False
    unfinished: list[str] = []
    """Rows without a result although a process was left to itself with them."""
    out_of_budget: bool = False


class SimAsker:
    """Calls of one process to a provider that counts."""

    ahead = None

    def __init__(self, node: Node) -> None:
        self._node = node
        self._queue = ReservationQueue(SimLedger(node))
        self.pacer = None if node.world.provider is None else SimPacer(node)
        self.interrupted = False

    async def ask(self, request: RowRequest, sent: Any = None) -> Ended:  # noqa: ARG002
        node, world, key = self._node, self._node.world, request.entry.custom_id
        node.running.add(key)
        world.note("asking", node.name, key, len(node.running))
        try:
            for _ in range(TRIES):
                came = await self._attempt(key)
                if came is not None:
                    return came
                await anyio.sleep(world.dice.choice((0.5, 5.0, 20.0)))
            return Ended(line=b"", type="errored", reason="provider.overloaded")
        finally:
            node.running.discard(key)

    async def _attempt(self, key: str) -> Ended | None:
        """One attempt; `None` if the provider refuses it."""
        node, world = self._node, self._node.world
        turn = await self._turn(key)
        try:
            answer = await self._queue.reserve({SCOPE: BOUND}, own_until=HORIZON, held_until=HORIZON, lease=HOLD_LEASE)
        except LedgerLost:
            self._report(turn, Returned)
            return Ended(line=b"", type="errored", reason="budget.lost", unsent=True)
        if not isinstance(answer, Hold):
            self._report(turn, Returned)
            denied = Denial(scope=SCOPE, asked=BOUND)
            return Ended(line=b"", type="errored", reason="budget.denied", denied=denied, unsent=True)
        world.note("held", node.name, key, ("", BOUND))
        return await self._send(key, answer, turn)

    async def _turn(self, key: str) -> GivenTurn | None:
        world, began = self._node.world, anyio.current_time()
        if self.pacer is None:
            return None
        turn = await self.pacer.turn(SimClock(), Ask(input_tokens=10.0, max_tokens=100.0, patient=True))  # type: ignore[arg-type]
        world.note("turn", self._node.name, key, (anyio.current_time() - began, turn.alone))
        return turn

    def _report(self, turn: GivenTurn | None, kind: type[Any], **said: Any) -> None:
        if turn is not None and self.pacer is not None:
            self.pacer.report(kind(at=anyio.current_time(), cost=turn.cost, **said), alone=turn.alone)

    async def _send(self, key: str, hold: Hold, turn: GivenTurn | None) -> Ended | None:
        node, world, dice = self._node, self._node.world, self._node.world.dice
        cost, settlement, ended = dice.randrange(BOUND + 1), Settlement(0, BOUND), False
        try:
            await node.awake()
            if not node.alive or self.interrupted:
                settlement = Settlement(0)
                return Ended(line=b"", type="canceled", unsent=True)
            if anyio.current_time() >= hold.heartbeat_due:
                await self._queue.ledger.heartbeat(hold)  # a process that was stopped looks before it sends
            sent, served = anyio.current_time(), True
            if turn is not None and self.pacer is not None:
                served, limits = world.provider.admit()
                if limits is not None:
                    self.pacer.report(Seen(at=sent, limits=limits), alone=turn.alone)
            if not served:
                ended, settlement = True, Settlement(0)
                world.note("refused", node.name, key)
                self._report(turn, Refused, sent=sent, limited=limits is not None)
                return None
            world.note("sent", node.name, key, ("", cost))
            for first in (True, *(False,) * dice.randrange(3)):
                await self._served(dice.choice((0.1, 1.0, 8.0)), paced=turn is not None)
                await node.awake()
                if first:
                    seconds = anyio.current_time() - sent
                    self._report(turn, Began, sent=sent, seconds=seconds, guessed=0.0, counted=-1.0)
                if anyio.current_time() >= hold.heartbeat_due:
                    await self._queue.ledger.heartbeat(hold)
            settlement, ended = Settlement(cost), True
            self._report(turn, Settled, output=10.0, seconds=anyio.current_time() - sent)
            how = dice.random()
            line = f"{key} by {node.name} {len(world.log)}\n".encode()
            reason = None if how < 0.8 else "json.schema" if how < 0.9 else "provider.overloaded"
            world.note("ended", node.name, key, (line, reason))
            return Ended(line=line, type="errored" if reason else "succeeded", reason=reason)
        except LedgerLost:
            return Ended(line=b"", type="errored", reason="budget.lost")
        finally:
            if not ended:
                self._report(turn, Returned)
            try:
                until = anyio.current_time() + 5.0
                await self._queue.settle(hold, {SCOPE: settlement}, until=until)
                world.note("settled", node.name, key, settlement.settled)
            except LedgerLost:
                world.note("unsettled", node.name, key)

    async def _served(self, seconds: float, *, paced: bool) -> None:
        """The provider works on a call for so long."""
        if not paced:
            await anyio.sleep(seconds)
            return
        provider = self._node.world.provider
        provider.busy += 1
        try:
            await anyio.sleep(seconds)
        finally:
            provider.busy -= 1

    def withdraw(self, by: str) -> None:
        """Nobody withdraws here."""

    def interrupt(self, by: str) -> None:  # noqa: ARG002
        self.interrupted = True

    def cooling(self, now: float) -> float:  # noqa: ARG002
        return 0.0


async def process(world: World, node: Node, rows: list[str], concurrency: int) -> str:
    """One process: its rows, some at a time; returns how it ended."""
    asker = SimAsker(node)
    claims = SimClaims(node, lost=lambda error: asker.interrupt(str(error)))
    work = Work(asker, claims, concurrency=concurrency)
    left, errors = iter(rows), []

    async def some() -> None:
        for key in left:
            if errors or not node.alive:
                return
            request = RowRequest(Entry(key, 0, 0, 0, 0, "f"), {}, 0)
            try:
                came = await work.one(request)
            except StreamguardError as error:
                errors.append(error)
                world.note("raised", node.name, key, type(error).__name__)
                return
            if node.alive:
                world.note("emitted", node.name, key, came.line)

    async with anyio.create_task_group() as beside:
        beside.start_soon(claims.run)
        async with anyio.create_task_group() as tasks:
            for _ in range(concurrency + 2):
                tasks.start_soon(some)
        if node.alive:
            with anyio.move_on_after(5):
                await claims.leave()
        if node.alive and asker.pacer is not None:
            await asker.pacer.flush(anyio.current_time())
            world.note("flushed", node.name)
        beside.cancel_scope.cancel()
    for error in errors:
        if isinstance(error, Stopped):
            return "stopped"
        if isinstance(error, JournalLost | LedgerLost):
            return "lost"
        return "error"
    return "done"


async def worker(history: History, number: int, rows: list[str], nodes: dict[int, Node]) -> None:
    """What an engine does: run a process, and another one for its rows when it dies."""
    world, dice = history.world, history.world.dice
    for attempt in range(RERUNS):
        node = nodes[number] = Node(world, f"w{number}.{attempt}")
        with anyio.CancelScope() as scope:
            node.scope = scope  # type: ignore[attr-defined]
            ended = await process(world, node, rows, history.concurrency)
            if ended in ("done", "stopped", "error"):
                return
        node.alive = False
        await anyio.sleep(dice.choice((0.0, 2.0, 10.0)))


async def trouble(history: History, nodes: dict[int, Node]) -> None:
    """Let things go wrong, one after the other."""
    world, dice = history.world, history.world.dice
    lossy = dice.random() < 0.3
    for _ in range(dice.randrange(1, 9)):
        await anyio.sleep(dice.choice((0.0, 0.05, 0.5, 3.0, 12.0)) * dice.random())
        node = nodes[dice.choice(sorted(nodes))] if nodes else None
        which = dice.choice(("journal", "ledger", *(("pace",) if world.provider is not None else ())))
        match dice.choice(("kill", "kill", "pause", "cut", "hang", "step", "empty", "failover")):
            case "kill" if node is not None:
                node.alive = False
                world.note("killed", node.name)
                node.scope.cancel()  # type: ignore[attr-defined]
            case "pause" if node is not None:
                seconds = dice.choice((2.0, 20.0, 45.0, 100.0))
                node.paused_until = anyio.current_time() + seconds
                world.note("paused", node.name, value=seconds)
            case "cut" if node is not None:
                seconds = dice.choice((1.0, 10.0, 50.0))
                node.cut[which] = (anyio.current_time() + seconds, dice.choice(("arrives", "")))
                world.note("cut", node.name, which, seconds)
            case "hang":
                world.hang(which, dice.choice((1.0, 8.0, 40.0)))
            case "step":
                world.skew += dice.choice((-40.0, -1.0, 1.0, 35.0, 200.0))
                world.note("step", value=world.skew)
            case "empty" if lossy and dice.random() < 0.5:
                world.empty(which)
            case "failover" if lossy:
                await world.fail_over(which)


async def play(history: History) -> None:
    """The whole history, until everything is over and one process was left to itself with all rows."""
    world, dice = history.world, history.world.dice
    nodes: dict[int, Node] = {}
    with anyio.move_on_after(HORIZON) as horizon:
        async with anyio.create_task_group() as everything:
            world.tasks = everything
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(trouble, history, nodes)
                for number in range(dice.randrange(1, 4)):
                    some = [key for key in history.rows if dice.random() < 0.7]
                    tasks.start_soon(worker, history, number, some, nodes)
            world.hangs = {"journal": 0.0, "ledger": 0.0, "pace": 0.0}
            await anyio.sleep(300)
            world.money.sweep()
            last = Node(world, "last")
            history.out_of_budget = await process(world, last, history.rows, history.concurrency) == "stopped"
            await anyio.sleep(300)
            world.money.sweep()
            everything.cancel_scope.cancel()
    history.stuck, world.ended = horizon.cancelled_caught, anyio.current_time()
    emitted = {event.key for event in world.log if event.kind == "emitted" and event.node == "last"}
    history.unfinished = [key for key in history.rows if key not in emitted]


def history(seed: int) -> History:
    """Play the history of a seed."""
    dice = random.Random(seed)
    paced = dice.random() < 0.5
    rows = [f"r{n}" for n in range(dice.randrange(2, 25 if paced else 9))]
    cap = dice.choice((4, 8, 100)) * BOUND
    made = History(seed=seed, world=World(dice, cap), concurrency=dice.randrange(1, 7 if paced else 4), rows=rows)
    if paced:
        made.world.provider = provider_of(made.world)
    with simulated_threads():
        run_virtual(play, made, within=2 * HORIZON)
    return made
