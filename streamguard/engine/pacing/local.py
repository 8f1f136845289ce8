"""Turns for attempts: whoever asks the same pool of models waits in one line, and reports how it went.

In charge of waiting. When a turn comes is for the pace to say (`pace.pace`), which is pure.
"""

from __future__ import annotations

import threading
from typing import Protocol

import anyio
import msgspec

from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.line import CommonClock, Lines
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
    """The pace of this process alone, for any number of event loops.

    :param clock: where the moments of all loops are brought to; one of its own unless given.
    """

    def __init__(self, knobs: Knobs, clock: CommonClock | None = None) -> None:
        self.pace = Pace(knobs)
        self._lines = Lines()
        self._clock = clock or CommonClock()
        self._guard = threading.Lock()

    async def turn(self, clock: CallClock, ask: Ask) -> GivenTurn:
        """See `Pacer.turn`."""
        line = self._lines.here
        async with line.turn:
            while True:
                now = self._clock.moment(clock.now())
                with self._guard:
                    found = self.pace.turn(
                        now, input_tokens=ask.input_tokens, max_tokens=ask.max_tokens, patient=ask.patient
                    )
                if found.given:
                    break
                await line.changed(found.wait)
            try:
                if found.wait > 0:
                    await anyio.sleep(found.wait)
            except BaseException:
                self.report(Returned(at=clock.now(), cost=found.cost))
                raise
        return GivenTurn(found.cost, ask.input_tokens)

    def report(self, report: Report, *, alone: bool = False) -> None:  # noqa: ARG002
        """See `Pacer.report`."""
        at = self._clock.moment(report.at)
        with self._guard:
            report.shifted(at - report.at).tell(self.pace, at)
        self._lines.here.wake()

    def view(self, now: float) -> PaceView:
        """See `Pacer.view`."""
        with self._guard:
            return self.pace.view(now)

    async def flush(self, now: float) -> None:
        """See `Pacer.flush`: nothing is ever left."""
