"""What a pace is made of: its numbers, its state, and the cost of a request. Plain data.

The state has numbers and lists of numbers only, so that a store can keep it and a script in a store can change it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from streamguard.pace.limits import NAMES

MARGIN: Final = 1.3
"""The rate over the limit while all of it is left. One program alone comes to rest at 93 % left."""

STEEP: Final = 4.0
"""How steeply the rate falls with what is used: `exp(-STEEP * used)`. 16 programs without a store meet at 24 % left."""

SHARED_MARGIN: Final = 1.1
SHARED_STEEP: Final = 1.5
"""The same where all programs share one pace: only strangers have to be left room."""

BURST: Final = 1.0
"""Seconds of the rate that may be sent at once."""

RAMP: Final = 15.0
"""Seconds from the first answer to the full rate."""

NEVER: Final = -1e18
"""A moment before all others: a store keeps no infinities."""

INPUT: Final = NAMES.index("input_tokens")
OUTPUT: Final = NAMES.index("output_tokens")
TOKENS: Final = NAMES.index("tokens")
DIMENSIONS: Final = range(len(NAMES))

Cost = tuple[float, float, float, float]
"""What a request takes of each limit, in the order of `limits.NAMES`."""

NOTHING: Final[Cost] = (0.0, 0.0, 0.0, 0.0)


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one pace; see `PaceSpec` and the constants here."""

    first: float = 8.0
    most: float = 512.0
    margin: float = MARGIN
    steep: float = STEEP
    burst: float = BURST
    ramp: float = RAMP
    use: float = 1.0
    reserves: bool = False
    own: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """Limits of one's own, a second; 0 for none."""


def _per_limit(value: float) -> list[float]:
    return [value] * len(NAMES)


class PaceState(msgspec.Struct, array_like=True):
    """Everything that a pace remembers. Times are seconds on the clock of whoever keeps it; `NEVER` for not yet."""

    at: float = NEVER
    """The latest moment that was seen."""
    rates: list[float] = msgspec.field(default_factory=lambda: _per_limit(0.0))
    """Units a second that the provider states for each limit; 0 where it states none."""
    left: list[float] = msgspec.field(default_factory=lambda: _per_limit(1.0))
    """The share of each limit that is left, as the latest answer stated it."""
    seen_at: float = NEVER
    """When it did."""
    levels: list[float] = msgspec.field(default_factory=lambda: _per_limit(0.0))
    """Units that may be sent at once; below 0 for a debt."""
    own: float = 1.0
    """The share of the rate that refusals left; it comes back by itself."""
    cut_at: float = NEVER
    """When a refusal lowered it."""
    known_at: float = NEVER
    """When the first limit was stated."""
    raised: float = 0.0
    """What a higher limit took from the share that is left, at once."""
    raised_at: float = NEVER
    inflight: float = 0.0
    """Turns that were given and have not ended."""
    usual: float = 0.0
    """Their average over a minute."""
    duration: float = 0.0
    """Seconds that a call takes, on average."""
    output: float = 0.0
    """The output tokens of the answers that were counted."""
    answers: float = 0.0
    """Answers that were counted: at most `WINDOW`, older ones fade."""
    counted: float = 0.0
    guessed: float = 0.0
    """Input tokens as the provider counted them, and as they had been guessed."""
    places: float = 0.0
    """Calls at a time where no limit is stated; 0 before the first turn."""
    base: float = 0.0
    """The usual time to a first token, in seconds; 0 while it is unknown."""
    starting: float = 1.0
    """1 while the places double, until the provider is seen to be busy."""
    places_at: float = NEVER
    """When late first tokens made the places fewer."""
    refused_at: float = NEVER
    """When a refusal that states no limits made them fewer."""
    firsts: list[float] = msgspec.field(default_factory=list)
    """The latest times to a first token, in seconds."""


class Turn(msgspec.Struct, frozen=True):
    """The answer to a request for a turn."""

    given: bool
    """Whether the turn was given, and charged. If not, ask again after `wait` seconds, or when something changed."""
    wait: float
    """Seconds from now to the turn; without a turn, to the next question, at most `LOOK`-long where places are full."""
    cost: Cost = NOTHING
    """What was charged; nothing while no limit is known."""
    why: str = ""
    """What the wait is for: the name of a limit, or `places`; empty without a wait."""
