"""The section `hedge` of a policy, and when a second request is worth its price. Pure: it reads no clock.

In charge of one decision: after how many seconds without output a call asks a second time, and whether it may. The race
of the two streams is the engine's.

* The delay is the larger of a quantile of the last first tokens and so many of their medians. Without the floor of
  medians a budget is spent on answers that are merely late, before the stuck ones come.
* `Never` names every state in which no second request is sent. A provider that is slow for everybody is not asked more.
* The allowance is counted over the last `WINDOW` calls, so that no run of as many calls has more than its share.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from statistics import median
from typing import Annotated, Final, Literal

from pydantic import Field

from streamguard.guards.base import Spec
from streamguard.pace.limits import Limits

REMEMBERED: Final = 512
"""First tokens that quantile and median are of."""

FIRST: Final = 64
"""Answers before which nothing is known well enough to hedge by."""

RECENT: Final = 32
FEW_RECENT: Final = 16
"""First tokens that the running median is of, and without which there is none."""

SLOW: Final = 2.0
"""The running median over the usual one from which on everybody is slow."""

FORGET: Final = 1.02
"""By how much the usual median may grow with every `FIRST` answers: a provider that became slower is so for good."""

LEAST_LEFT: Final = 0.2
"""The share of a limit below which nothing is sent twice."""

WINDOW: Final = 200
"""Calls over which the allowance is counted."""

LOST: Final = "hedge.lost"
"""The reason of the slower of two streams."""

Never = Literal["answers", "cooldown", "breaker", "limits", "slow", "spend"]
"""Why no second request is sent: too few answers known; a cool-down or its ramp runs; the breaker is not closed; a
limit is nearly used up; everybody is slow; the allowance is spent."""


class HedgeSpec(Spec):
    """A second request for a call whose output is late. The first to give output wins. It is paid for: the loser costs
    its input.

    Needs `retry.attempts` of 2 or more, since a second request is an attempt; refused with `deliver: live`.
    """

    at: Annotated[float, Field(ge=0.5, lt=1, allow_inf_nan=False)] = 0.95
    """The quantile of the last first tokens after which a second request may be sent."""
    medians: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 3.0
    """The least delay, in medians of the last first tokens."""
    spend: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.05
    """The most second requests, as a share of any 200 calls."""


class Hedges:
    """What is known of one model at one endpoint, for all calls that may ask it twice."""

    def __init__(self, spec: HedgeSpec) -> None:
        self.spec = spec
        self.calls = 0
        """Calls that have begun."""
        self._seen: deque[float] = deque(maxlen=REMEMBERED)
        self._order: list[float] = []
        """The same, sorted."""
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._answers = 0
        self._usual = math.inf
        """The usual median, in seconds: the least of late, which grows slowly."""
        self._left = 1.0
        """The smallest share that is left of a limit, as the latest answer states it."""
        self._spent: deque[int] = deque()
        """The numbers of the calls that asked twice, among the last `WINDOW`."""

    def began(self) -> None:
        """A call begins."""
        self.calls += 1
        while self._spent and self._spent[0] <= self.calls - WINDOW:
            self._spent.popleft()

    def first_token(self, seconds: float) -> None:
        """Take how long a first request took to its first token.

        :param seconds: or how long it was waited for in vain.
        """
        if len(self._seen) == REMEMBERED:
            del self._order[bisect_left(self._order, self._seen[0])]
        self._seen.append(seconds)
        insort(self._order, seconds)
        self._recent.append(seconds)
        self._answers += 1
        if self._answers % FIRST == 0:
            self._usual = min(self._usual * FORGET, self._median)

    def stated(self, limits: Limits) -> None:
        """Take the limits that an answer states."""
        shares = [limit.share_left for _, limit in limits]
        if shares:
            self._left = min(shares)

    @property
    def delay(self) -> float | None:
        """Seconds without output after which a second request may be sent; `None` within the first answers. What long
        inputs take is not in it."""
        if self._answers < FIRST:
            return None
        quantile = self._order[min(len(self._order) - 1, int(self.spec.at * len(self._order)))]
        return max(quantile, self.spec.medians * self._median)

    def never(self, *, cooling: bool, broken: bool = False, spent: bool = False) -> Never | None:
        """Return why no second request may be sent now; `None` if one may.

        :param cooling: whether a cool-down or the ramp after it runs.
        :param broken: whether the endpoint's breaker is not closed.
        :param spent: whether the request has its place in the allowance already.
        """
        if self._answers < FIRST:
            return "answers"
        if cooling:
            return "cooldown"
        if broken:
            return "breaker"
        if self._left < LEAST_LEFT:
            return "limits"
        if len(self._recent) >= FEW_RECENT and median(self._recent) > SLOW * self._usual:
            return "slow"
        return None if spent or len(self._spent) < self.allowed else "spend"

    @property
    def allowed(self) -> int:
        """The second requests that the last `WINDOW` calls may have, or as many as have begun."""
        return math.floor(self.spec.spend * min(WINDOW, self.calls) + 1e-9)

    def spend(self) -> None:
        """A second request is sent."""
        self._spent.append(self.calls)

    def give_back(self) -> None:
        """It was not sent after all."""
        if self._spent:
            self._spent.pop()

    @property
    def _median(self) -> float:
        return self._order[len(self._order) // 2]
