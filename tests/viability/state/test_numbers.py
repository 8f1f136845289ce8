"""`viability.numbers`: what an unfinished number can still become."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.viability import compile_schema
from streamguard.viability.state.number_text import is_multiple
from tests.viability.feeding import each, feed


def dies(schema: Any, text: str, **options: Any) -> int | str | None:
    """Where an item of an array dies; characters count from the number's first."""
    dead = feed(compile_schema({"items": schema}, **options).prefix(), f"[{text}]", each)
    return None if dead is None or dead.char == "eof" else int(dead.char) - 1


@pytest.mark.parametrize(
    ("schema", "text", "exact", "plain"),
    [
        ({"type": "integer"}, "1.5", 3, 2),
        ({"type": "integer"}, "1.50e1", None, 2),
        ({"type": "integer"}, "1.0", None, None),
        ({"minimum": 0}, "-1", 1, 1),
        ({"exclusiveMinimum": 0}, "-", 0, 0),
        ({"maximum": 100}, "101", 3, 2),
        ({"maximum": 100}, "1010e-1", 7, 2),
        ({"maximum": 0.5}, "0.6", 3, 2),
        ({"minimum": 1000}, "5", 1, 1),
        ({"minimum": 5, "maximum": 7}, "4", 0, 0),
        ({"minimum": 50, "maximum": 70}, "8", 0, 0),
        ({"type": "integer", "minimum": 18, "maximum": 65}, "7", 0, 0),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "0", 1, 0),
        ({"const": 1}, "12", 1, 1),
        ({"const": 100}, "1e2", None, None),
        ({"const": 100}, "1e3", 2, 2),
        ({"const": 0}, "0.00", None, None),
        ({"const": 0}, "-0", None, None),
        ({"const": -1.5}, "1", 0, 0),
        ({"enum": [1, 25]}, "20", 1, 1),
        ({"multipleOf": 5, "type": "integer"}, "7", 1, 1),
        ({"not": {"minimum": 0}}, "5", 0, 0),
        ({"not": {"type": "integer"}}, "12", 2, 2),
        ({"not": {"const": 12}}, "12", 2, 2),
        ({"minimum": -1, "maximum": 1}, "1e-5000", None, None),
        ({"const": 1e23}, "99999999999999991611392", None, None),
    ],
)  # fmt: skip
def test_beginnings(schema: Any, text: str, exact: int | None, plain: int | None) -> None:
    """Exactly when no exponent, digit or fraction can help any more; with `plain`, as if none could follow."""
    assert dies(schema, text) == exact
    assert dies(schema, text, numbers="plain") == plain


def test_an_exponent_that_has_begun() -> None:
    """After the `e` the significand is fixed, and the exponent's digits narrow it further."""
    assert [dies({"multipleOf": 10}, text) for text in ("1.5e", "1.5e1", "1.5e2")] == [4, 5, None]
    assert [dies({"maximum": 100}, text) for text in ("101e5", "101e-5", "101e-1", "101e")] == [4, None, None, 4]
    assert [dies({"type": "integer"}, text) for text in ("15e-1", "150e-1", "15e-")] == [5, None, 4]


NUMBERS = st.sampled_from(("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const"))
VALUES = st.integers(-200, 200) | st.decimals(-20, 20, places=2, allow_nan=False).map(float)


@given(
    st.lists(NUMBERS, min_size=1, max_size=3, unique=True), st.lists(VALUES, min_size=4, max_size=4), st.integers(0, 4)
)
@settings(max_examples=300)
def test_no_valid_number_is_aborted(keywords: list[str], values: list[Any], form: int) -> None:
    """However a valid number is written, it lives; an invalid one does not outlive its end."""
    schema: dict[str, Any] = {}
    for keyword, value in zip(keywords, values, strict=False):
        schema[keyword] = "integer" if keyword == "type" else (abs(value) or 1) if keyword == "multipleOf" else value
    value = Fraction(str(values[3]))
    text = (
        json.dumps(values[3]),
        f"{values[3]}e0",
        f"{value.numerator * 10**6 // value.denominator}e-6",
        f"{values[3]}" + ("00" if isinstance(values[3], float) else ".00"),
        f"{values[3]}E+00",
    )[form]
    made = compile_schema(schema)
    assert (feed(made.prefix(), text, each) is None) == (made.validate(json.loads(text)) is None)


def test_division_is_of_decimals() -> None:
    """Numbers are divided as the decimals they are written as, of any size; the infinite by nothing."""
    pairs = [(4.5, 1.5), (0.3, 0.1), (10**400, 0.5), (10**4000 + 1, 0.5), (float("inf"), 0.5), (7, 2), (8.0, 2)]
    pairs += [(1e308, 0.123456789), (1e308, 1e-308), (19.99, 0.01), (600.03, 0.01), (0.07, 0.01), (4.351, 0.01)]
    found = [is_multiple(value, number) for value, number in pairs]
    assert found == [True, True, True, True, False, False, True, False, True, True, True, True, False]


@given(
    divisor=st.decimals("0.0001", "50", places=4, allow_nan=False),
    times=st.integers(-(10**6), 10**6),
    off=st.sampled_from(["0", "0.0001", "0.5", "1e-5"]),
    also=st.sampled_from([None, "0.01", "0.25", "3"]),
    numbers=st.sampled_from(["exact", "plain"]),
)
def test_multiples_of_decimals(divisor: Decimal, times: int, off: str, also: str | None, numbers: Any) -> None:
    """Cents and the like: prefix and judge say what exact fractions say, with several divisors at once too."""
    value = divisor.normalize() * times + Decimal(off)
    divisors = [divisor, *([Decimal(also)] if also else [])]
    schema = {"allOf": [{"multipleOf": float(one)} for one in divisors]}
    text = f"{value:f}"
    wanted = all(Fraction(value) % Fraction(one) == 0 for one in divisors)
    made = compile_schema(schema, numbers=numbers)
    assert (made.validate(json.loads(text)) is None) is wanted
    assert (feed(made.prefix(), text, each) is None) is wanted


@pytest.mark.parametrize(
    ("schema", "text", "exact", "plain"),
    [
        ({"multipleOf": 0.01}, "19.99", None, None),
        ({"multipleOf": 0.01}, "19.991", 6, 5),
        ({"multipleOf": 0.01}, "1.999e1", None, 4),
        ({"multipleOf": 0.01}, "1.999e0", 7, 4),
        ({"multipleOf": 0.01, "maximum": 0.5, "minimum": 0.495}, "0.49", 2, 2),
        ({"multipleOf": 0.05}, "0.10000000000000000001", None, None),
        ({"multipleOf": 0.01, "type": "integer"}, "0.5", 3, 2),
    ],
)
def test_where_a_number_of_cents_dies(schema: Any, text: str, exact: int | None, plain: int | None) -> None:
    """At the digit after which no multiple is left."""
    assert (dies(schema, text), dies(schema, text, numbers="plain")) == (exact, plain)
