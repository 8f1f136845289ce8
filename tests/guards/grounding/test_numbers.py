"""`guards.grounding.numbers`: every reading of every spelling, and none that the spelling does not have."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.guards.grounding.numbers import Numbers, exact, numbers


def read(text: str) -> set[str]:
    """The readings, as plain decimals."""
    return {f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}" for value in numbers(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.234,50", {"1234.5"}),
        ("1,234.50", {"1234.5"}),
        ("Total 1 234,50", {"1", "234.5", "1234.5"}),
        ("1\u202f234\u202f567", {"1", "234", "567", "1234", "234567", "1234567"}),
        ("1'234.50", {"1234.5"}),
        ("1’234’567", {"1234567"}),
        ("12,34,567.00", {"1234567"}),
        ("1.234", {"1.234", "1234"}),
        ("0,123", {"0.123"}),
        ("12.34.56", {"12", "34", "56"}),
        ("0.4.1", {"0", "4", "1"}),
        ("02.01.2026", {"2", "1", "2026"}),
        ("a (1,234.50) b", {"1234.5", "-1234.5"}),
        ("1234- ", {"1234", "-1234"}),
        ("10-5", {"10", "5"}),
        ("a -5", {"-5"}),
        ("a − 5", {"5", "-5"}),
        ("\n-5 pieces", {"5", "-5"}),
        ("a -EUR 5", {"5", "-5"}),
        ("19 %", {"19", "0.19"}),
        ("$1.2M", {"1.2", "1200000"}),
        ("2,5 Mio. EUR", {"2.5", "2500000"}),
        ("3k", {"3", "3000"}),
        ("3万円", {"3", "30000"}),
        ("1.5 亿", {"1.5", "150000000"}),
        ("CHF 5'000.-", {"5000"}),
        ("٣٬٤٥٠٫٥", {"3450.5"}),
        ("1,00,000", {"100000"}),
        ("USD (1 234,50)", {"1", "234.5", "1234.5", "-1", "-234.5", "-1234.5"}),
        ("3 kg", {"3"}),
        ("5e3", {"5", "3", "5000"}),
        ("x12, Nr.12", {"12"}),
        ("a .5", {"5", "0.5"}),
        ("2½", {"2", "2.5", "0.5"}),
        ("٣٤ １２", {"34", "12"}),
        ("1,5,2,5", {"1", "5", "2"}),
        ("a,3,500,150", {"3", "500", "150", "3500150"}),
        ("1,234,567", {"1", "234", "567", "1234567"}),
        ("of 1,234,567 in all", {"1234567"}),
        ("no number", set()),
    ],
)
def test_readings(text: str, expected: set[str]) -> None:
    """Each spelling has these values."""
    assert read(text) == expected


FORMATS = {
    "english": lambda value: f"{value:,.2f}",
    "german": lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")),
    "swiss": lambda value: f"{value:,.2f}".replace(",", "'"),
    "french": lambda value: f"{value:,.2f}".replace(",", "\u202f").replace(".", ","),
    "plain": lambda value: f"{value:.2f}",
}


@pytest.mark.parametrize("name", FORMATS)
def test_no_right_amount_is_refused_and_wrong_ones_are(name: str) -> None:
    """Invoices with lines and a total: right amounts stand, changed digits and scales do not."""
    rng, written = random.Random(name), FORMATS[name]
    right = refused = wrong = caught = 0
    for _ in range(40):
        amounts = [Decimal(rng.randrange(1_000, 1_000_000)).scaleb(-2) for _ in range(rng.randint(2, 8))]
        text = "".join(f"{turn} Item {rng.randint(1, 9)}  {written(one)} EUR\n" for turn, one in enumerate(amounts, 1))
        found = Numbers(f"Invoice {rng.randint(1000, 9999)}\n{text}Total: {written(sum(amounts))} EUR\n")
        for amount in (*amounts, sum(amounts)):
            right += 1
            refused += amount not in found
            digits = list(f"{amount:f}")
            place = rng.choice([index for index, char in enumerate(digits) if char.isdigit()])
            digits[place] = rng.choice([digit for digit in "123456789" if digit != digits[place]])
            for other in (Decimal("".join(digits)), amount * 10, amount * 100, amount / 1000):
                wrong += 1
                caught += other not in found
    assert (right > 150, refused) == (True, 0)
    assert caught >= wrong * 0.99


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=10**9),
    st.sampled_from(list(FORMATS)),
)
def test_what_is_written_is_read(value: Decimal, name: str) -> None:
    """Any amount in any of the formats, inside a sentence."""
    value = round(value, 2)
    assert value in Numbers(f"It costs {FORMATS[name](value)} in all.")


@pytest.mark.parametrize(
    ("value", "tolerance", "expected"),
    [
        ("10.00", "0", True),
        ("10.004", "0.005", True),
        ("10.006", "0.005", False),
        ("-10", "0.005", False),
        ("1e999999", "1", False),
        ("9.995", "0.005", True),
    ],
)
def test_tolerance(value: str, tolerance: str, expected: bool) -> None:
    """A number of the source counts within the tolerance, the ends included."""
    assert Numbers("10 20").near(Decimal(value), Decimal(tolerance)) is expected


def test_the_nearest_number() -> None:
    """For a message; a source without numbers has none."""
    assert Numbers("10 20").nearest(Decimal(16)) == 20
    assert Numbers("none").nearest(Decimal(16)) is None
    assert Numbers("10 20").nearest(Decimal("1e999999")) is None


def test_a_json_number_is_exact() -> None:
    """No float stands between."""
    assert exact("0.1") == Decimal("0.1")
    assert exact("12345678901234567890.5") == Decimal("12345678901234567890.5")
