"""Virtual time on both backends: an hour of timeouts takes milliseconds.

In charge of running an async function on a loop whose clock stands still while anything can happen, and jumps to the
next timer as soon as nothing can. It starts at 0.0; `anyio.current_time()` and every timeout of anyio, asyncio and
trio follow it. It knows nothing of streams.

Work outside the loop gets real time to answer before the clock jumps:

* nothing waits for a socket and no worker thread is busy: the clock jumps at once;
* a task waits for a socket: the clock jumps after `grace` real seconds without an event (the peer may be another task
  of the same loop, a thread, or a process);
* a worker thread (`anyio.to_thread`, and `run_in_executor` on asyncio) is at work: the clock waits for it, for
  `patience` real seconds at the most.

Limits: a peer on another loop or in another process does not share the clock, so raise `grace` above its slowest
answer, or do not use virtual time with it. `time.time()` and `time.monotonic()` stay real. Threads started by hand are
not seen. uvloop is not supported.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar, TypeVarTuple

import anyio

Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")
"""The backends that a test is worth running on."""

GRACE = 0.01
"""Real seconds that a waiting socket is given. Loopback delivers in microseconds, on a busy machine in milliseconds."""

PATIENCE = 5.0
"""Real seconds that a busy worker thread is given before the clock jumps all the same."""

WITHIN = 30 * 86_400.0
"""Virtual seconds after which a run is taken to wait for ever."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_virtual(
    async_fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    backend: Backend = "asyncio",
    grace: float = GRACE,
    patience: float = PATIENCE,
    within: float = WITHIN,
) -> T:
    """Run `async_fn(*args)` in virtual time and return what it returns.

    ```python
    outcome = run_virtual(ask)  # hours of timeouts take milliseconds
    ```

    :param grace: real seconds without an event after which the clock jumps although a task waits for a socket.
    :param patience: real seconds after which it jumps although a worker thread is busy.
    :param within: virtual seconds the run may take: where every task waits without an end, the clock jumps there.
    :param async_fn: the function to run.
    :param backend: `asyncio` or `trio`.
    :returns: what the function returns.
    :raises TimeoutError: `within` has passed.
    """

    async def bounded() -> T:
        with anyio.move_on_after(within):
            return await async_fn(*args)
        raise TimeoutError(f"not done after {within:g} virtual seconds: does every task wait for ever?")

    if backend == "trio":
        options = _trio_options(grace, patience)
    else:
        options = {"loop_factory": lambda: VirtualLoop(grace, patience)}
    return anyio.run(bounded, backend=backend, backend_options=options)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time. `time()` begins at 0.0."""

    def __init__(self, grace: float = GRACE, patience: float = PATIENCE) -> None:
        self._virtual = 0.0
        self._at_work: set[asyncio.Future[Any]] = set()
        selector = _JumpingSelector(self, grace, patience)
        super().__init__(selector)
        # What is registered now is the loop's own wake-up socket.
        selector.own = len(selector.get_map())

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Move the clock on: exactly to the next timer if that is where `seconds` lead, whatever floats make of it."""
        target = self._virtual + seconds
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        if scheduled and abs(scheduled[0].when() - target) < 1e-6:
            target = scheduled[0].when()
        self._virtual = max(self._virtual, target)

    def threads_at_work(self) -> bool:
        """Whether a worker thread is busy for a task of this loop."""
        return bool(self._at_work) or any(
            # anyio has no public word for it; where it changes, threads get `grace` like sockets.
            getattr(thread, "loop", None) is self and thread not in getattr(thread, "idle_workers", (thread,))
            for thread in threading.enumerate()
        )

    def run_in_executor(  # type: ignore[override]  # the stubs' own form cannot be written for a subclass
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread; the clock waits for it.

        :param executor: as asyncio has it.
        :param func: the function, called with `args`.
        """
        future = super().run_in_executor(executor, func, *args)
        self._at_work.add(future)
        future.add_done_callback(self._at_work.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait for its threads without a limit: one in virtual time would be over at once (from Python 3.12 on).

        :param timeout: is ignored.
        """
        await super().shutdown_default_executor()


class _JumpingSelector(selectors.DefaultSelector):
    """Waits a little in real time, then moves the loop's clock by what the loop wanted to wait."""

    def __init__(self, loop: VirtualLoop, grace: float, patience: float) -> None:
        super().__init__()
        self._loop = loop
        self._grace = grace
        self._patience = patience
        self.own = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self._loop.threads_at_work():
            real = self._patience
        else:
            real = self._grace if len(self.get_map()) > self.own else 0.0
        found = super().select(real)
        if not found:
            self._loop.jump(timeout)
        return found


def _trio_options(grace: float, patience: float) -> dict[str, Any]:
    import trio
    import trio.testing

    clock = trio.testing.MockClock(autojump_threshold=0)

    class Thresholds(trio.abc.Instrument):
        """Chooses, after every step of a task, how long the run must be idle before the clock jumps."""

        def after_task_step(self, _: trio.lowlevel.Task) -> None:
            io = trio.lowlevel.current_statistics().io_statistics
            # One reader is trio's own wake-up socket.
            waiting = getattr(io, "tasks_waiting_read", 0) + getattr(io, "tasks_waiting_write", 0) - 1
            threshold = patience if trio.testing.active_thread_count() else grace if waiting > 0 else 0.0
            if threshold != clock.autojump_threshold:
                clock.autojump_threshold = threshold

    return {"clock": clock, "instruments": [Thresholds()]}
