"""What a check computes with: exact decimals, texts, dates; and what can be said of a value that it cannot use.

In charge of arithmetic without rounding. A sum, difference or product that has more than `DIGITS` digits is refused,
not rounded; only a quotient is rounded, to `QUOTIENT_DIGITS`. Nothing here takes longer for a large exponent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from typing import Any, Final

import msgspec

DIGITS: Final = 1_000
QUOTIENT_DIGITS: Final = 50
MAX_NUMBER_TEXT: Final = 400
"""Longest text that `number(…)` reads, in characters."""

_TRAPS: Final = [InvalidOperation, DivisionByZero, Overflow]
EXACT: Final = Context(prec=DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[*_TRAPS, Inexact])
ROUNDED: Final = Context(
    prec=QUOTIENT_DIGITS, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=list(_TRAPS)
)

WHOLE: Final = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=list(_TRAPS))
"""For `round`, as Python's: to the nearest, a half to the even neighbour."""


class Absent(Exception):
    """A value that the check reads is not there, or is null: the check is not evaluated."""


class Unusable(Exception):
    """The check cannot be evaluated. The message says why, for a person."""


class Day(msgspec.Struct, frozen=True, order=True):
    """A calendar day, by its number; day 1 is 0001-01-01 of the proleptic Gregorian calendar."""

    number: int

    def __str__(self) -> str:
        return _written(self.number)


_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ][0-9:.,+\-Zz ]{0,40})?")
_BEFORE = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
"""Days before each month in a common year."""


def date(value: Any) -> Day:
    """Read an ISO 8601 date; the time behind one does not count.

    :raises Unusable: the value is no such text.
    """
    found = _DATE.fullmatch(value) if type(value) is str else None
    if found is not None:
        year, month, day = int(found[1]), int(found[2]), int(found[3])
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if year and 1 <= month <= 12 and 1 <= day <= _length(month, leap):
            before = year - 1
            days = before * 365 + before // 4 - before // 100 + before // 400
            return Day(days + _BEFORE[month] + (leap and month > 2) + day)
    raise Unusable(f"date() needs a date such as 2026-01-31, not {shown(value)}")


def _length(month: int, leap: bool) -> int:
    return 31 if month == 12 else _BEFORE[month + 1] - _BEFORE[month] + (leap and month == 2)


def _written(number: int) -> str:
    left = number - 1
    year = left // 366 + 1
    while _new_year(year + 1) <= number:
        year += 1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    left = number - _new_year(year)
    month = 1
    while left >= _length(month, leap):
        left -= _length(month, leap)
        month += 1
    return f"{year:04}-{month:02}-{left + 1:02}"


def _new_year(year: int) -> int:
    before = year - 1
    return before * 365 + before // 4 - before // 100 + before // 400 + 1


def _exactly(sign: str, compute: Callable[[Decimal, Decimal], Decimal]) -> Callable[[Any, Any], Decimal]:
    """Make an operation on numbers that says why it cannot be computed."""

    def apply(left: Any, right: Any) -> Decimal:
        if type(left) is not Decimal or type(right) is not Decimal:
            raise no_numbers(sign, left, right)
        try:
            return compute(left, right)
        except DecimalException:
            raise _beyond(sign, left, right) from None

    return apply


add: Final = _exactly("+", EXACT.add)
subtract: Final = _exactly("-", EXACT.subtract)
multiply: Final = _exactly("*", EXACT.multiply)
divide: Final = _exactly("/", ROUNDED.divide)
"""Rounded to `QUOTIENT_DIGITS`."""


def floor_divide(left: Any, right: Any) -> Decimal:
    """Return the quotient of two numbers, rounded down to a whole one."""
    return _divmod("//", left, right)[0]


def modulo(left: Any, right: Any) -> Decimal:
    """Return what is left of a division, with the sign of the divisor."""
    return _divmod("%", left, right)[1]


def _divmod(sign: str, left: Any, right: Any) -> tuple[Decimal, Decimal]:
    if type(left) is not Decimal or type(right) is not Decimal:
        raise no_numbers(sign, left, right)
    try:
        whole, rest = EXACT.divmod(left, right)
        if rest and rest.is_signed() != right.is_signed():  # Python rounds down, decimals towards zero
            whole, rest = EXACT.subtract(whole, 1), EXACT.add(rest, right)
    except DecimalException:
        raise _beyond(sign, left, right) from None
    return whole, rest


def _beyond(sign: str, left: Decimal, right: Decimal) -> Unusable:
    zero = sign in ("/", "//", "%") and not right
    why = "there is no division by zero" if zero else f"it has more than {DIGITS:,} digits"
    return Unusable(f"{shown(left)} {sign} {shown(right)} cannot be computed: {why}")


def no_numbers(sign: str, *values: Any) -> Unusable:
    """Return what to raise where one of the values is no number."""
    wrong = next(value for value in values if type(value) is not Decimal)
    return Unusable(f"{sign} needs numbers, not {shown(wrong)}")


def kind(value: Any) -> str:
    """The kind of a value, in JSON's words."""
    return _KINDS.get(type(value), "null")


_KINDS: Final[dict[type, str]] = {
    Decimal: "number",
    str: "string",
    bool: "boolean",
    list: "array",
    tuple: "array",
    dict: "object",
    Day: "date",
}


def shown(value: Any) -> str:
    """Write a value for a person: short, and printable."""
    if type(value) is Decimal:
        return plain(value)
    if type(value) is str:
        return f'"{_printable(value)}"'
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (list, tuple):
        return f"an array of {len(value)}"
    if type(value) is dict:
        return f"an object of {len(value)}"
    return str(value) if type(value) is Day else "null"


def said(value: Any) -> str:
    """Write a value inside a sentence: a text without quotes, anything else as `shown`."""
    return _printable(value) if type(value) is str else shown(value)


def plain(number: Decimal) -> str:
    """Write a number without an exponent, where that is short."""
    if not -20 <= number.adjusted() <= 40:
        return f"{number:.12E}"
    text = f"{number:f}"
    return text if len(text) <= 60 else text[:59] + "…"


def _printable(text: str) -> str:
    short = text if len(text) <= 80 else text[:79] + "…"
    return short if short.isprintable() else short.encode("unicode_escape").decode("ascii")
