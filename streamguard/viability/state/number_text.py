"""An unfinished number: what its text says, and which magnitudes it can still become.

A beginning stands for the exact decimals that continue it. Since an exponent may follow (`numbers: exact`), the digits
fix the significand alone: `15` may become 1.5 or 15000. With `numbers: plain` no exponent is expected before one is
seen. Magnitudes are told as intervals, and only those that a window of powers of ten asks for. Does not know schemas.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Context, Decimal
from typing import Final

Number = int | float
Interval = tuple[Decimal, Decimal | None, bool]
"""From, to (`None`: without end), whether the end belongs to it. The beginning always does."""

EXACT: Final = Context(prec=2_500, Emax=10**6, Emin=-(10**6))
"""Enough digits for what is calculated here: numbers of `MAX_DIGITS_HELD` characters, and powers within a float."""
MAX_DIGITS_HELD: Final = 600
"""Characters of a number beyond which it is judged at its end only, so that its cost stays linear."""
SURE_DIGITS: Final = 15
"""Significant digits from which on a float may not be told from its neighbour."""

_PARTS = re.compile(r"(-?)([0-9]*)(\.?)([0-9]*)(?:([eE])([+-]?)([0-9]*))?").fullmatch
_ZERO: Final = Decimal(0)
_SMALL: Final = 2_048
"""Bits of an integer within which decimals are divided: a quotient must have fewer digits than `EXACT`."""
_OVERFLOW: Final = Decimal("1e309")


def decimal(value: Number) -> Decimal | None:
    """The exact decimal that a number is written as; `None` if infinite."""
    if isinstance(value, int):
        return Decimal(value)
    return Decimal(repr(value)) if math.isfinite(value) else None


def is_multiple(value: Number, divisor: Number) -> bool:
    """Whether a number divides another without rest, both taken as the decimals they are written as.

    jsonschema divides floats, to which 19.99 is no multiple of 0.01. An infinite number is a multiple of nothing.
    """
    if isinstance(value, int) and isinstance(divisor, int):
        return not value % divisor
    number, by = decimal(value), decimal(divisor)
    if number is None or by is None:
        return False
    if isinstance(value, int) and value.bit_length() > _SMALL:  # more digits than are calculated with
        numerator, denominator = by.as_integer_ratio()
        return not value * denominator % numerator
    return not EXACT.remainder(number, by)


def parse(text: str) -> Number:
    """A finished number as `json.loads` reads it."""
    value: Number = json.loads(text)
    return value


class NumberText:
    """What is known of a number from its text so far."""

    __slots__ = ("digits", "exponent", "fixed", "negative", "plain", "pure", "scale", "sign", "size")

    def __init__(self, text: str, *, plain: bool) -> None:
        found = _PARTS(text)
        assert found is not None  # the scanner passes beginnings of numbers only
        minus, whole, dot, part, e, self.sign, exponent = found.groups()
        self.negative = minus == "-"
        self.digits = (whole + part).lstrip("0")
        self.size = len(self.digits)
        self.scale = len(part)
        self.exponent: str | None = exponent if e else None
        self.plain = plain
        self.pure = not dot and not e
        """Whether it may yet be written as an integer."""
        self.fixed = bool(dot) or whole == "0"
        """Whether the digits before the point are all there."""

    def as_integer(self) -> NumberText:
        """The same, if it is to be written as an integer."""
        pure = NumberText("-" if self.negative else "", plain=True)
        pure.digits, pure.size, pure.fixed = self.digits, self.size, self.fixed
        return pure

    def as_written(self) -> Interval:
        """The magnitudes it can become by no more than further digits behind the point."""
        digits = int(self.digits)
        return Decimal(digits).scaleb(-self.scale, EXACT), Decimal(digits + 1).scaleb(-self.scale, EXACT), False

    def intervals(self, low: int, high: int) -> Iterator[Interval]:
        """The magnitudes it can still become, the largest first, as far as their first digit stands at powers of ten
        from `low` to `high`; larger and smaller ones than that need not be told."""
        if self.exponent is not None:
            yield from self._scaled(low, high)
        elif not self.digits:
            yield _ZERO, Decimal(1).scaleb(-self.scale, EXACT) if self.plain and self.fixed else None, False
        elif self.plain and self.fixed:
            yield self.as_written()
        else:
            digits = int(self.digits)
            first, after = Decimal(digits), Decimal(digits + 1)
            least = low - self.size + 1
            for power in range(high - self.size + 1, (max(least, 0) if self.plain else least) - 1, -1):
                yield first.scaleb(power, EXACT), after.scaleb(power, EXACT), False

    def _scaled(self, low: int, high: int) -> Iterator[Interval]:
        """With an exponent that has begun, or is there."""
        if not self.digits:
            yield _ZERO, _ZERO, True
            return
        value = Decimal(int(self.digits))
        for exponent in self._exponents(low - self.size + 1 + self.scale, high - self.size + 1 + self.scale):
            scaled = value.scaleb(exponent - self.scale, EXACT)
            yield scaled, scaled, True
        if self.sign != "-":  # overflow: read as infinite
            yield _OVERFLOW, None, False
        if self.sign == "-" or not self.exponent:  # underflow: read as 0
            yield _ZERO, _ZERO, True

    def _exponents(self, low: int, high: int) -> Iterator[int]:
        """The exponents that it can still have."""
        assert self.exponent is not None  # one has begun
        signs = (-1,) if self.sign == "-" else (1,) if self.sign or self.exponent else (1, -1)
        digits = self.exponent.lstrip("0")
        most = max(abs(low), abs(high))
        for first, count in [(int(digits) * 10**k, 10**k) for k in range(4)] if digits else [(0, most + 1)]:
            for magnitude in range(first, min(first + count, most + 1)):
                for sign in signs:
                    if low <= sign * magnitude <= high:
                        yield sign * magnitude
