"""The ledger of async code: leases, cancellation, and stores that are lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamguard.budgets.ledger import Denied, Hold, Ledger, LedgerError, LedgerLost
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.stores.memory import MemoryStore
from streamguard.budgets.stores.sqlite import SqliteStore

JOB = Scope(key="job", unit="micro_usd", cap=1000)
TENANT = Scope(key="tenant", unit="tokens", cap=1000)

Run = Callable[..., Any]


class Gated(MemoryStore):
    """A store whose verbs run in a thread and wait there until the test lets them."""

    blocks = True

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def reserve(
        self, hold: str, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        self.entered.set()
        assert self.gate.wait(10)
        return super().reserve(hold, amounts, lease, caps)

    def settle(self, hold: str, settlements: Mapping[str, Settlement]) -> bool:
        self.entered.set()
        assert self.gate.wait(10)
        return super().settle(hold, settlements)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteStore]:
    """A file."""
    store = SqliteStore(tmp_path / "ledger.db")
    store.configure([JOB, TENANT])
    yield store
    store.close()


def test_every_verb_on_both_backends(run_real: Run, sqlite: SqliteStore) -> None:
    """The whole life of holds through threads, on asyncio and trio."""

    async def main() -> tuple[Any, ...]:
        ledger = Ledger(sqlite)
        first = await ledger.reserve({"job": 600, "tenant": 10})
        assert isinstance(first, Hold)
        denied = await ledger.reserve({"job": 600})
        await ledger.heartbeat(first)
        settled = await ledger.settle(first, {"job": Settlement(100, 50), "tenant": Settlement(3)})
        again = await ledger.settle(first, {"job": Settlement(0)})
        reconciled = await ledger.reconcile_hold(first, {"job": 20})
        second = await ledger.reserve({"job": 5})
        assert isinstance(second, Hold)
        released = await ledger.settle(second, {"job": Settlement(0)})
        await ledger.set_cap("job", 500)
        smaller = next(scope for scope in await ledger.scopes() if scope.key == "job")
        nothing = await ledger.reconcile_scope("job", 7)
        job, tenant = await ledger.balance("job"), await ledger.balance("tenant")
        swept, repairs = await ledger.sweep(), await ledger.rebuild()
        await ledger.set_cap("job", None)
        return (
            denied,
            (settled, again, reconciled, released, nothing, smaller.cap),
            (job.cap, job.settled, job.held, job.uncertain),
            (tenant.cap, tenant.settled, tenant.held, tenant.uncertain),
            (swept, list(repairs)),
        )

    assert run_real(main) == (
        Denied(scope="job", unit="micro_usd", asked=600, available=400, cap=1000, held=600),
        (True, False, True, True, False, 500),
        (500, 120, 0, 0),
        (1000, 3, 0, 0),
        (0, []),
    )


def test_heartbeats_are_due_after_a_third_of_the_lease(run_virtual: Run) -> None:
    """A hold says when it wants to be kept alive, on the running clock."""

    async def main() -> list[float]:
        ledger = Ledger(MemoryStore())
        await ledger.configure([JOB])
        await anyio.sleep(5)
        hold = await ledger.reserve({"job": 1}, lease=60)
        assert isinstance(hold, Hold)
        due = [hold.heartbeat_due]
        await anyio.sleep(20)
        await ledger.heartbeat(hold)
        return [*due, hold.heartbeat_due]

    assert run_virtual(main) == [25.0, 45.0]


def test_a_cancelled_reservation_leaves_no_hold(run_real: Run) -> None:
    """What is held after a cancellation is exactly what somebody was told to hold."""

    async def main() -> tuple[int, int]:
        store = Gated()
        ledger = Ledger(store)
        await ledger.configure([JOB])
        store.gate.clear()
        told = []

        async def ask(amount: int) -> None:
            told.append((await ledger.reserve({"job": amount}), amount))

        async with anyio.create_task_group() as tasks:
            for amount in (100, 200, 300):
                tasks.start_soon(ask, amount)
            await anyio.to_thread.run_sync(store.entered.wait)
            tasks.cancel_scope.cancel()
            threading.Timer(0.02, store.gate.set).start()
        return (await ledger.balance("job")).held, sum(amount for _, amount in told)

    held, known = run_real(main)
    assert held == known
    assert held <= 300


def test_asyncio_cancel_at_any_moment_leaves_no_hold() -> None:
    """asyncio's own cancellation does not wait for threads: the hold is taken back all the same."""

    async def main() -> None:
        store = Gated()
        ledger = Ledger(store)
        await ledger.configure([JOB])
        for _ in range(40):
            store.gate.clear()
            store.entered.clear()
            got: list[Hold | Denied] = []

            async def ask(into: list[Hold | Denied]) -> None:
                into.append(await ledger.reserve({"job": 100}))

            task = asyncio.create_task(ask(got))
            await asyncio.to_thread(store.entered.wait)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            store.gate.set()
            await asyncio.gather(task, return_exceptions=True)
            with anyio.fail_after(5):
                while (await ledger.balance("job")).held and not got:  # noqa: ASYNC110 - a thread is at work
                    await asyncio.sleep(0.001)
            assert not got
        assert (await ledger.balance("job")).taken == 0

    asyncio.run(main())


