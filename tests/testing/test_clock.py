"""Virtual time."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import anyio.abc
import anyio.lowlevel
import pytest


def test_hour(run_virtual):
    """An hour of timeouts takes less than two real seconds, and the clock shows exactly an hour."""

    async def main():
        for _ in range(720):
            with anyio.move_on_after(5) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
        return anyio.current_time()

    began = time.perf_counter()
    assert run_virtual(main) == 3600.0
    assert time.perf_counter() - began < 2


def test_starts_at_zero_and_stands_still(run_virtual):
    """The clock begins at 0.0 and does not move while tasks run."""

    async def main():
        times = [anyio.current_time()]
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        return [*times, anyio.current_time()]

    assert run_virtual(main) == [0.0, 0.0]


def test_order_of_timers(run_virtual):
    """Timers of several tasks fire in their order, each exactly at its time."""
    fired: list[tuple[float, float]] = []

    async def one(seconds):
        await anyio.sleep(seconds)
        fired.append((seconds, anyio.current_time()))

    async def main():
        async with anyio.create_task_group() as tasks:
            for seconds in (0.3, 86_400 * 3, 0.1, 7.25, 0.2):
                tasks.start_soon(one, seconds)

    run_virtual(main)
    assert fired == [(at, at) for at in (0.1, 0.2, 0.3, 7.25, 86_400 * 3)]


def test_waits_for_worker_threads(run_virtual):
    """A thread at work holds the clock: a short timeout does not expire although it takes longer."""

    async def main():
        with anyio.fail_after(0.001):
            await anyio.to_thread.run_sync(time.sleep, 0.05)
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(anyio.to_thread.run_sync, time.sleep, 0.02)
        return anyio.current_time()

    assert run_virtual(main) == 0.0


def test_waits_for_executors():
    """The same for threads of asyncio's own."""
    from streamguard.testing import run_virtual

    async def main():
        async with asyncio.timeout(0.001):
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)
        return anyio.current_time()

    assert run_virtual(main) == 0.0


def test_patience_with_threads(run_virtual):
    """A thread that does not end holds the clock for `patience` real seconds only."""
    release = threading.Event()

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, release.wait)
            await anyio.sleep(60)
            release.set()
            return anyio.current_time()

    assert run_virtual(main, patience=0.02) == 60.0


def test_loopback_sockets(run_virtual):
    """Bytes over loopback arrive before any timer fires, and a peer's pauses pass in virtual time."""

    async def echo_late(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await anyio.sleep(30)
                await stream.send(data)

    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo_late)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                for _ in range(4):
                    with anyio.fail_after(30.001):
                        await stream.send(b"x")
                        assert await stream.receive() == b"x"
            tasks.cancel_scope.cancel()
        return anyio.current_time()

    assert run_virtual(main) == 120.0


def test_waiting_for_ever_is_told(run_virtual):
    """Where every task waits for ever, the run ends with a TimeoutError at `within`, not with a hanging test."""
    with pytest.raises(TimeoutError, match="not done after 60 virtual seconds"):
        run_virtual(anyio.sleep_forever, within=60)


def test_results_and_errors_come_through(run_virtual):
    """What the function returns is returned, what it raises is raised."""

    async def echo(value):
        await anyio.sleep(1)
        return value

    async def fail():
        await anyio.sleep(1)
        raise LookupError("mine")

    assert run_virtual(echo, 42) == 42
    with pytest.raises(LookupError, match="mine"):
        run_virtual(fail)


def test_wait_all_tasks_blocked(run_virtual):
    """`anyio.wait_all_tasks_blocked()` does not move the clock."""

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 5)
            await anyio.wait_all_tasks_blocked()
            return anyio.current_time()

    assert run_virtual(main) == 0.0
