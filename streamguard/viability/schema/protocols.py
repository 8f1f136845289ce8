"""What the alternatives of a constraint have in common, whatever kind of value they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Beside(Protocol):
    """A constraint that holds beside an alternative, on the same value: `formula.AnyOf` is one."""

    key: Any
    """What makes it equal to another; falsy where it accepts everything."""

    def alternatives(self, kind: int) -> Sequence[Alternative]:
        """The alternatives for a value of that kind."""


class Alternative(Protocol):
    """One way to meet a constraint, for a value of one kind. `state/` has one class a kind."""

    wants_value: bool
    """Whether its state needs the Python value of what it is about."""

    @property
    def subs(self) -> Sequence[Beside]:
        """The constraints beside it."""
