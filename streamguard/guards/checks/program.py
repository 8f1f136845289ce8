"""A compiled check: what it reads, when it can be decided, and its verdict.

In charge of the whole of one check: the expression, the sentence of `say`, and the places that both read. It knows no
stream; whoever has the values hands them over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streamguard.files.json_pointer import Path, pointer
from streamguard.guards.checks.evaluation import MAX_STEPS, Run, Scope, truth
from streamguard.guards.checks.functions import Aggregate
from streamguard.guards.checks.values import Absent, Unusable, said, shown
from streamguard.guards.document.finished import ANY_KEY

Parts = tuple[str | int, ...]
"""A place of the document: names, and the numbers of items."""

MAX_SHOWN: Final = 6
"""Most values that a message tells of."""


class Fold(msgspec.Struct, frozen=True):
    """An aggregate over the items of an array of the document, computed as they come."""

    path: tuple[str, ...]
    """Of the array."""
    text: str
    """As written."""
    name: str
    aggregate: Aggregate
    conditions: tuple[Run, ...]
    element: Run
    slots: int

    def scope(self) -> Scope:
        """Return what the evaluation of an item sees. One after the other may use it."""
        return Scope((), (), None, None, self.slots)

    def step(self, scope: Scope, so_far: Any, value: Any) -> Any:
        """Take one more item.

        :raises Absent: the item lacks what is read of it.
        :raises Unusable: the item cannot be used.
        """
        scope.names[0] = value
        scope.steps = MAX_STEPS
        for one in self.conditions:
            if not truth(one(scope)):
                return so_far
        return self.aggregate.step(so_far, self.element(scope))


class Reads:
    """What the expressions of one check read of the document."""

    def __init__(self) -> None:
        self.places: dict[Parts, int] = {}
        self.folds: list[Fold] = []

    def place(self, parts: Parts) -> int:
        """Note a place; gives its number."""
        return self.places.setdefault(parts, len(self.places))

    def fold(self, fold: Fold) -> int:
        """Note a fold; gives its number. The same one again has the same number."""
        for number, other in enumerate(self.folds):
            if (other.path, other.text) == (fold.path, fold.text):
                return number
        self.folds.append(fold)
        return len(self.folds) - 1


class Sentence(msgspec.Struct, frozen=True):
    """The words of `say`: texts and expressions in turn."""

    parts: tuple[str | Run, ...]

    def write(self, scope: Scope) -> str:
        """Put the values in; `?` for one that is not known, or cannot be computed."""
        return "".join(part if isinstance(part, str) else _written(part, scope) for part in self.parts)


def _written(run: Run, scope: Scope) -> str:
    try:
        return said(run(scope))
    except (Absent, Unusable):
        return "?"


class Wanted(msgspec.Struct, frozen=True):
    """What a check reads of a document."""

    places: tuple[Parts, ...]
    at: Path | None
    """The place of the items; `None` for a check of the whole."""
    folds: tuple[Fold, ...] = ()
    needs: frozenset[int] = frozenset()
    """The places that it waits for."""
    needs_folds: frozenset[int] = frozenset()
    split: int | None = None
    """The fold whose first false item decides."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The places to subscribe to: those that are read, the items, and the items of each fold."""
        places = tuple(tuple(str(part) for part in place) for place in self.places)
        items = () if self.at is None else (self.at,)
        return (*places, *items, *((*fold.path, ANY_KEY) for fold in self.folds))


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One check, compiled."""

    text: str
    """The expression as written, on one line."""
    run: Run
    wanted: Wanted
    """What it reads of the document, those of `say` included."""
    slots: int
    shown: tuple[tuple[str, Run], ...]
    say: Sentence | None

    @property
    def about(self) -> str:
        """The JSON Pointer of the first value that it reads."""
        wanted = self.wanted
        if wanted.needs:
            return pointer(wanted.places[min(wanted.needs)])
        return pointer(wanted.folds[min(wanted.needs_folds)].path) if wanted.needs_folds else ""

    def holds(self, scope: Scope) -> bool:
        """Evaluate the expression.

        :raises Absent: it reads what is not there.
        :raises Unusable: it cannot be evaluated.
        """
        return truth(self.run(scope))

    def values(self, scope: Scope) -> str:
        """Tell what the expression read."""
        found = []
        for text, run in self.shown[:MAX_SHOWN]:
            try:
                found.append(f"{text} is {shown(run(scope))}")
            except (Absent, Unusable):
                continue
        return ", ".join(found)

    def message(self, scope: Scope) -> str:
        """Say why the check does not hold."""
        if self.say is not None:
            return self.say.write(scope)
        values = self.values(scope)
        return f"{self.text} does not hold{': ' if values else ''}{values}"

    def scope(self, doc: Sequence[Any], folds: Sequence[Any], it: Any = None, index: Any = None) -> Scope:
        """Return what one evaluation sees."""
        return Scope(doc, folds, it, index, self.slots)
