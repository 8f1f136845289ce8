"""The rate limits that a run's answers stated: a log of bounded length, and what it comes to for each model.

In charge of the log's length and of the figures. A person reads from it what the provider's limits are like: how fast
they fill up again, whether what is left is up to date, and what a refusal stated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from streamguard.engine.telemetry import LimitsSeen
from streamguard.pace.limits import LimitName, Limits

MOST_SEEN: Final = 256
"""Answers in the log of one run."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one answer stated. Times are seconds since the run began."""

    sent: float
    at: float
    """When the response head came."""
    model: str | None = None
    reason: str | None = None
    """Why the provider refused the request, if it did."""
    limits: Limits


class LimitsLog:
    """The answers of one run that stated limits: every one at first, every other one once there are `most`, and so on.

    :param most: answers to keep.
    """

    def __init__(self, most: int = MOST_SEEN) -> None:
        self.entries: list[Seen] = []
        """In order of their heads."""
        self._most, self._every, self._skipped = most, 1, 0

    def take(self, record: LimitsSeen, began: float) -> None:
        """Add one answer.

        :param began: when the run began, on the clock of the record.
        """
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        if len(self.entries) >= self._most:
            del self.entries[1::2]
            self._every *= 2
        self.entries.append(
            Seen(
                sent=round(record.sent - began, 3),
                at=round(record.at - began, 3),
                model=record.model,
                reason=record.reason,
                limits=record.limits,
            )
        )


class LimitFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of one model, over the answers of a log."""

    model: str | None
    name: LimitName
    per_minute: tuple[int, ...]
    """Every value that it had, in order."""
    least_left: float
    """The lowest share that was left, from 0 to 1."""
    answers: int


def figures(seen: Iterable[Seen]) -> list[LimitFigures]:
    """Return what a log says of each limit of each model, in order of their first answers."""
    found: dict[tuple[str | None, LimitName], list[tuple[int, float]]] = {}
    for one in seen:
        for name, limit in one.limits:
            found.setdefault((one.model, name), []).append((limit.per_minute, limit.share_left))
    return [
        LimitFigures(
            model=model,
            name=name,
            per_minute=tuple(value for i, (value, _) in enumerate(stated) if i == 0 or value != stated[i - 1][0]),
            least_left=min(share for _, share in stated),
            answers=len(stated),
        )
        for (model, name), stated in found.items()
    ]
