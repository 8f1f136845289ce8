"""Whether an endpoint is down, and who may look whether it is back. Pure; time is an argument.

A cool-down answers "not now": the provider said so. A breaker answers "not here": nobody says anything, the line is
dead or silent, and every call would find that out by itself, ten seconds or a minute long. Three states:

* **closed**: requests go. `after` attempts in a row without a sign of life open it, or `share` of the last `of`.
  Refusals for overload count in the share alone: a cool-down sees them, and half of them is no outage.
* **open**: nothing is sent for `first` seconds, half as long again after each look in vain, `most` at the most.
* **half open**: one attempt at a time looks. Any answer closes it.

An answer is output, or an error that only a living provider says: a 429, a wrong key, a request that it rejects. What
the caller did (an interrupt, a budget, a deadline, a guard's trip on content) says nothing.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field, model_validator

from streamguard.guards.base import Spec

DOWN: Final = (
    "transport.connect",
    "transport.reset",
    "transport.incomplete",
    "transport.decode",
    "timeout.connect",
    "timeout.first_token",
    "timeout.alive",
    "timeout.attempt",
    "timeout.progress",
    "provider.api_error",
    "provider.timeout",
    "provider.overloaded",
)
"""Reasons that, before any output, speak of an endpoint that is down."""

REFUSING: Final = frozenset({"provider.overloaded"})
"""Those of them that a cool-down sees, too."""

SLOWER: Final = 1.5
"""How much longer the pause is after a look in vain."""

PROBE_LEASE: Final = 30.0
"""Seconds that a look may wait for its turn before it is sent. With its own clocks, after that it counts as given up:
its program died."""

State = Literal["closed", "open", "half_open"]
Speaks = Literal["answer", "down", "nothing"]


class BreakerSpec(Spec):
    """When an endpoint counts as down: then nothing is sent there but one request at a time that looks."""

    after: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts in a row without a sign of life: no connection, or nothing before a clock."""
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8
    """The share of the last attempts that failed so, or were refused for overload. Half of the window must be full."""
    of: Annotated[int, Field(ge=2, le=1000)] = 20
    """The last attempts that count for the share."""
    first: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 5.0
    """Seconds until the first look; half as long again after each look that fails."""
    most: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds between two looks, at most."""
    hold: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 1800.0
    """Seconds that a job waits for the end of an outage, before it stops as with `stop_on`. It goes on when run
    again."""

    @model_validator(mode="after")
    def _first_within_most(self) -> BreakerSpec:
        if "first" in self.model_fields_set and self.first > self.most:
            raise ValueError(f"first is {self.first:g} and most is {self.most:g}: begin with no more than the most")
        return self


class BreakerState(msgspec.Struct, kw_only=True):
    """What a breaker knows: plain numbers, so that a store can keep it."""

    recent: list[int] = []
    """Of the last attempts: 0 an answer, 1 no sign of life, 2 a refusal."""
    row: int = 0
    """Attempts in a row without a sign of life."""
    alive: bool = False
    """Whether the endpoint ever answered with output."""
    opened_at: float = -math.inf
    """When it opened; `-inf` while it is closed."""
    until: float = -math.inf
    """When to look next."""
    pause: float = 0.0
    reason: str = ""
    """What opened it."""
    probe: int = 0
    """The number of the look that is under way; 0 for none."""
    probe_until: float = -math.inf
    """When that look counts as given up."""
    looks: int = 0
    """Looks so far: each has its number."""


class Passage(msgspec.Struct, frozen=True):
    """What a breaker says to an attempt."""

    given: bool
    """Whether it may be sent."""
    wait: float = 0.0
    """Seconds until it is worth to ask again."""
    probe: int = 0
    """Its number as a look; 0 if it is none."""


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that is down."""

    model: str | None
    base_url: str | None
    """`None` for the source's own."""
    reason: str
    """What opened the breaker."""
    seconds: float
    """For how long it is open."""
    next_look: float
    """Seconds until somebody looks again; 0 if that may be now."""
    looking: bool = False
    """Whether somebody looks right now."""
    waiting: int = 0
    """Calls of this process that wait, of which one will look."""


