"""Waiting for room in a budget, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from streamguard.budgets.ledger import Denied, Hold, Ledger
from streamguard.budgets.queue import FIRST_LOOK, LAST_LOOK, ReservationQueue
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.memory import MemoryStore

JOB = Scope(key="job", unit="tokens", cap=100)
TENANT = Scope(key="tenant", unit="tokens", cap=100)

Run = Callable[..., Any]


async def opened(*scopes: Scope) -> ReservationQueue:
    """A queue in front of a fresh ledger."""
    ledger = Ledger(MemoryStore())
    await ledger.configure(scopes or (JOB,))
    return ReservationQueue(ledger)


async def held(queue: ReservationQueue, amount: int, scope: Scope = JOB) -> Hold:
    """A hold that there is room for."""
    answer = await queue.reserve({scope.key: amount})
    assert isinstance(answer, Hold)
    return answer


def test_room_at_once_does_not_wait(run_virtual: Run) -> None:
    """Where there is room, no time passes."""

    async def main() -> tuple[bool, float]:
        queue = await opened()
        answer = await queue.reserve({"job": 100}, wait_until=50.0)
        return isinstance(answer, Hold), anyio.current_time()

    assert run_virtual(main) == (True, 0.0)


def test_settling_here_wakes_the_one_in_front_at_once(run_virtual: Run) -> None:
    """What is settled in the same process is taken over without waiting for a look."""

    async def main() -> tuple[bool, float]:
        queue = await opened()
        first = await held(queue, 80)

        async def settle_later() -> None:
            await anyio.sleep(7.003)
            await queue.settle(first, {"job": Settlement(10)})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settle_later)
            answer = await queue.reserve({"job": 50}, wait_until=60.0)
            return isinstance(answer, Hold), anyio.current_time()

    granted, at = run_virtual(main)
    assert granted
    assert at == pytest.approx(7.003)


def test_others_processes_are_noticed_within_a_look(run_virtual: Run) -> None:
    """What another process settles is found by looking, at most a look later."""

    async def main() -> tuple[bool, float]:
        queue = await opened()
        first = await held(queue, 80)

        async def elsewhere() -> None:
            await anyio.sleep(30.5)
            await queue.ledger.settle(first, {"job": Settlement(0)})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere)
            answer = await queue.reserve({"job": 50}, wait_until=60.0)
            return isinstance(answer, Hold), anyio.current_time()

    granted, at = run_virtual(main)
    assert granted
    assert 30.5 <= at <= 30.5 + LAST_LOOK


def test_the_deadline_ends_in_a_denial(run_virtual: Run) -> None:
    """A call that waited in vain is told what it asked for and what there was, exactly at its deadline."""

    async def main() -> tuple[Any, float, int]:
        queue = await opened()
        await held(queue, 80)
        answer = await queue.reserve({"job": 50}, wait_until=12.0)
        return answer, anyio.current_time(), queue.waiting

    assert run_virtual(main) == (
        Denied(scope="job", unit="tokens", asked=50, available=20, cap=100, held=80),
        pytest.approx(12.0),
        0,
    )


@pytest.mark.parametrize(("spent", "asked"), [(0, 101), (60, 41)])
def test_hopeless_calls_are_denied_at_once(run_virtual: Run, spent: int, asked: int) -> None:
    """Nobody waits for room that open holds cannot make."""

    async def main() -> tuple[bool, float]:
        queue = await opened()
        await queue.settle(await held(queue, 60), {"job": Settlement(spent)})
        answer = await queue.reserve({"job": asked}, wait_until=60.0)
        return isinstance(answer, Denied), anyio.current_time()

    assert run_virtual(main) == (True, 0.0)


def test_first_come_first_served(run_virtual: Run) -> None:
    """A large request in front is not overtaken by small ones behind it, and nobody is forgotten."""

    async def main() -> list[tuple[str, float]]:
        queue = await opened()
        open_holds = [await held(queue, 30) for _ in range(3)]
        order: list[tuple[str, float]] = []

        async def ask(name: str, amount: int) -> None:
            answer = await queue.reserve({"job": amount}, wait_until=100.0)
            assert isinstance(answer, Hold)
            order.append((name, round(anyio.current_time(), 3)))
            await anyio.sleep(1)
            await queue.settle(answer, {"job": Settlement(0)})

        async with anyio.create_task_group() as tasks:
            for name, amount in (("large", 90), ("small", 20), ("medium", 60)):
                tasks.start_soon(ask, name, amount)
                await anyio.sleep(0.5)
            assert queue.waiting == 3
            for hold in open_holds:
                await anyio.sleep(10)
                await queue.settle(hold, {"job": Settlement(0)})
        assert queue.waiting == 0
        return order

    assert run_virtual(main) == [("large", 31.5), ("small", 32.5), ("medium", 32.5)]


def test_a_cancelled_waiter_makes_way(run_virtual: Run) -> None:
    """The queue moves on when the one in front, or one behind, goes away."""

    async def main() -> tuple[bool, int]:
        queue = await opened()
        first = await held(queue, 80)

        async def give_up(seconds: float) -> None:
            with anyio.move_on_after(seconds):
                await queue.reserve({"job": 90}, wait_until=100.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up, 5.0)
            await anyio.sleep(0.1)
            tasks.start_soon(give_up, 3.0)
            await anyio.sleep(1)
            await queue.settle(first, {"job": Settlement(50)})
            answer = await queue.reserve({"job": 50}, wait_until=100.0)
            return isinstance(answer, Hold), queue.waiting

    assert run_virtual(main) == (True, 0)


def test_behind_the_front_a_deadline_is_kept_too(run_virtual: Run) -> None:
    """A call that never comes to the front is denied at its own deadline, with its own request."""

    async def main() -> tuple[Any, float]:
        queue = await opened()
        await held(queue, 80)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: queue.reserve({"job": 90}, wait_until=100.0))
            await anyio.sleep(1)
            answer = await queue.reserve({"job": 25}, wait_until=4.0)
            at = anyio.current_time()
            tasks.cancel_scope.cancel()
        return answer, at

    assert run_virtual(main) == (
        Denied(scope="job", unit="tokens", asked=25, available=20, cap=100, held=80),
        pytest.approx(4.0),
    )


def test_other_scopes_do_not_wait_behind(run_virtual: Run) -> None:
    """A tenant without room does not hold up another."""

    async def main() -> bool:
        queue = await opened(JOB, TENANT)
        await held(queue, 80)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: queue.reserve({"job": 90}, wait_until=100.0))
            await anyio.sleep(1)
            answer = await queue.reserve({"tenant": 90}, wait_until=50.0)
            at = anyio.current_time()
            tasks.cancel_scope.cancel()
        return isinstance(answer, Hold) and at == pytest.approx(1.0)

    assert run_virtual(main)


def test_a_queue_costs_the_ledger_little(run_virtual: Run) -> None:
    """Fifty calls that wait a minute look fewer than a hundred times in all: only the one in front looks."""

    async def main() -> int:
        queue = await opened()
        await held(queue, 80)
        store = queue.ledger.store
        looks = 0
        reserve = store.reserve

        def counted(*args: Any) -> Denied | None:
            nonlocal looks
            looks += 1
            return reserve(*args)

        store.reserve = counted  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(lambda: queue.reserve({"job": 30}, wait_until=60.0))
        return looks

    assert 1 / FIRST_LOOK > 10
    assert run_virtual(main) < 120


def test_release_wakes_too(run_virtual: Run) -> None:
    """An attempt that was never sent gives all its room to the next."""

    async def main() -> float:
        queue = await opened()
        first = await held(queue, 100)

        async def release() -> None:
            await anyio.sleep(2)
            await queue.settle(first, dict.fromkeys(first.amounts, Settlement(0)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            await queue.reserve({"job": 100}, wait_until=60.0)
        return anyio.current_time()

    assert run_virtual(main) == pytest.approx(2.0)


def test_each_event_loop_queues_for_itself() -> None:
    """A ledger that outlives an event loop, or is shared by several in threads, wakes nobody on another loop."""
    queue = anyio.run(opened)
    denied: list[bool] = []

    async def ask() -> None:
        answer = await queue.reserve({JOB.key: 60}, wait_until=anyio.current_time() + 0.05)
        denied.append(isinstance(answer, Denied))

    async def hold() -> None:
        mine = await held(queue, 60)
        for backend in ("asyncio", "asyncio", "trio"):
            await anyio.to_thread.run_sync(lambda backend=backend: anyio.run(ask, backend=backend))
        async with anyio.create_task_group() as group:
            thread = threading.Thread(target=anyio.run, args=(settle_elsewhere, mine))
            group.start_soon(wait_for_room)
            await anyio.sleep(0.05)
            thread.start()
        thread.join()

    async def settle_elsewhere(hold: Hold) -> None:
        await queue.settle(hold, dict.fromkeys(hold.amounts, Settlement(0)))

    async def wait_for_room() -> None:
        answer = await queue.reserve({JOB.key: 60}, wait_until=anyio.current_time() + 5)
        denied.append(isinstance(answer, Denied))

    anyio.run(hold)
    assert denied == [True, True, True, False]
    assert queue.waiting == 0