def test_asyncio_cancel_before_the_thread_begins_leaves_no_hold() -> None:
    """Cancelled in the queue for the store's one thread, nothing happens at all."""

    async def main() -> int:
        store = Gated()
        ledger = Ledger(store)
        await ledger.configure([JOB])
        store.gate.clear()
        first = asyncio.create_task(ledger.reserve({"job": 100}))
        await asyncio.to_thread(store.entered.wait)
        behind = [asyncio.create_task(ledger.reserve({"job": 1})) for _ in range(20)]
        for ticks, task in enumerate(behind):
            for _ in range(ticks % 4):
                await asyncio.sleep(0)
            task.cancel()
        store.gate.set()
        await asyncio.gather(*behind, return_exceptions=True)
        hold = await first
        assert isinstance(hold, Hold)
        await ledger.settle(hold, dict.fromkeys(hold.amounts, Settlement(0)))
        return (await ledger.balance("job")).taken

    assert asyncio.run(main()) == 0


def test_a_cancelled_settlement_still_settles(run_real: Run) -> None:
    """Settling is not a thing that a timeout can prevent."""

    async def main() -> tuple[int, int]:
        store = Gated()
        ledger = Ledger(store)
        await ledger.configure([JOB])
        hold = await ledger.reserve({"job": 100})
        assert isinstance(hold, Hold)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ledger.settle(hold, {"job": Settlement(42)})
        balance = await ledger.balance("job")
        return balance.settled, balance.held

    assert run_real(main) == (42, 0)


@pytest.mark.parametrize("ticks", range(1, 7))
def test_asyncio_cancel_of_a_settlement_still_settles(ticks: int) -> None:
    """Not even asyncio's own cancellation, wherever it strikes, in the queue or in the thread."""

    async def main() -> tuple[int, int]:
        store = Gated()
        ledger = Ledger(store)
        await ledger.configure([JOB])
        holds = [await ledger.reserve({"job": 100}) for _ in range(3)]
        tasks = [
            asyncio.create_task(ledger.settle(hold, {"job": Settlement(7)})) for hold in holds if isinstance(hold, Hold)
        ]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with anyio.move_on_after(5):
            while (await ledger.balance("job")).held:  # noqa: ASYNC110 - a thread is at work
                await asyncio.sleep(0.001)
        balance = await ledger.balance("job")
        return balance.settled, balance.held

    assert asyncio.run(main()) == (21, 0)


def test_a_lost_store_is_not_a_free_budget(run_real: Run, tmp_path: Path) -> None:
    """Once its file is gone, a ledger admits nothing and says so."""

    async def main() -> None:
        ledger = open_ledger("sqlite:sub/x.db", base=tmp_path)
        await ledger.configure([JOB])
        hold = await ledger.reserve({"job": 1})
        assert isinstance(hold, Hold)
        for file in (tmp_path / "sub").iterdir():
            file.unlink()
        for act in (ledger.reserve({"job": 1}), ledger.heartbeat(hold), ledger.settle(hold, {})):
            with pytest.raises(LedgerLost, match=r"x\.db"):
                await act
        await ledger.aclose()
        with pytest.raises(LedgerLost, match="closed"):
            await ledger.sweep()

    run_real(main)


def test_ledgers_by_address(tmp_path: Path) -> None:
    """Each address opens its kind, and what is none says what would be."""
    assert isinstance(open_ledger("memory:").store, MemoryStore)
    first = open_ledger(f"sqlite:{tmp_path / 'x.db'}?synchronous=full").store
    assert isinstance(first, SqliteStore)
    assert len(first.caveats) == 1
    first.close()
    for address in ("postgres://x", "sqlite:", "sqlite::memory:", "sqlite:x.db?fast=1", "x"):
        with pytest.raises(LedgerError, match="sqlite"):
            open_ledger(address, base=tmp_path)