def speaks(reason: str, *, output: bool) -> Speaks:
    """Return what the end of an attempt that was sent says of its endpoint.

    :param reason: why it ended.
    :param output: whether its output had begun.
    """
    if output:
        return "answer"
    if any(fnmatchcase(reason, pattern) for pattern in DOWN):
        return "down"
    if reason.startswith("provider.") and reason != "provider.unknown":
        return "answer"
    return "nothing"


class Breaker:
    """The breaker of one model at one endpoint.

    :param state: to go on from; a new one unless given.
    """

    def __init__(self, spec: BreakerSpec, state: BreakerState | None = None) -> None:
        self.spec = spec
        self.state = state or BreakerState()
        self.waiting = 0
        """Calls of this process that wait for its end."""

    @property
    def closed(self) -> bool:
        """Whether requests go."""
        return self.state.opened_at == -math.inf

    def at(self, now: float) -> State:
        """Return which of the three states it is in."""
        if self.closed:
            return "closed"
        return "open" if now < self.state.until else "half_open"

    def enter(self, now: float, *, lease: float = math.inf) -> Passage:
        """Ask whether an attempt may be sent. If it is to look, it owes `failed`, `answered` or `left`.

        :param lease: seconds after which a look counts as given up.
        """
        state = self.state
        if self.closed:
            return Passage(True)
        if now < state.until:
            return Passage(False, state.until - now)
        if state.probe and now < state.probe_until:
            return Passage(False, 1.0)
        state.looks += 1
        state.probe, state.probe_until = state.looks, now + lease
        return Passage(True, probe=state.looks)

    def answered(self, *, output: bool = True) -> bool:
        """An attempt was answered, as a look or otherwise. Return whether that closed it.

        :param output: whether with output, not with an error.
        """
        state, was_open = self.state, not self.closed
        state.row, state.alive = 0, state.alive or output
        if was_open:
            state.recent.clear()
            state.opened_at = state.until = -math.inf
            state.probe, state.pause = 0, 0.0
        self._remember(0)
        return was_open

    def failed(self, reason: str, now: float, *, probe: int = 0) -> bool:
        """An attempt got no sign of life. Return whether that opened it.

        :param probe: its number as a look; 0 if it was none.
        """
        state = self.state
        if not self.closed:
            # What was sent before it opened says nothing new.
            if probe and probe == state.probe:
                state.probe = 0
                state.pause = min(self.spec.most, state.pause * SLOWER)
                state.until = now + state.pause
            return False
        refused = reason in REFUSING
        self._remember(2 if refused else 1)
        state.row += not refused
        if state.row < self.spec.after and not self._mostly():
            return False
        self.open(reason, now)
        return True

    def open(self, reason: str, now: float, *, alive: bool = False) -> None:
        """Open it, unless it is open.

        :param alive: whether the endpoint is known to have answered before.
        """
        state = self.state
        state.alive = state.alive or alive
        if self.closed:
            state.reason, state.opened_at = reason, now
            state.pause = min(self.spec.first, self.spec.most)
            state.until = now + state.pause

    def left(self, probe: int) -> None:
        """A look ended without a word: another attempt may look."""
        if probe and probe == self.state.probe:
            self.state.probe = 0

    def wait(self, now: float) -> float:
        """Return the seconds until the next look; 0 while it is closed, or if somebody may look now."""
        return 0.0 if self.closed else max(0.0, self.state.until - now)

    def looking(self, now: float) -> bool:
        """Return whether a look is under way."""
        return not self.closed and bool(self.state.probe) and now < self.state.probe_until

    def _remember(self, what: int) -> None:
        recent = self.state.recent
        recent.append(what)
        del recent[: -self.spec.of]

    def _mostly(self) -> bool:
        recent = self.state.recent
        return len(recent) * 2 >= self.spec.of and sum(map(bool, recent)) >= self.spec.share * len(recent)
