"""Read from an attempt, and keep what budgets hold for it alive meanwhile.

A hold is renewed between reads. Only a read that may outlast the lease gets a task beside it, inside that one read: no
task is ever left while the consumer runs.
"""

from __future__ import annotations

import math

import anyio

from streamguard.budgets.reservation import Reservation
from streamguard.engine.attempt import End, RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.engine.dispatch import Dispatch
from streamguard.verdict import Trip


class Keeper:
    """Keeps one reservation alive.

    :param reservation: `None` where nothing is held.
    :param clock: woken when the reservation is lost.
    """

    def __init__(self, reservation: Reservation | None, clock: CallClock) -> None:
        self._reservation = reservation
        self._clock = clock
        self.lost: Trip | None = None
        """Why nothing is held any more, once that is so."""

    async def forever(self) -> None:
        """Renew the reservation whenever that is due, until it is lost or the task is cancelled."""
        reservation = self._reservation
        while reservation is not None and self.lost is None and reservation.heartbeat_due < math.inf:
            await anyio.sleep(max(0.0, reservation.heartbeat_due - self._clock.now()))
            self.lost = await Dispatch.beat(reservation)
        if self.lost is not None:
            self._clock.wake()

    async def read(self, running: RunningAttempt) -> tuple[bool, End]:
        """Read once; see `RunningAttempt.read`."""
        reservation, clock = self._reservation, self._clock
        if reservation is None:
            return await running.read()
        if clock.now() >= reservation.heartbeat_due:
            lost: Trip | None = None
            with clock.until(clock.deadline):  # a ledger that hangs is no excuse
                lost = await Dispatch.beat(reservation)
            if lost is not None:
                return True, lost
        if running.wait_until <= reservation.good_until:
            return await running.read(busy_until=reservation.heartbeat_due, wait_until=reservation.good_until)
        async with anyio.create_task_group() as beside:
            beside.start_soon(self.forever)
            result = await running.read()
            beside.cancel_scope.cancel()
        return result if self.lost is None else (True, self.lost)
