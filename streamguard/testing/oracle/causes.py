"""A cause for which an attempt may end, and the moments between which the cause speaks."""

from __future__ import annotations

import math
from typing import NamedTuple

from streamguard.testing.oracle.reading import Answer

NEVER = math.inf
RANKS = ("failed", "completion", "json", "checks", "content", "repetition", "caps", "clocks", "asked", "accepted")
"""Who speaks first about the same event. `asked` are checks that are awaited."""


class Moment(NamedTuple):
    """A place in an attempt. At the same time events have an order, and about one event causes have one."""

    time: float
    number: float = -1
    rank: int = 0


class Cause(NamedTuple):
    """A way in which an attempt may end."""

    reasons: tuple[str | None, ...]
    """The trips or failures it may be called, all meaning the same; of an answer that is accepted, how."""
    earliest: Moment
    latest: Moment
    accepted: bool = False
    answer: Answer | None = None
    """Of a failure, what was answered."""
