"""One judgement as far as it has got: how many steps it has taken, and whether anybody wants to know what is wrong."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

STEPS: Final = 100_000
STEPS_A_VALUE: Final = 256
"""Applications of subschemas that one judgement may take: so many, and so many more for each value within the value.
References that double at each of twenty levels would take hours (and a schema may be a stranger's)."""


class TooMuch(Exception):
    """A schema that takes too many steps to apply."""


class Run:
    """One judgement."""

    __slots__ = ("most", "quick", "steps", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.steps = 0
        self.most: float = STEPS
        self.quick = False
        """Whether it is only asked if something is wrong, and not what."""

    def step(self) -> None:
        """A subschema is about to be applied.

        :raises TooMuch: so often that the schema must be multiplying itself.
        """
        self.steps += 1
        if self.steps > self.most:
            self.most = STEPS + STEPS_A_VALUE * _size(self.value)
            if self.steps > self.most:
                raise TooMuch


RUN: ContextVar[Run] = ContextVar("RUN")
"""The judgement at hand: one schema may judge in several threads at once."""


def _size(value: Any) -> int:
    """How many values there are within a value."""
    count, todo = 0, [value]
    while todo:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            todo += one
    return count
