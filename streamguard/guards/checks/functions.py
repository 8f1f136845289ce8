"""The functions of the language, as a table: how many arguments of which kinds each takes, and what it gives.

In charge of what a call computes. A function sees values alone: no names, no document, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, DecimalException
from typing import Any, Final

import msgspec

from streamguard.guards.checks.types import BOOLEAN, DATE, NUMBER, STRING, Type
from streamguard.guards.checks.values import (
    EXACT,
    MAX_NUMBER_TEXT,
    WHOLE,
    Absent,
    Day,
    Unusable,
    add,
    date,
    kind,
    no_numbers,
    shown,
)

MAX_ROUNDING: Final = 100
"""Most digits that `round` is asked for, before or behind the point."""

NOTHING: Final = object()
"""What no accumulator ever is."""


class Function(msgspec.Struct, frozen=True):
    """A function of values."""

    takes: tuple[frozenset[str], ...]
    """The kinds of each argument."""
    gives: Type
    run: Callable[..., Any]
    optional: int = 0
    """How many of the last arguments may be left out."""
    reads_text: bool = False
    """Whether its time grows with the text that it is given."""


class Aggregate(msgspec.Struct, frozen=True):
    """A function of any number of values, one after the other."""

    takes: frozenset[str]
    gives: Type | None
    """`None`: what its values are."""
    start: Callable[[], Any]
    step: Callable[[Any, Any], Any]
    """The accumulator and the next value to the next accumulator."""
    stop: Any = NOTHING
    """The accumulator after which no further value is looked at."""
    result: Callable[[Any], Any] = lambda total: total
    several: bool = False
    """Whether it also takes its values as arguments."""


def _number(value: Any) -> Decimal:
    """Read a number that is written as a text: `"12.50"`."""
    if type(value) is Decimal:
        return value
    if type(value) is str and len(value) <= MAX_NUMBER_TEXT and value.isascii() and "_" not in value:
        try:
            found = Decimal(value.strip())
        except DecimalException:
            found = Decimal("NaN")
        if found.is_finite():
            return found
    raise Unusable(f"number() needs a number or its text, not {shown(value)}")


def _round(value: Decimal, digits: Decimal = Decimal(0)) -> Decimal:
    if digits.copy_abs() > MAX_ROUNDING or digits != digits.to_integral_value():
        raise Unusable(f"round() needs whole digits, at most {MAX_ROUNDING}, not {shown(digits)}")
    try:
        return WHOLE.quantize(value, Decimal((0, (1,), -int(digits))))
    except DecimalException:
        raise Unusable(f"round({shown(value)}, {shown(digits)}) has too many digits") from None


def _days(later: Day, earlier: Day) -> Decimal:
    return Decimal(later.number - earlier.number)


def _length(value: Any) -> Decimal:
    return Decimal(len(value))


_NUMBER: Final = frozenset(("number",))
_STRING: Final = frozenset(("string",))
_DATE: Final = frozenset(("date",))
_SCALARS: Final = frozenset(("number", "string", "boolean", "date"))
_ORDERED: Final = frozenset(("number", "string", "date"))

FUNCTIONS: Final[Mapping[str, Function]] = {
    "abs": Function((_NUMBER,), NUMBER, EXACT.abs),
    "round": Function((_NUMBER, _NUMBER), NUMBER, _round, optional=1),
    "number": Function((_NUMBER | _STRING,), NUMBER, _number),
    "date": Function((_STRING,), DATE, date),
    "days": Function((_DATE, _DATE), NUMBER, _days),
    "len": Function((frozenset(("array", "object", "string")),), NUMBER, _length),
    "lower": Function((_STRING,), STRING, str.lower, reads_text=True),
    "upper": Function((_STRING,), STRING, str.upper, reads_text=True),
    "strip": Function((_STRING,), STRING, str.strip, reads_text=True),
    "startswith": Function((_STRING, _STRING), BOOLEAN, str.startswith, reads_text=True),
    "endswith": Function((_STRING, _STRING), BOOLEAN, str.endswith, reads_text=True),
}

_NO_VALUE: Final = object()


def _least(so_far: Any, value: Any) -> Any:
    return value if so_far is _NO_VALUE or _ordered("min", value, so_far) else so_far


def _most(so_far: Any, value: Any) -> Any:
    return value if so_far is _NO_VALUE or _ordered("max", so_far, value) else so_far


def _ordered(name: str, left: Any, right: Any) -> bool:
    if type(left) is not type(right) or kind(left) not in _ORDERED:
        raise Unusable(f"{name} cannot compare {shown(left)} and {shown(right)}")
    less: bool = left < right
    return less


def _one(value: Any) -> Any:
    if value is _NO_VALUE:
        raise Absent
    return value


def _distinct(seen: Any, value: Any) -> Any:
    if kind(value) not in _SCALARS:
        raise Unusable(f"distinct compares numbers, texts and dates, not {shown(value)}")
    key = (type(value), value)
    if key in seen:
        return None
    seen.add(key)
    return seen


def _true(name: str) -> Callable[[Any, Any], Any]:
    def step(so_far: Any, value: Any) -> Any:  # noqa: ARG001  # the accumulator is the last value
        if type(value) is not bool:
            raise Unusable(f"{name} needs conditions, not {shown(value)}")
        return value

    return step


def _sum(total: Any, value: Any) -> Any:
    if type(value) is not Decimal:
        raise no_numbers("sum", value)
    try:
        return EXACT.add(total, value)
    except DecimalException:
        return add(total, value)  # says why it cannot be


def _more(count: Any, _: Any) -> Any:
    return EXACT.add(count, 1)


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


AGGREGATES: Final[Mapping[str, Aggregate]] = {
    "sum": Aggregate(_NUMBER, NUMBER, lambda: Decimal(0), _sum),
    "count": Aggregate(
        _SCALARS | {"array", "object"}, NUMBER, lambda: Decimal(0), lambda total, _: EXACT.add(total, 1)
    ),
    "min": Aggregate(_ORDERED, None, _always(_NO_VALUE), _least, result=_one, several=True),
    "max": Aggregate(_ORDERED, None, _always(_NO_VALUE), _most, result=_one, several=True),
    "all": Aggregate(frozenset(("boolean",)), BOOLEAN, _always(True), _true("all"), stop=False),
    "any": Aggregate(frozenset(("boolean",)), BOOLEAN, _always(False), _true("any"), stop=True),
    "distinct": Aggregate(_SCALARS, BOOLEAN, set, _distinct, stop=None, result=lambda seen: seen is not None),
}
"""`min` and `max` of nothing are absent, as a value that is not there is."""

HAS: Final = "has"
"""Asks whether a value is there and not null."""

VALUES: Final = "values"
"""Gives the values of an object's members as an array."""

NAMES: Final = (*FUNCTIONS, *AGGREGATES, HAS, VALUES)
