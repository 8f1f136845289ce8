"""What attempts report to a pace, as plain data, to be told at once or later, here or in another process. Pure.

In charge of the words. Moments are on the reporter's clock. Whoever keeps the pace has another clock, and is told how
long ago things happened.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from streamguard.pace.limits import Limits
from streamguard.pace.pace import Pace
from streamguard.pace.state import Cost


class Report(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What happened to one attempt, or to its turn."""

    ends: ClassVar[bool] = False
    """Whether the turn is over with it."""
    at: float
    """When it happened, on the reporter's clock."""

    def shifted(self, seconds: float) -> Self:
        """Return the same with its moments on a clock that is so many seconds ahead."""
        moments = {name: getattr(self, name) + seconds for name in ("at", "sent") if hasattr(self, name)}
        return msgspec.structs.replace(self, **moments) if seconds else self

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:
        """Tell the pace.

        :param now: on the clock of whoever keeps the pace.
        :param ago: seconds since it happened.
        """
        raise NotImplementedError


class Seen(Report, frozen=True, kw_only=True):
    """An answer stated limits, refused or not."""

    limits: Limits

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:  # noqa: ARG002
        """See `Pace.seen`."""
        pace.seen(now, self.limits)


class Began(Report, frozen=True, kw_only=True):
    """An answer's first token came, or at least its count of the input."""

    sent: float
    """When the request was sent, on the reporter's clock."""
    seconds: float
    """From then to the first token; below 0 without one."""
    cost: Cost
    guessed: float
    counted: float

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:
        """See `Pace.began`."""
        sent = now - ago - (self.at - self.sent)
        pace.began(now, sent=sent, seconds=self.seconds, cost=self.cost, guessed=self.guessed, counted=self.counted)


class Settled(Report, frozen=True, kw_only=True):
    """An attempt that the provider worked on is over."""

    ends = True

    cost: Cost
    output: float
    seconds: float

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:  # noqa: ARG002
        """See `Pace.settled`."""
        pace.settled(now, cost=self.cost, output=self.output, seconds=self.seconds)


class Refused(Report, frozen=True, kw_only=True):
    """The provider refused a request."""

    ends = True

    sent: float
    cost: Cost
    limited: bool

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:
        """See `Pace.refused`."""
        pace.refused(now, sent=now - ago - (self.at - self.sent), cost=self.cost, limited=self.limited)


class Late(Report, frozen=True, kw_only=True):
    """An answer never began, and was given up."""

    ends = True

    sent: float
    cost: Cost

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:
        """See `Pace.late`."""
        pace.settled(now, cost=self.cost, output=-1.0, seconds=self.at - self.sent)
        pace.late(now, sent=now - ago - (self.at - self.sent))


class Returned(Report, frozen=True, kw_only=True):
    """A turn was not used."""

    ends = True

    cost: Cost

    def tell(self, pace: Pace, now: float, ago: float = 0.0) -> None:  # noqa: ARG002
        """See `Pace.returned`."""
        pace.returned(now, cost=self.cost)
