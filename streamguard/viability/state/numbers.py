"""What a conjunction of number keywords says to an unfinished number, and to a finished one.

From 15 significant digits on, bounds have a margin of a float's precision, since the final judge compares what
`json.loads` reads: integers exactly, the rest as floats. Finished numbers are compared as read, and divided as the
decimals they are written as.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from decimal import ROUND_CEILING, Decimal
from operator import itemgetter
from typing import Any, Final

from streamguard.viability.schema.nodes import UNKNOWN, Atom, Sources
from streamguard.viability.schema.protocols import Beside
from streamguard.viability.state.number_text import (
    EXACT,
    SURE_DIGITS,
    Interval,
    Number,
    NumberText,
    decimal,
    is_multiple,
)

_LISTED_MARGIN: Final = Decimal(2) ** -52
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
    slack = EXACT.multiply(magnitude, _LISTED_MARGIN) if margin else Decimal(0)
    low, high = EXACT.subtract(magnitude, slack), EXACT.add(magnitude, slack)
    at = magnitude.adjusted()
    for start, end, closed in text.intervals(at - 1, at + 1):
        if start <= high and (end is None or low < end or (closed and low <= end)):
            return True
    return False


_TRIES: Final = 64
"""Multiples tried one by one where some values are excluded."""
_MARGIN: Final = Decimal(2) ** -50
_ZERO: Final = Decimal(0)
_FAR: Final = 330
"""Powers of ten beyond which a float is 0 or infinite."""
_ALL: Final[Interval] = (_ZERO, None, False)


class _Range:
    """The bounds on a magnitude."""

    __slots__ = ("above", "below", "hi", "lo")

    def __init__(self, lo: Decimal | None, above: bool, hi: Decimal | None, below: bool) -> None:
        self.lo = lo
        self.above = above  # `lo` itself is excluded
        self.hi = hi
        self.below = below

    def mirrored(self) -> _Range:
        lo = None if self.hi is None else self.hi.copy_negate()
        return _Range(lo, self.below, None if self.lo is None else self.lo.copy_negate(), self.above)

    def wider(self) -> _Range:
        lo, above, hi, below = self.lo, self.above, self.hi, self.below
        if lo:
            lo, above = EXACT.subtract(lo, EXACT.multiply(lo.copy_abs(), _MARGIN)), False
        if hi:
            hi, below = EXACT.add(hi, EXACT.multiply(hi.copy_abs(), _MARGIN)), False
        return _Range(lo, above, hi, below)

    def within(self, interval: Interval) -> tuple[Decimal, bool, Decimal | None, bool] | None:
        """What is left of an interval: from, whether that is excluded, to, whether that is; `None` for nothing."""
        start, end, closed = interval
        open_start, open_end = False, not closed
        if self.lo is not None and self.lo >= start:
            start, open_start = self.lo, self.above
        if self.hi is not None and (end is None or self.hi < end or (self.hi == end and closed)):
            end, open_end = self.hi, self.below
        if end is not None and (start > end or (start == end and (open_start or open_end))):
            return None
        return start, open_start, end, open_end


class NumberAlt:
    """A conjunction of number keywords."""

    __slots__ = (
        "_banned",
        "_ranges",
        "above",
        "banned",
        "below",
        "bounds",
        "candidates",
        "hi",
        "integer",
        "lo",
        "multiples",
        "no_multiples",
        "no_strict",
        "not_integer",
        "sources",
        "step",
        "strict_integer",
        "subs",
        "trivial",
        "unbounded",
        "wants_value",
    )

    def __init__(self) -> None:
        self.lo: Decimal | None = None
        self.hi: Decimal | None = None
        self.above = False  # `lo` itself is excluded
        self.below = False
        self.bounds: list[tuple[str, Number, Atom]] = []
        self.integer = False
        self.strict_integer = False  # draft 4: 1.0 is no integer
        self.not_integer = False
        self.no_strict = False  # draft 4: must not be written as an integer
        self.multiples: list[tuple[Number, Atom]] = []
        self.no_multiples: list[tuple[Number, Atom]] = []
        self.candidates: ListedNumbers | None = None
        self.banned: set[Number] = set()
        self._banned: set[Decimal | None] = set()
        self.sources = Sources()
        self.subs: tuple[Beside, ...] = ()
        self.wants_value = False
        self.trivial = False
        self.unbounded = False  # whether no beginning without exponent can be dead, but by its way of writing
        self.step = _ZERO  # what every value must be a multiple of; 0: nothing
        self._ranges: dict[tuple[bool, bool], _Range] = {}

    def limit(self, op: str, limit: Number, source: Atom) -> None:
        """`op` is one of `>=`, `>`, `<=`, `<`."""
        self.bounds.append((op, limit, source))
        value = decimal(limit)
        if value is None:
            return
        if op[0] == ">":
            if self.lo is None or value > self.lo or (value == self.lo and op == ">"):
                self.lo, self.above = value, op == ">"
                self.sources["lo"] = source
        elif self.hi is None or value < self.hi or (value == self.hi and op == "<"):
            self.hi, self.below = value, op == "<"
            self.sources["hi"] = source

    def only(self, values: Iterable[Number]) -> None:
        """One of these, and of those given before."""
        old = self.candidates
        self.candidates = ListedNumbers(v for v in values if old is None or v in old.values)

    def settle(self) -> bool:
        """Filter the candidates; whether any number is left, as far as one can tell."""
        if self.candidates is not None:
            self.candidates = ListedNumbers(v for v in self.candidates.values if self._suits(v))
            return bool(self.candidates.values)
        if (self.integer and self.not_integer) or (self.strict_integer and self.no_strict):
            return False
        divisors = [decimal(number) for number, _ in self.multiples]
        if self.integer or self.strict_integer:
            divisors.append(Decimal(1))
        self.step = _common_multiple([divisor for divisor in divisors if divisor is not None])
        if self.step and self.not_integer and _is_whole(self.step):
            return False
        self._banned = {decimal(value) for value in self.banned}
        special = bool(self.not_integer or self.banned or self.no_multiples)
        self.trivial = not (
            self.bounds or self.integer or self.strict_integer or self.no_strict or self.multiples or special
            or self.subs
        )  # fmt: skip
        self.unbounded = self.lo is None and self.hi is None and not special and not self.strict_integer
        plain = _Range(self.lo, self.above, self.hi, self.below)
        for negative, found in ((False, plain), (True, plain.mirrored())):
            self._ranges[negative, False], self._ranges[negative, True] = found, found.wider()
        if self.lo is None and self.hi is None:
            return True
        return any(self._meets(_ALL, negative, self._ranges[negative, False]) for negative in (False, True))

    def _suits(self, value: Number) -> bool:
        """Whether a candidate violates nothing else, however it is written: draft 4 tells 10 from 10.0."""
        if self.failing(value) is None:
            return True
        if not (self.strict_integer or self.no_strict) or not math.isfinite(value) or int(value) != value:
            return False
        try:
            other: Number = float(value) if isinstance(value, int) else int(value)
        except OverflowError:
            return False
        return other == value and self.failing(other) is None

    def _powers(self, bounds: _Range, text: NumberText) -> tuple[int, int]:
        """The powers of ten that the first digit of a magnitude within the bounds can stand at; where there is no
        bound, as far as it makes a difference."""
        low, high = -_FAR, _FAR
        if bounds.lo is not None and bounds.lo > 0:
            low = bounds.lo.adjusted() - 1
        elif self.step:
            low = self.step.adjusted()
        if bounds.hi is not None:
            high = bounds.hi.adjusted() + 1
        elif text.exponent is None:
            high = max(low, text.size) + max(self.step.adjusted(), 0) + 2
        return low, high

    def dead(self, text: NumberText, taken: Container[object] | None = None) -> Atom | None:
        """What kills the beginning, or `None`. `taken`: values that may not come again."""
        if self.strict_integer and not text.pure:
            return self.sources["integer"]
        if self.candidates is not None:
            return None if self.candidates.alive(text, taken) else self.sources["candidates"]
        if self.strict_integer:
            text = text.as_integer()
        free = text.exponent is None
        if self.unbounded and free and not text.plain:
            return None
        if free and not text.digits and self.failing(0) is None:
            return None
        bounds = self._ranges[text.negative, text.size >= SURE_DIGITS]
        if free and text.digits and self._meets(text.as_written(), text.negative, bounds):  # the likely case
            return None
        intervals: Iterable[Interval] = text.intervals(*self._powers(bounds, text))
        if self.step and text.size >= SURE_DIGITS:
            intervals = map(_widened, intervals)
        if any(self._meets(interval, text.negative, bounds) for interval in intervals):
            return None
        return self._blamed(text)

    def _blamed(self, text: NumberText) -> Atom:
        """What to say of a beginning that is dead."""
        if self.lo is not None and self.hi is not None:
            signed = text.as_written()[0] if text.digits else _ZERO
            above = not text.negative and signed > self.hi
            lower, upper = self.sources["lo"], self.sources["hi"]
            return (upper if above else lower).like("range", (lower.arg, upper.arg))
        for key in ("lo", "hi", "multiples", "integer", "not_integer", "no_multiples", "banned"):
            if key in self.sources:
                return self.sources[key]
        return UNKNOWN  # cannot be: something constrains, or nothing died

    def _meets(self, interval: Interval, negative: bool, bounds: _Range) -> bool:
        """Whether some magnitude of the interval, with that sign, satisfies everything but candidates."""
        left = bounds.within(interval)
        if left is None:
            return False
        start, open_start, end, open_end = left
        step = self.step
        if not step:
            return end is None or start != end or self._single(start, negative)
        if end is not None and end < step:
            return not start and not open_start and self._single(_ZERO, negative)
        value = EXACT.multiply(EXACT.divide(start, step).to_integral_value(ROUND_CEILING, EXACT), step)
        if value < start or (open_start and value == start):  # rounded, where the quotient has no end
            value = EXACT.add(value, step)
        for _ in range(_TRIES):
            if end is not None and (value > end or (value == end and open_end)):
                return False
            if self._single(value, negative):
                return True
            value = EXACT.add(value, step)
        return True

    def _single(self, value: Decimal, negative: bool) -> bool:
        """Whether a magnitude, with that sign, is not excluded."""
        whole = _is_whole(value)
        if (self.not_integer and whole) or (self.integer and not whole):
            return False
        if self.banned and any(
            decimal(number) == (value.copy_negate() if negative else value) for number in self.banned
        ):
            return False
        return not any(
            isinstance(number, int) and (number == 1 or value < 2**53) and whole and int(value) % number == 0
            for number, _ in self.no_multiples
        )

    def failing(self, value: Number) -> Atom | None:
        """What a finished number violates, or `None`."""
        if self.candidates is not None and value not in self.candidates.values:
            return self.sources["candidates"]
        if value in self.banned:
            return self.sources["banned"]
        whole = isinstance(value, int) or value.is_integer()
        if (self.integer and not whole) or (self.strict_integer and not isinstance(value, int)):
            return self.sources["integer"]
        if (self.not_integer and whole) or (self.no_strict and isinstance(value, int)):
            return self.sources["not_integer"]
        for op, limit, source in self.bounds:
            if not _COMPARE[op](value, limit):
                return source
        for number, source in self.multiples:
            if not is_multiple(value, number):
                return source
        for number, source in self.no_multiples:
            if is_multiple(value, number):
                return source
        return None


_COMPARE: Final[dict[str, Any]] = {
    ">=": lambda value, limit: value >= limit,
    ">": lambda value, limit: value > limit,
    "<=": lambda value, limit: value <= limit,
    "<": lambda value, limit: value < limit,
}


def _common_multiple(divisors: list[Decimal]) -> Decimal:
    """The least number that all of them divide; 0 for none."""
    scale = max((-int(divisor.as_tuple().exponent) for divisor in divisors), default=0)
    scale = max(scale, 0)
    whole = [int(divisor.scaleb(scale, EXACT)) for divisor in divisors]
    return Decimal(math.lcm(*whole)).scaleb(-scale, EXACT) if whole else _ZERO


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value(context=EXACT)


def _widened(interval: Interval) -> Interval:
    """With the margin of what floats cannot tell apart."""
    start, end, _ = interval
    start = EXACT.subtract(start, EXACT.multiply(start, _MARGIN))
    return start, None if end is None else EXACT.add(end, EXACT.multiply(end, _MARGIN)), True
