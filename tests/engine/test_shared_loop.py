"""The loop that threads share: it lives as long as somebody uses it, and nothing outlives an interrupted wait."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import CancelledError

import anyio
import anyio.lowlevel
import pytest

from streamguard.engine.shared_loop import NAME, SharedLoop

STRANGERS: set[threading.Thread] = set()
"""The loops that other tests of this process have left running for a moment: none of ours."""


@pytest.fixture(autouse=True)
def strangers() -> None:
    """Note who runs before the test begins."""
    STRANGERS.clear()
    STRANGERS.update(threading.enumerate())


def running() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate() if thread not in STRANGERS)


async def thread_of() -> int:
    return threading.get_ident()


def test_it_lives_from_the_first_lease_to_the_last() -> None:
    """Leases that overlap share a thread; the last one waits for its end; the next begins another."""
    shared = SharedLoop()
    assert running() == 0
    first, second = shared.lease(), shared.lease()
    assert first.run(thread_of) == second.run(thread_of) != threading.get_ident()
    first.release()
    first.release()
    assert (running(), second.run(thread_of) > 0) == (1, True)
    second.release()
    assert running() == 0
    third = shared.lease()
    assert third.run(thread_of) > 0
    third.release()
    assert running() == 0


def test_results_and_errors_come_out_as_they_are() -> None:
    """Of functions with arguments; the loop goes on after an error."""

    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    async def fail() -> None:
        raise LookupError("mine")

    lease = SharedLoop().lease()
    with pytest.raises(LookupError, match="mine"):
        lease.run(fail)
    assert lease.run(double, 21) == 42
    lease.release()


def test_another_thread_can_cancel_what_is_waited_for() -> None:
    """The function has ended when the wait has; the lease is of use afterwards."""
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    def cancel() -> None:
        begun.wait()
        lease.cancel()

    lease = SharedLoop().lease()
    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(CancelledError):
        lease.run(wait)
    assert ended.is_set()
    assert lease.run(thread_of) > 0
    other.join()
    lease.release()
    assert running() == 0


def test_a_finalizer_gives_back_with_a_last_word() -> None:
    """It does not wait; the loop runs the last word, and ends."""
    spoken = threading.Event()

    async def last() -> None:
        spoken.set()

    class Owner:
        def __init__(self) -> None:
            self.lease = SharedLoop().lease()

        def __del__(self) -> None:
            self.lease.release(last)

    owner = Owner()
    thread = next(thread for thread in threading.enumerate() if thread.name == NAME)
    del owner
    gc.collect()
    assert spoken.wait(5)
    thread.join(5)
    assert running() == 0


def test_many_threads_come_and_go() -> None:
    """No lease is refused, whatever the moment, and no thread stays."""
    shared, found = SharedLoop(), []

    def visit() -> None:
        for _ in range(20):
            lease = shared.lease()
            found.append(lease.run(thread_of))
            lease.release()

    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert (len(found), running()) == (160, 0)
