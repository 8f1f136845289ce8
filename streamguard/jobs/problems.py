"""Mistakes of a job, collected: all are counted, the first ones kept.

A file of a hundred thousand bad rows has a hundred thousand mistakes; nobody reads more than a screen of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamguard.errors import JobError, Problem

MAX_KEPT = 50
"""Mistakes that are kept and shown."""


class Problems:
    """The mistakes so far."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, problem: Problem) -> None:
        """Note a mistake."""
        self.count += 1
        if self.count <= MAX_KEPT:
            self.kept.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note several."""
        for problem in problems:
            self.add(problem)

    def all(self) -> list[Problem]:
        """What is kept, and how many there are beyond."""
        more = self.count - len(self.kept)
        return [*self.kept, Problem(problem=f"and {more:,} more")] if more else list(self.kept)

    def raise_any(self) -> None:
        """:raises JobError: if there are mistakes; with all of them."""
        if self:
            raise JobError(self.all())
