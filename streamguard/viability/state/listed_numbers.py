"""The numbers that `enum` or `const` lists, and which of them the beginning of a number can still become.

Kept in the order of their digits, without sign, point and exponent, so that a beginning picks out a range of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from decimal import Decimal
from operator import itemgetter
from typing import Final

from streamguard.viability.state.number_text import EXACT, SURE_DIGITS, Number, NumberText, decimal

_MARGIN: Final = Decimal(2) ** -52
_SOME: Final = 12
"""Digits by which numbers are looked up that are written with more than a float can tell apart."""
Entry = tuple[str, Number, Decimal | None]
"""Digits, number, and its exact magnitude if that is no integer."""
_BY_DIGITS: Final = itemgetter(0)
_LAST: Final = ":"
"""Sorts after every digit."""


class ListedNumbers:
    """Immutable."""

    __slots__ = ("_endless", "_index", "values")

    def __init__(self, values: Iterable[Number]) -> None:
        self.values: dict[Number, None] = dict.fromkeys(values)
        """The numbers, each once, in their order."""
        self._endless = any(not math.isfinite(value) for value in self.values if isinstance(value, float))
        self._index: dict[bool, list[Entry]] = {}

    def _ordered(self, negative: bool) -> list[Entry]:
        """The listed numbers of that sign, but for 0."""
        found = self._index.get(negative)
        if found is None:
            found = []
            for value in self.values:
                if not value or (value < 0) != negative:
                    continue
                if isinstance(value, int):
                    found.append((str(abs(value)).rstrip("0"), value, None))
                else:
                    found += [(_digits(exact), value, exact) for exact in _exact(value)]
            found.sort(key=_BY_DIGITS)
            self._index[negative] = found
        return found

    def alive(self, text: NumberText, taken: Container[object] | None) -> bool:
        """Whether the beginning can become one of them that is not `taken`."""
        if self._endless:
            return True
        if not text.digits and 0 in self.values and not (taken and 0 in taken):
            return True
        margin = text.size >= SURE_DIGITS
        sure = not text.plain and text.exponent is None and not margin
        return any(
            not (taken and value in taken)
            and (sure or _holds(text, Decimal(value).copy_abs() if exact is None else exact, margin=margin))
            for _, value, exact in self._near(text, margin=margin)
        )

    def _near(self, text: NumberText, *, margin: bool) -> Iterator[Entry]:
        """Those whose digits agree."""
        found = self._ordered(text.negative)
        if margin:
            first = int(text.digits[:_SOME])
            for number in (first - 1, first, first + 1):  # what is rounded may carry
                digits = str(number)
                yield from _beginning(found, digits[:_SOME] if len(digits) >= _SOME else "9" * _SOME)
        elif text.exponent is not None:
            yield from _beginning(found, text.digits, whole=True)
        else:
            yield from _beginning(found, text.digits)


def _beginning(found: list[Entry], digits: str, *, whole: bool = False) -> Iterator[Entry]:
    """Those whose digits begin so, with as many zeros after them as it takes. `whole`: and have no others."""
    short = digits.rstrip("0")
    at = bisect_left(found, short, key=_BY_DIGITS)
    while at < len(found) and found[at][0] == short:
        yield found[at]
        at += 1
    if whole:
        return
    if short != digits:
        at = bisect_left(found, digits, key=_BY_DIGITS)
    stop = bisect_left(found, digits + _LAST, key=_BY_DIGITS)
    for i in range(at, stop):
        yield found[i]


def _exact(value: float) -> set[Decimal]:
    """The magnitude as it is written, and as a large float that is equal to another integer is in truth."""
    written = decimal(value)
    found = {Decimal(value).copy_abs()}
    return found if written is None else found | {written.copy_abs()}


def _digits(magnitude: Decimal) -> str:
    return "".join(map(str, magnitude.as_tuple().digits)).strip("0")


def _holds(text: NumberText, magnitude: Decimal, *, margin: bool) -> bool:
    """Whether a magnitude is among those that the text can become."""
    slack = EXACT.multiply(magnitude, _MARGIN) if margin else Decimal(0)
    low, high = EXACT.subtract(magnitude, slack), EXACT.add(magnitude, slack)
    at = magnitude.adjusted()
    for start, end, closed in text.intervals(at - 1, at + 1):
        if start <= high and (end is None or low < end or (closed and low <= end)):
            return True
    return False
