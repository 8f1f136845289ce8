"""Two streams of one call, of which one is delivered: a second request beside one whose output is late.

In charge of the race alone. It holds tasks only while the provider is waited for, never while the consumer runs. The
loser is closed, settled and recorded before the race ends, whoever cancels it. When a second request is worth its price
`pace.hedge` says; what it may spend, budgets and the retry quota say.

A stream that fails while the other one runs is no end of the call: it is recorded, and the other one goes on alone.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from streamguard.budgets.reservation import Reservation
from streamguard.engine.attempt import End, RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.engine.dispatch import Dispatch
from streamguard.engine.streams.keeping import Keeper
from streamguard.events import Failed
from streamguard.pace.hedge import LOST
from streamguard.verdict import Trip


class Lane:
    """One of two streams, with everything that is its own.

    :param clock: keeps the time of this stream while both run.
    """

    def __init__(
        self, running: RunningAttempt, dispatch: Dispatch, reservation: Reservation | None, clock: CallClock
    ) -> None:
        self.running = running
        self.dispatch = dispatch
        self.reservation = reservation
        self.clock = clock
        self.found: tuple[bool, End] | None = None
        """What the last step brought: whether the attempt is over, and how. `None` while it runs."""
        running.keep_time_by(clock)

    @property
    def failed(self) -> bool:
        """Whether it is over, and is no answer."""
        return self.found is not None and self.found[0] and isinstance(self.found[1], Trip | Failed)

    @property
    def unopened(self) -> Trip | Failed | None:
        """Why there is no stream to go on with, if there is none."""
        end = None if self.found is None else self.found[1]
        return end if isinstance(end, Trip | Failed) and self.running.stream is None else None


class Ways(Protocol):
    """What a race asks of its call."""

    async def opened(self, lane: Lane) -> Trip | Failed | None:
        """Open a stream. The reason if that did not work out."""

    async def second(self, first: Lane, clock: CallClock) -> Lane | None:
        """Take what a second stream needs: a turn, a hold, a token; `None` if some of it is not to be had."""

    async def ended(self, lane: Lane, end: Trip | Failed, second: Lane) -> None:
        """Close, settle and record the stream that is not the call's, for a reason. Release it if it was not sent."""

    def over(self, first: Lane, second: Lane, *, went_on: bool) -> None:
        """Note what became of the second stream. With `went_on` it is the call's own from now on."""


class Race:
    """One race, run once.

    :param due: when the second stream begins at the earliest, on the call's clock.
    """

    def __init__(self, first: Lane, clock: CallClock, ways: Ways, *, due: float) -> None:
        self._first = first
        self._clock = clock
        self._ways = ways
        self._due = due
        self._second: Lane | None = None
        self._winner: Lane | None = None
        self._last = first
        """The stream that was over last, or had output last."""
        self._settled = anyio.Event()
        """Set when the first stream has output or is over."""
        self._beside: anyio.CancelScope | None = None
        """Around the second stream, while it runs."""

    async def run(self) -> Lane:
        """Wait until one stream has output or both are over, and return the one that goes on."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run_first)
                with anyio.CancelScope(deadline=self._due):
                    await self._settled.wait()
                if not self._settled.is_set():
                    await self._run_second()
                if self._winner is None:
                    await self._settled.wait()
                tasks.cancel_scope.cancel()
        finally:
            await self._finish()
        return self._winner or self._first

    async def _run_first(self) -> None:
        lane = self._first
        await self._drive(lane)
        if self._winner is None and not lane.failed:
            self._winner = lane
        # A second stream that was not sent yet is none: what follows from a failure the policy says.
        sent = self._second is not None and self._second.running.sent
        if self._beside is not None and (self._winner is lane or not sent):
            self._beside.cancel()
        self._settled.set()

    async def _run_second(self) -> None:
        clock = self._clock.beside()
        try:
            with anyio.CancelScope() as self._beside:
                self._second = lane = await self._ways.second(self._first, clock)
                if lane is None or self._settled.is_set():
                    return
                await self._drive(lane)
                if self._winner is None and not lane.failed:
                    self._winner = lane
        finally:
            self._beside = None
            self._clock.join(clock)

    async def _drive(self, lane: Lane) -> None:
        """Open a stream, and read until it has output or is over."""
        running = lane.running
        end: End = await self._ways.opened(lane)
        keeper, over = Keeper(lane.reservation, lane.clock), end is not None
        running.until_output = True
        while not over and not running.has_output:
            over, end = await keeper.read(running)
        running.until_output = False
        lane.found, self._last = (over, end), lane

    async def _finish(self) -> None:
        """End the stream that is not the call's."""
        first, second = self._first, self._second
        self._clock.join(first.clock)
        first.running.keep_time_by(self._clock)
        if second is None:
            return
        second.running.keep_time_by(self._clock)
        if self._winner is None and first.failed:
            # Of two that failed, the one that ended last decides what follows.
            self._winner = self._last if second.running.sent else first
        winner = self._winner = self._winner or first
        loser = first if winner is second else second
        end = loser.found[1] if loser.failed and loser.found is not None else None
        with anyio.CancelScope(shield=True):
            await self._ways.ended(loser, end if isinstance(end, Trip | Failed) else lost_trip(winner), second)
        self._ways.over(first, second, went_on=winner is second)


def lost_trip(winner: Lane) -> Trip:
    """The other stream was faster."""
    return Trip(
        reason=LOST,
        message=f"the call went on with its attempt {winner.running.number}, so this request beside it was closed",
        knob="hedge",
        guard="hedge",
    )
