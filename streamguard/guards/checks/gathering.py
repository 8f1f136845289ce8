"""The values that a check waits for, in one document: gathered as they are complete, until it can be decided.

In charge of when. A check of the whole is due once, as soon as every place that it reads is complete, or known to be
absent: what an object does not have when it closes does not come any more. A check of items is due for each item as it
closes, or once the other places that it reads are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from streamguard.guards.checks.evaluation import ABSENT
from streamguard.guards.checks.program import Fold, Wanted
from streamguard.guards.checks.values import Absent, Unusable
from streamguard.guards.document.finished import ON_THE_WAY, FinishedValue
from streamguard.viability.syntax.grammar import ARRAY


class Due(msgspec.Struct, frozen=True):
    """A moment at which a check can be decided."""

    by: FinishedValue
    """The value that was the last to be complete."""
    item: FinishedValue | None = None
    """The item that it is about, if it has `at`."""
    false: bool = False
    """Whether the fold that decides has said no."""


class Gathering:
    """What one check knows of one document."""

    __slots__ = (
        "_held",
        "_left",
        "_left_folds",
        "_open",
        "_running",
        "_scopes",
        "_wanted",
        "doc",
        "folds",
        "over",
    )

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.doc: list[Any] = [ABSENT] * len(wanted.places)
        """The value of each place."""
        self.folds: list[Any] = [Absent()] * len(wanted.folds)
        """What each fold came to, or raised; `Absent` while it runs."""
        self._running: list[Any] = [fold.aggregate.start() for fold in wanted.folds]
        self._scopes = [fold.scope() for fold in wanted.folds]
        self._open = set(range(len(wanted.folds)))
        self._left = set(wanted.needs)
        self._left_folds = set(wanted.needs_folds)
        self._held: list[FinishedValue] = []
        self.over = False
        """Whether the check of the whole is decided."""

    def take(self, number: int, value: FinishedValue) -> Iterator[Due]:
        """Take a value that is complete.

        :param number: of its place in `Wanted.paths`, or `ON_THE_WAY`.
        """
        wanted = self._wanted
        if self.over:
            return
        places = len(wanted.places)
        if number == ON_THE_WAY:
            self._closed(value)
        elif number < places:
            if wanted.places[number] == value.path:
                self.doc[number] = value
                self._left.discard(number)
        elif wanted.at is not None and number == places:
            if self._left or self._left_folds:
                self._held.append(value)
            else:
                yield Due(value, value)
            return
        elif self._item(number - places - (wanted.at is not None), value):
            self.over = True
            yield Due(value, false=True)
            return
        if self._left or self._left_folds:
            return
        if wanted.at is None:
            self.over = True
            yield Due(value)
            return
        held, self._held = self._held, []
        for item in held:
            yield Due(value, item)

    def _item(self, number: int, value: FinishedValue) -> bool:
        """Take an item of a fold; whether the check is thereby false."""
        so_far = self._running[number]
        fold = self._wanted.folds[number]
        if isinstance(so_far, Exception) or so_far is fold.aggregate.stop or isinstance(value.path[-1], str):
            return False
        try:
            so_far = fold.step(self._scopes[number], so_far, read(value))
        except (Absent, Unusable) as error:
            so_far = error
        self._running[number] = so_far
        return number == self._wanted.split and so_far is False

    def _closed(self, value: FinishedValue) -> None:
        """A value on the way to places is complete: what it does not have is absent."""
        path = value.path
        depth = len(path)
        if self._left:
            places = self._wanted.places
            self._left = {one for one in self._left if len(places[one]) <= depth or not _leads(path, places[one])}
        for number in tuple(self._open):
            fold = self._wanted.folds[number]
            if len(fold.path) < depth or not _leads(path, fold.path):
                continue
            self._open.discard(number)
            self._left_folds.discard(number)
            if len(fold.path) == depth:
                self.folds[number] = self._result(fold, self._running[number], value)

    def _result(self, fold: Fold, so_far: Any, array: FinishedValue) -> Any:
        if isinstance(so_far, Exception):
            return so_far
        if array.kind != ARRAY:
            return _no_array(fold, array)
        try:
            return fold.aggregate.result(so_far)
        except Absent as error:
            return error

    def values(self) -> Sequence[Any]:
        """Return the values of the places, read.

        :raises Unusable: a number that cannot be read.
        """
        for number, value in enumerate(self.doc):
            if isinstance(value, FinishedValue):
                self.doc[number] = read(value)
        return self.doc


def read(value: FinishedValue) -> Any:
    """Read a value.

    :raises Unusable: a number that cannot be read.
    """
    try:
        return value.value
    except ValueError as error:
        raise Unusable(str(error)) from None


def _leads(path: tuple[str | int, ...], to: Sequence[str | int]) -> bool:
    return all(str(one) == str(other) for one, other in zip(path, to, strict=False))


_NAMES: Final = {1: "an object", 4: "a string", 8: "a number", 16: "true", 32: "false"}


def _no_array(fold: Fold, value: FinishedValue) -> Exception:
    said = _NAMES.get(value.kind)
    return Absent() if said is None else Unusable(f"{fold.name} needs an array, not {said}")
