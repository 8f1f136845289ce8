"""An unfinished number: which values it can still become, and what a conjunction of number keywords says to that.

A beginning stands for the exact decimals that continue it. Since an exponent may follow (`numbers: exact`), the digits
fix the significand alone: `15` may become 1.5 or 15000. With `numbers: plain` no exponent is expected before one is
seen. From 15 significant digits on, bounds have a margin of a float's precision, since the final judge compares what
`json.loads` reads: integers exactly, the rest as floats. Finished numbers are compared as read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator
from fractions import Fraction
from typing import Any, Final

from streamguard.viability.nodes import Sources

_PARTS = re.compile(r"(-?)([0-9]*)(\.?)([0-9]*)(?:([eE])([+-]?)([0-9]*))?").fullmatch
_TRIES: Final = 64
"""Multiples tried one by one where some values are excluded."""
_REACH: Final = 330
"""Exponents beyond which a float is 0 or infinite."""
_SURE_DIGITS: Final = 15
_MARGIN: Final = Fraction(1, 2**52)

Number = int | float
Interval = tuple[Fraction, Fraction | None, bool]
"""From, to (`None`: without end), whether the end belongs to it. The beginning always does."""


def fraction(value: Number) -> Fraction | None:
    """The exact decimal that a schema's number is written as; `None` if infinite."""
    if isinstance(value, int):
        return Fraction(value)
    return Fraction(repr(value)) if math.isfinite(value) else None


class NumberText:
    """What is known of a number from its text so far."""

    __slots__ = ("digits", "exponent", "fixed", "negative", "plain", "pure", "scale", "sign")

    def __init__(self, text: str, *, plain: bool) -> None:
        found = _PARTS(text)
        assert found is not None  # the scanner passes beginnings of numbers only
        minus, whole, dot, part, e, self.sign, exponent = found.groups()
        self.negative = minus == "-"
        self.digits = (whole + part).lstrip("0")
        self.scale = len(part)
        self.exponent: str | None = exponent if e else None
        self.plain = plain
        self.pure = not dot and not e
        """Whether it may yet be written as an integer."""
        self.fixed = bool(dot) or whole == "0"
        """Whether the digits before the point are all there."""

    def intervals(self) -> Iterator[Interval]:
        """The magnitudes it can still become, not beginning with the nearest."""
        if self.exponent is not None:
            value = Fraction(int(self.digits or 0), 10**self.scale)
            if not value:
                yield Fraction(0), Fraction(0), True
                return
            for power in self._powers():
                scaled = value * Fraction(10) ** power
                yield scaled, scaled, True
            if self.sign != "-":  # overflow: read as infinite
                yield Fraction(10) ** 309, None, False
            if self.sign == "-" or not self.exponent:  # underflow: read as 0
                yield Fraction(0), Fraction(0), True
            return
        if self.plain:
            yield from self._plain()
            return
        if not self.digits:
            yield Fraction(0), None, False
            return
        first = int(self.digits)
        size = len(self.digits)
        for power in range(-_REACH - size, _REACH + 1):
            scale = Fraction(10) ** power
            yield first * scale, (first + 1) * scale, False

    def _plain(self) -> Iterator[Interval]:
        first = int(self.digits or 0)
        if self.fixed:
            scale = Fraction(1, 10**self.scale)
            yield first * scale, (first + 1) * scale, False
        elif not self.digits:
            yield Fraction(0), None, False
        else:
            for power in range(_REACH):
                yield Fraction(first * 10**power), Fraction((first + 1) * 10**power), False

    def _powers(self) -> Iterator[int]:
        digits = (self.exponent or "").lstrip("0")
        signs = (1, -1) if not self.exponent and not self.sign else ((-1,) if self.sign == "-" else (1,))
        for magnitude in range(_REACH + self.scale + len(self.digits)):
            if str(magnitude).startswith(digits):
                for sign in signs:
                    yield sign * magnitude


