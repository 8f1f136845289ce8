"""One call's time: the running backend's clock, the deadline of everything, and somebody's interrupt.

The only reader of a clock in the package. asyncio and trio have clocks of their own with bases of their own (and
virtual ones in tests), so the clock is looked up once per call on the loop that runs it.
"""

from __future__ import annotations

import asyncio
import copy
import math
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio


def backend_clock() -> Callable[[], float]:
    """The running backend's own clock, in seconds: monotonic, with an arbitrary base. Found here, it can be read from
    any thread, and after its loop has ended.

    :raises RuntimeError: no event loop runs.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        clock: Callable[[], float] = trio.lowlevel.current_clock().current_time
        return clock
    loop = running_loop()
    if loop is None:
        raise RuntimeError("a call begins inside a running event loop; in a thread without one use streamguard.sync")
    return loop.time


def _run_soon() -> Callable[..., object]:
    """What runs a function in the loop that runs here, called from another thread."""
    loop = running_loop()
    if loop is not None:
        return loop.call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs, if it is asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class CallClock:
    """The time of one call.

    :param total: seconds that the call may take in all, from now; `None` for no limit.
    """

    def __init__(self, total: float | None) -> None:
        self.now = backend_clock()
        self.began = self.now()
        self.deadline = math.inf if total is None else self.began + total
        """When the call ends at the latest."""
        self.lag = 0.0
        """Seconds by which the latest timer was late."""
        self.interrupted: str | None = None
        """Who interrupted the call, if somebody did."""
        self._beside: list[CallClock] = []
        """Clocks of other streams of the same call; see `beside`."""
        self._scope: anyio.CancelScope | None = None
        self._loop = running_loop()
        self._thread = threading.get_ident()
        self._soon: Callable[..., object] = _run_soon()
        self._reading: ReadScope | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf

    def interrupt(self, by: str) -> None:
        """End the call: at once if it waits, else before it waits again. From any task and any thread."""
        if self.interrupted is None:
            self.interrupted = by
        if threading.get_ident() == self._thread:
            self.wake()
            return
        with suppress(RuntimeError):  # the loop has ended, and the call with it
            self._soon(self.wake)

    def beside(self) -> CallClock:
        """Return a clock for a second wait of the same call, in another task: the same time, deadline and interrupt."""
        other = copy.copy(self)
        other._beside, other._scope, other._reading = [], None, None  # noqa: SLF001  a copy of its own kind
        other._timer, other._armed = None, math.inf  # noqa: SLF001
        self._beside.append(other)
        return other

    def join(self, other: CallClock) -> None:
        """Take a clock back that was given by `beside`: its wait is over."""
        other.disarm()
        self._beside.remove(other)
        self.lag = max(self.lag, other.lag)

    def leave_out(self, seconds: float) -> None:
        """Do not count what has passed: as if the call had begun so much later."""
        self.began += seconds
        self.deadline += seconds

    def until(self, deadline: float) -> DeadlineScope:
        """A context that ends its body at `deadline`, or at an interrupt."""
        return DeadlineScope(self, deadline)

    def reading(self, deadline: float) -> ReadScope:
        """The same for a wait that goes on in steps, each with a deadline of its own (`ReadScope.move`)."""
        return ReadScope(self, deadline)

    def disarm(self) -> None:
        """No more reading for now: leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._armed = None, math.inf

    def _arm(self, deadline: float) -> None:
        """See that `_fire` runs at the deadline, or before."""
        if deadline < self._armed and self._loop is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._armed = self._loop.call_at(deadline, self._fire), deadline

    def _fire(self) -> None:
        self._timer, self._armed = None, math.inf
        reading = self._reading
        if reading is not None:
            # The timer is as old as the deadline it was set for, which has mostly moved since.
            if self.now() >= reading.deadline:
                reading.end()
            else:
                self._arm(reading.deadline)

    def wake(self) -> None:
        """End the wait that is going on, if one is."""
        if self._scope is not None:
            self._scope.cancel()
        for other in self._beside:
            other.interrupted = self.interrupted
            other.wake()

    @property
    def over(self) -> bool:
        """Whether the call may not go on: its deadline has passed, or somebody interrupted it."""
        return self.interrupted is not None or self.now() >= self.deadline

    async def sleep(self, seconds: float) -> None:
        """Wait, but not past the deadline or an interrupt."""
        with self.until(min(self.now() + seconds, self.deadline)):
            await anyio.sleep_forever()


class DeadlineScope:
    """See `CallClock.until`. Around one wait for the provider, never around a consumer's code."""

    __slots__ = ("_clock", "_scope", "deadline")

    def __init__(self, clock: CallClock, deadline: float) -> None:
        self._clock = clock
        self.deadline = deadline
        self._scope = anyio.CancelScope(deadline=deadline)

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._clock._scope = self._scope  # noqa: SLF001  the clock's other half
        if self._clock.interrupted is not None:
            self._scope.cancel()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._clock._scope = None  # noqa: SLF001
        suppress = bool(self._scope.__exit__(exc_type, exc, traceback))
        if self._scope.cancelled_caught and self._clock.interrupted is None:
            self._clock.lag = max(self._clock.lag, self._clock.now() - self.deadline)
        return suppress and self._scope.cancelled_caught

    @property
    def ended(self) -> bool:
        """Whether the body was cut short, by the deadline or by an interrupt."""
        return self._scope.cancelled_caught


class ReadScope:
    """See `CallClock.reading`. Several reads share one scope, and many of these share one timer, which looks at the
    current deadline only when it fires: a deadline that moves with every read costs next to nothing that way."""

    __slots__ = ("_clock", "_scope", "deadline")

    def __init__(self, clock: CallClock, deadline: float) -> None:
        self._clock = clock
        self.deadline = deadline
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        clock, scope = self._clock, self._scope
        scope.__enter__()
        clock._scope, clock._reading = scope, self  # noqa: SLF001  the clock's other half
        if clock.interrupted is not None:
            scope.cancel()
        self.move(self.deadline)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        clock, scope = self._clock, self._scope
        clock._scope = clock._reading = None  # noqa: SLF001
        suppress = bool(scope.__exit__(exc_type, exc, traceback))
        if scope.cancelled_caught and clock.interrupted is None:
            clock.lag = max(clock.lag, clock.now() - self.deadline)
        return suppress and scope.cancelled_caught

    def move(self, deadline: float) -> None:
        """The next step ends at `deadline`, sooner or later than the last."""
        self.deadline = deadline
        if self._clock._loop is None:  # noqa: SLF001
            self._scope.deadline = deadline
        else:
            self._clock._arm(deadline)  # noqa: SLF001

    def end(self) -> None:
        """End the wait now."""
        self._scope.cancel()
