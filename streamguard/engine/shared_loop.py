"""One event loop in a thread, for calls that threads make: begun by the first who needs it, ended after the last.

Connections, clocks and cancel scopes belong to an event loop, and a stream lives longer than one function call. So a
thread that reads a guarded stream hands each step to a loop that stays, and waits. In charge of that loop's life, and
of an interrupted wait: what a thread does not wait for any more is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")

NAME: Final = "streamguard-loop"
"""Of the thread."""

END_LIMIT: Final = 2.0
"""Seconds that an interrupted thread waits for what it has cancelled."""


class SharedLoop:
    """A loop that several threads use. Nothing runs while nobody has a `Lease`."""

    def __init__(self) -> None:
        self._running: _Running | None = None
        self._lock = threading.Lock()

    def lease(self) -> Lease:
        """Return the use of the loop, which is begun if it does not run. To be released."""
        with self._lock:
            running = self._running
            if running is None or not running.join():
                running = self._running = _Running()
                running.start()
            return Lease(running)


class Lease:
    """The use of a running loop by one owner."""

    def __init__(self, running: _Running) -> None:
        self._running = running
        # Taken once: `pop` is atomic, and a finalizer may not wait for a lock.
        self._held = [True]
        self._under_way: Future[Any] | None = None
        # The function may begin, and another thread hear of it, before its future is noted here. Of a signal's
        # handler the same thread may come again.
        self._noting = threading.RLock()

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an asynchronous function in the loop, and wait for its result.

        Whatever interrupts the wait (a `KeyboardInterrupt`, a `cancel()` of another thread) cancels the function, and
        is raised when that has ended.

        :raises CancelledError: another thread has cancelled it.
        """
        ended = threading.Event()

        async def work() -> T:
            try:
                return await function(*args)
            finally:
                ended.set()

        with self._noting:
            future = self._running.portal.start_task_soon(work)
            self._under_way = future
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
            if future.cancelled():
                ended.wait(END_LIMIT)
            raise
        finally:
            self._under_way = None

    def cancel(self) -> None:
        """Cancel what another thread waits for, if any does."""
        with self._noting:
            future = self._under_way
        if future is not None:
            future.cancel()

    def release(self, last: Callable[[], Coroutine[Any, Any, object]] | None = None) -> None:
        """Give the loop back, once; the last who does ends it. From any thread, the loop's own and finalizers included.

        :param last: what is run in the loop before, and not waited for: for a finalizer, which may not wait.
        """
        try:
            self._held.pop()
        except IndexError:
            return
        self._running.leave(last)


class _Running:
    """One run of a loop."""

    def __init__(self) -> None:
        self.portal: BlockingPortal
        self._loop: asyncio.AbstractEventLoop
        self._pid = os.getpid()
        self._users = 1
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=anyio.run, args=(self._serve,), name=NAME, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, for one user."""
        self._thread.start()
        self._begun.wait()

    def join(self) -> bool:
        """Add a user. Whether that was in time: a loop that ends takes nobody, nor does one of another process."""
        if self._pid != os.getpid():
            return False  # after a fork there is the object without the thread
        with self._lock:
            if not self._users:
                return False
            self._users += 1
            return True

    def leave(self, last: Callable[[], Coroutine[Any, Any, object]] | None) -> None:
        """Remove a user. Without `last`, and outside of the loop, wait for the thread's end if there is no other."""
        if self._pid != os.getpid():
            return
        ended = threading.Event()
        self._loop.call_soon_threadsafe(self._leave, last, ended)
        if last is None and threading.current_thread() is not self._thread:
            ended.wait(END_LIMIT)
            if not self._users:
                self._thread.join(END_LIMIT)

    def _leave(self, last: Callable[[], Coroutine[Any, Any, object]] | None, ended: threading.Event) -> None:
        async def work() -> None:
            try:
                if last is not None:
                    await last()
            finally:
                # In the loop's thread: a finalizer runs in any, even while that one holds the lock.
                with self._lock:
                    self._users -= 1
                    over = not self._users
                ended.set()
                if over:
                    await self.portal.stop()

        task = self._loop.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            self._loop, self.portal = asyncio.get_running_loop(), portal
            self._begun.set()
            await portal.sleep_until_stopped()