class NumberAlt:
    """A conjunction of number keywords."""

    __slots__ = (
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
        "strict_integer",
        "subs",
        "trivial",
        "wants_value",
    )

    def __init__(self) -> None:
        self.lo: Fraction | None = None
        self.hi: Fraction | None = None
        self.above = False  # `lo` itself is excluded
        self.below = False
        self.bounds: list[tuple[str, Number, object]] = []
        self.integer = False
        self.strict_integer = False  # draft 4: 1.0 is no integer
        self.not_integer = False
        self.no_strict = False  # draft 4: must not be written as an integer
        self.multiples: list[tuple[Number, object]] = []
        self.no_multiples: list[tuple[Number, object]] = []
        self.candidates: list[Number] | None = None
        self.banned: list[Number] = []
        self.sources = Sources()
        self.subs: tuple[object, ...] = ()
        self.wants_value = False
        self.trivial = False

    def limit(self, op: str, limit: Number, source: object) -> None:
        """`op` is one of `>=`, `>`, `<=`, `<`."""
        self.bounds.append((op, limit, source))
        value = fraction(limit)
        if value is None:
            return
        if op[0] == ">":
            if self.lo is None or value > self.lo or (value == self.lo and op == ">"):
                self.lo, self.above = value, op == ">"
                self.sources["bounds"] = source
        elif self.hi is None or value < self.hi or (value == self.hi and op == "<"):
            self.hi, self.below = value, op == "<"
            self.sources["bounds"] = source

    def settle(self) -> bool:
        """Filter the candidates; whether any number is left, as far as one can tell."""
        if self.candidates is not None:
            self.candidates = [value for value in self.candidates if self.failing(value) is None]
            return bool(self.candidates)
        if self.integer and self.not_integer:
            return False
        self.trivial = not (
            self.bounds or self.integer or self.strict_integer or self.not_integer or self.no_strict or self.multiples
            or self.no_multiples or self.banned or self.subs
        )  # fmt: skip
        if self.lo is None and self.hi is None:
            return True
        return self._meets((Fraction(0), None, False), negative=False, margin=False) or self._meets(
            (Fraction(0), None, False), negative=True, margin=False
        )

    def dead(self, text: NumberText, taken: Container[object] | None = None) -> object:
        """What kills the beginning, or `None`. `taken`: values that may not come again."""
        margin = len(text.digits) >= _SURE_DIGITS
        if self.strict_integer and not text.pure:
            return self.sources["integer"]
        if self.candidates is not None:
            for value in self.candidates:
                if taken and value in taken:
                    continue
                if not math.isfinite(value):
                    return None
                if text.negative != (value < 0) and value:
                    continue
                if not value and not text.digits:
                    return None
                # A large float is equal to an integer that is not the one it is written as.
                if value and any(_holds(text, abs(exact), margin=margin) for exact in _exact(value)):
                    return None
            return self.sources["candidates"]
        if self.strict_integer:
            text = _pure(text)
        if text.negative and text.digits == "" and text.exponent is None and self._zero():
            return None
        if any(self._meets(interval, negative=text.negative, margin=margin) for interval in self._near(text)):
            return None
        for key in ("bounds", "multiples", "integer", "not_integer", "no_multiples", "banned"):
            if key in self.sources:
                return self.sources[key]
        return self  # cannot be: something constrains, or nothing died

    def _zero(self) -> bool:
        return self.failing(0) is None

    def _near(self, text: NumberText) -> Iterator[Interval]:
        """The intervals that matter, the likely ones first: without bounds on the magnitude one suffices."""
        if text.exponent is None and not text.plain and text.digits and self.hi is None and self.lo is None:
            first = int(text.digits)
            for power in (0, -1, 1, 3, -len(text.digits)):
                scale = Fraction(10) ** power
                yield first * scale, (first + 1) * scale, False
        elif text.exponent is None and not text.plain and text.digits:
            yield from self._relevant(text)
            return
        yield from text.intervals()

    def _relevant(self, text: NumberText) -> Iterator[Interval]:
        """The powers of ten at which a significand can meet the bounds, and one beyond each."""
        sizes = [_size(abs(bound)) for bound in (self.lo, self.hi) if bound is not None]
        size = len(text.digits)
        low, high = min(*sizes, 0) - 40, max(*sizes, 0) + 40
        first = int(text.digits)
        for power in range(high - size, low - size, -1):
            scale = Fraction(10) ** power
            yield first * scale, (first + 1) * scale, False

    def _meets(self, interval: Interval, *, negative: bool, margin: bool) -> bool:
        """Whether some magnitude of the interval, with that sign, satisfies everything but candidates."""
        start, end, closed = interval
        lo, hi, above, below = self.lo, self.hi, self.above, self.below
        if margin:
            if lo is not None:
                lo, above = lo - abs(lo) * _MARGIN, above and lo == 0
            if hi is not None:
                hi, below = hi + abs(hi) * _MARGIN, below and hi == 0
        if negative:
            lo, hi, above, below = (
                -hi if hi is not None else None,
                -lo if lo is not None else None,
                below,
                above,
            )
        if lo is not None and lo >= start:
            start, open_start = lo, above
        else:
            open_start = False
        if hi is not None and (end is None or hi < end or (hi == end and closed)):
            end, closed = hi, not below
        if end is not None and (start > end or (start == end and (open_start or not closed))):
            return False
        step = self._step()
        if step is None:
            if end is not None and start == end:
                return self._single(start, negative=negative)
            return True
        multiple = -(-start // step)
        if open_start and multiple * step == start:
            multiple += 1
        for _ in range(_TRIES):
            value = multiple * step
            if end is not None and (value > end or (value == end and not closed)):
                return False
            if not self.not_integer and self._single(value, negative=negative):
                return True
            if self.not_integer and value.denominator != 1 and self._single(value, negative=negative):
                return True
            multiple += 1
        return True

    def _single(self, value: Fraction, *, negative: bool) -> bool:
        if negative:
            value = -value
        if self.not_integer and value.denominator == 1:
            return False
        if any(fraction(number) == value for number in self.banned):
            return False
        if self.integer and value.denominator != 1:
            return False
        return not any(
            isinstance(number, int) and (number == 1 or abs(value) < 2**53) and value % number == 0
            for number, _ in self.no_multiples
        )

    def _step(self) -> Fraction | None:
        """What every value must be a multiple of. A divisor that is no integer is left to the end: it is divided in
        floats there."""
        step = 1 if self.integer or self.strict_integer else 0
        for number, _ in self.multiples:
            if isinstance(number, int) or number.is_integer():
                step = math.lcm(step, int(number)) if step else int(number)
        return Fraction(step) if step else None

    def failing(self, value: Number) -> object:
        """What a finished number violates, or `None`."""
        if self.candidates is not None and value not in self.candidates:
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
            if not multiple_of(value, number):
                return source
        for number, source in self.no_multiples:
            if multiple_of(value, number):
                return source
        return None


_COMPARE: Final[dict[str, Any]] = {
    ">=": lambda value, limit: value >= limit,
    ">": lambda value, limit: value > limit,
    "<=": lambda value, limit: value <= limit,
    "<": lambda value, limit: value < limit,
}


def multiple_of(value: Number, number: Number) -> bool:
    """As `jsonschema` divides: a float divisor by a quotient in floats."""
    if isinstance(number, float):
        try:
            quotient = value / number
            return int(quotient) == quotient
        except OverflowError:
            # Too large for a float; jsonschema then asks for an exact fraction.
            return (isinstance(value, int) or math.isfinite(value)) and Fraction(value) % Fraction(number) == 0
    return not value % number


def parse(text: str) -> Number:
    """A finished number as `json.loads` reads it."""
    value: Number = json.loads(text)
    return value


def _exact(value: Number) -> set[Fraction]:
    written = fraction(value)
    return {Fraction(value)} if written is None else {written, Fraction(value)}


def _pure(text: NumberText) -> NumberText:
    pure = NumberText("-" if text.negative else "", plain=True)
    pure.digits, pure.fixed = text.digits, text.fixed
    return pure


def _size(value: Fraction) -> int:
    """The power of ten of a magnitude, to within one or two."""
    if not value:
        return 0
    return (value.numerator.bit_length() - value.denominator.bit_length()) * 3 // 10


def _holds(text: NumberText, value: Fraction, *, margin: bool) -> bool:
    """Whether a magnitude is among those the text can become."""
    slack = value * _MARGIN if margin else Fraction(0)
    if text.exponent is None and not text.plain and text.digits:
        first = int(text.digits)
        power = _size(value) - len(text.digits)
        for p in range(power - 3, power + 4):
            scale = Fraction(10) ** p
            if first * scale <= value + slack and value - slack < (first + 1) * scale:
                return True
        return False
    for start, end, closed in text.intervals():
        if start <= value + slack and (end is None or value - slack < end or (closed and value - slack <= end)):
            return True
    return False
