"""The kinds of values that guards' knobs have, checked so that the message names the knob and says what would be right.

In charge of validation alone; it knows no guard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo


def _number(value: Any, info: ValidationInfo, what: str, least: str) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < 0 or (value == 0 and least != "zero or more"):
        raise ValueError(f"{info.field_name} must be {what}: a finite number, {least}, not {value!r}")
    return float(value)


def _seconds(value: Any, info: ValidationInfo) -> float | None:
    return None if value is None else _number(value, info, "seconds, or null for no limit", "more than zero")


def _seconds_or_zero(value: Any, info: ValidationInfo) -> float:
    return _number(value, info, "seconds", "zero or more")


def _positive(value: Any, info: ValidationInfo) -> float:
    return _number(value, info, "positive", "more than zero")


def _count(value: Any, info: ValidationInfo) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{info.field_name} must be a whole number, 1 or more, not {value!r}")
    return value


def _count_or_none(value: Any, info: ValidationInfo) -> int | None:
    return None if value is None else _count(value, info)


# The bounds stand twice: the functions say them in words and come first, the fields put them into the format's schema.

Seconds = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_seconds)]
"""A limit in seconds, more than zero; `None` for none."""

SecondsOrZero = Annotated[float, Field(ge=0), BeforeValidator(_seconds_or_zero)]
"""Seconds, zero included."""

Positive = Annotated[float, Field(gt=0), BeforeValidator(_positive)]
"""A finite number above zero."""

Count = Annotated[int, Field(ge=1), BeforeValidator(_count)]
"""A whole number from 1."""

Ceiling = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_count_or_none)]
"""A whole number from 1; `None` for no limit."""

if TYPE_CHECKING:
    Items = Sequence
else:

    class Items:
        """`Items[X]`: any sequence of X can be given, and is kept as a tuple."""

        def __class_getitem__(cls, item: Any) -> Any:
            return Annotated[tuple[item, ...], Field(strict=False)]
