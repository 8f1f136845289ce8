"""Turns for attempts: whoever asks the same pool of models waits in one line, and reports how it went.

In charge of waiting. When a turn comes is for the pace to say (`pace.pace`), which is pure.
"""

from __future__ import annotations

from typing import Protocol

import anyio
import msgspec

from streamguard.engine.clock import CallClock
from streamguard.pace.pace import Pace, PaceView
from streamguard.pace.reports import Report, Returned
from streamguard.pace.sharing import Ask
from streamguard.pace.state import Cost, Knobs


class GivenTurn(msgspec.Struct, frozen=True):
    """A turn that came: the request may be sent."""

    cost: Cost
    """What was charged; it is owed a report."""
    guessed: float
    """The input tokens that were guessed."""
    alone: bool = False
    """Whether a program gave it to itself, because the store of its pace was away."""


class Pacer(Protocol):
    """Gives turns in one pool."""

    async def turn(self, clock: CallClock, ask: Ask) -> GivenTurn:
        """Wait for a turn. If the wait is cancelled, no turn is used up."""

    def report(self, report: Report, *, alone: bool = False) -> None:
        """Tell how an attempt went on.

        :param alone: as its turn has it.
        """

    def view(self, now: float) -> PaceView:
        """Return what the pace comes to."""

    async def flush(self, now: float) -> None:
        """Tell what is left to be told."""


class LocalPacer:
    """The pace of this process alone. Used on one event loop."""

    def __init__(self, knobs: Knobs) -> None:
        self.pace = Pace(knobs)
        self._line = anyio.Lock()
        """Calls wait for their turns in the order in which they came, and each asks for one turn."""
        self._changed: anyio.Event | None = None

    async def turn(self, clock: CallClock, ask: Ask) -> GivenTurn:
        """See `Pacer.turn`."""
        async with self._line:
            while True:
                found = self.pace.turn(
                    clock.now(), input_tokens=ask.input_tokens, max_tokens=ask.max_tokens, patient=ask.patient
                )
                if found.given:
                    break
                self._changed = self._changed or anyio.Event()
                with anyio.move_on_after(found.wait):
                    await self._changed.wait()
            try:
                if found.wait > 0:
                    await anyio.sleep(found.wait)
            except BaseException:
                self.report(Returned(at=clock.now(), cost=found.cost))
                raise
        return GivenTurn(found.cost, ask.input_tokens)

    def report(self, report: Report, *, alone: bool = False) -> None:  # noqa: ARG002
        """See `Pacer.report`."""
        report.tell(self.pace, report.at)
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def view(self, now: float) -> PaceView:
        """See `Pacer.view`."""
        return self.pace.view(now)

    async def flush(self, now: float) -> None:
        """See `Pacer.flush`: nothing is ever left."""
