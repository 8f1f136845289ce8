"""Where calls wait for turns: a line in each event loop, and one clock for all of them.

Threads may share a runtime, and each of them has an event loop. Locks and events belong to one loop, so every loop has
a line of its own. The clocks of loops differ, too (trio's begins anywhere), so their moments are brought onto one.
"""

from __future__ import annotations

import math
import threading
from typing import Final

import anyio
import anyio.lowlevel

LOOK_AGAIN: Final = 5.0
"""Seconds after which whoever waits asks again at the latest: what another loop reports wakes nobody here."""


class Line:
    """The line of one event loop."""

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        """Calls get their turns in the order in which they came, and each asks for one turn."""
        self._changed: anyio.Event | None = None

    async def changed(self, most: float) -> None:
        """Wait until something was reported in this loop.

        :param most: seconds after which to return in any case.
        """
        self._changed = self._changed or anyio.Event()
        with anyio.move_on_after(min(most, LOOK_AGAIN)):
            await self._changed.wait()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()


class Lines:
    """The lines of all event loops that wait for the same turns."""

    def __init__(self) -> None:
        self._lines: anyio.lowlevel.RunVar[Line] = anyio.lowlevel.RunVar(f"line-{id(self)}")

    @property
    def here(self) -> Line:
        """The line of the running loop."""
        line = self._lines.get(None)
        if line is None:
            line = Line()
            self._lines.set(line)
        return line


class CommonClock:
    """One clock for the moments of several event loops. It never goes back."""

    def __init__(self) -> None:
        self._ahead: anyio.lowlevel.RunVar[float] = anyio.lowlevel.RunVar(f"ahead-{id(self)}", 0.0)
        self._latest = -math.inf
        self._guard = threading.Lock()

    def moment(self, now: float) -> float:
        """Return a moment of the running loop on this clock."""
        moment = now + self._ahead.get()
        with self._guard:
            if moment >= self._latest:
                self._latest = moment
                return moment
            behind = self._latest
        self._ahead.set(behind - now)
        return behind
