"""What all calls of a runtime do when the provider is overloaded: stop together, come back slowly. Pure; time is an
argument.

Without it every call finds out for itself: a hundred running calls get a hundred refusals and ask a hundred times more.

* A refusal that means everybody begins one: a 429, a `retry-after`, or a 529 that is not alone. Of `WINDOW` attempts
  `SOME` must have been refused, or next to none answered yet: a busy provider refuses one in a hundred, and holding
  everybody back for that would cost more than asking the one again.
* It sets the time before which nothing new is sent: the provider's `retry-after`, or the
  wait that the policy gave the refused call.
* After it attempts start one by one, ever faster: the n-th (from 0) `DOUBLING * log2(n + 1)` seconds later, so 1 at
  once, 2 within half a second, 1,000 within five. The first are the probes: a refusal among them begins a new
  cool-down, for everybody.
* Refusals of attempts that were sent before it began say nothing new; at most they lengthen it.
* An attempt that was sent after it began and gets an answer ends the strikes; `RAMP` seconds after the pause nothing is
  held back any more.

A pause nobody named (the refused call gives up) lasts `FIRST` seconds, doubled with every strike, at most `MAX_PAUSE`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

FIRST: Final = 0.5
MAX_PAUSE: Final = 60.0
"""Seconds of a pause that neither provider nor policy named."""

DOUBLING: Final = 0.5
"""Seconds in which the number of starts doubles: about what a refusal takes to come back."""

RAMP: Final = 6.0
"""Seconds after which starts are free again: by then some 4,000 were let through."""

WINDOW: Final = 32
"""How many of the last attempts are remembered, by whether they were refused."""

SOME: Final = 3
"""Refusals among them that are no accident: one in a hundred comes to that in one window of two hundred."""

FEW: Final = 8
"""Answers without which nothing is known of the provider yet."""

COOLING: Final = ("provider.overloaded", "provider.rate_limited")
"""Reasons that begin a cool-down."""


class Cooldown:
    """The cool-down of one model."""

    def __init__(self) -> None:
        self.since = -math.inf
        """When the latest began."""
        self.until = -math.inf
        """Before which nothing is sent."""
        self.reason = ""
        """What began it."""
        self.round = 0
        """Counts cool-downs: who waits for a start looks whether it is still the same one."""
        self._strikes = 0
        self._slots = 0
        self._refused: deque[bool] = deque(maxlen=WINDOW)
        """Of the last attempts, whether they were."""

    def refused(self, reason: str, *, sent: float, now: float, wait: float | None, told: bool = True) -> None:
        """An attempt was refused.

        :param sent: when it was sent.
        :param wait: seconds that the provider or the policy asks for; `None` for neither.
        :param told: whether the provider itself says that it means everybody.
        """
        self._refused.append(True)
        refusals = sum(self._refused)
        if not told and refusals < SOME and len(self._refused) - refusals >= FEW:
            return
        if sent < self.since:
            if wait is not None and now + wait > self.until:
                # Who has a turn already asks for another one.
                self.until, self._slots = now + wait, 0
                self.round += 1
            return
        pause = min(MAX_PAUSE, FIRST * 2 ** min(self._strikes, 16)) if wait is None else wait
        self._strikes += 1
        self.round += 1
        self.reason, self.since, self._slots = reason, now, 0
        self.until = max(self.until, now + pause)

    def heard(self, reason: str, until: float, now: float) -> None:
        """Another program was refused: wait as long as it does.

        :param until: before which it sends nothing.
        """
        if until > max(self.until, now):
            self.reason, self.since, self.until = reason, now, until
            self._slots = 0
            self.round += 1

    def answered(self, *, sent: float) -> None:
        """An attempt was answered: the provider takes requests again."""
        self._refused.append(False)
        if sent >= self.since:
            self._strikes = 0

    def start(self, now: float, deadline: float = math.inf) -> float | None:
        """When the next attempt may be sent; `None` if that is after `deadline`, and then its turn is not used up."""
        if now >= self.until + RAMP:
            return now
        at = max(now, self.until + DOUBLING * math.log2(self._slots + 1))
        if at > deadline:
            return None
        # Turns that nobody took are gone: a pause in the demand must not be followed by a burst.
        self._slots = max(self._slots + 1, math.floor(2 ** max(0.0, (now - self.until) / DOUBLING)))
        return at

    def calm(self, now: float) -> bool:
        """Return whether neither a pause nor the ramp after one runs."""
        return now >= self.until + RAMP

    def left(self, now: float) -> float:
        """Seconds until anything is sent again."""
        return max(0.0, self.until - now)
