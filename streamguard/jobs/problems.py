"""Mistakes of a job, collected: all are counted, the first ones kept.

A file of a hundred thousand bad rows has a hundred thousand mistakes; nobody reads more than a screen of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streamguard.errors import JobError, Problem

MAX_KEPT = 50
"""Mistakes that are kept and shown; equal ones count once."""


class Problems:
    """The mistakes so far."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Problem] = {}
        """By what is said: the first of its kind."""
        self._times: dict[tuple[object, ...], int] = {}
        self._more = 0
        """Mistakes of kinds that are not kept."""
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, problem: Problem) -> None:
        """Note a mistake. Equal ones of several lines are folded into the first."""
        self.count += 1
        kind = problem.file, problem.pointer, problem.problem
        if kind in self._kept:
            self._times[kind] += 1
        elif len(self._kept) < MAX_KEPT:
            self._kept[kind], self._times[kind] = problem, 1
        else:
            self._more += 1

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note several."""
        for problem in problems:
            self.add(problem)

    def all(self) -> list[Problem]:
        """What is kept, and how many there are beyond."""
        told = [_folded(problem, self._times[kind]) for kind, problem in self._kept.items()]
        return [*told, Problem(problem=f"and {self._more:,} more")] if self._more else told

    def raise_any(self) -> None:
        """:raises JobError: if there are mistakes; with all of them."""
        if self:
            raise JobError(self.all())


def _folded(problem: Problem, times: int) -> Problem:
    if times == 1:
        return problem
    told = f"{times:,} times" if problem.line is None else f"{times:,} rows, first in line {problem.line:,}"
    return msgspec.structs.replace(problem, problem=f"{problem.problem} ({told})")
