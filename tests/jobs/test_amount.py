"""Amounts of rows: a number or a share, one parser for both."""

from __future__ import annotations

import pytest

from streamguard.jobs.amount import Amount, parse_amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("10", Amount(count=10)), (" 3 ", Amount(count=3)), ("1%", Amount(percent=1.0)), ("0.5%", Amount(percent=0.5))],
)
def test_amounts(text: str, amount: Amount) -> None:
    """A number is a count, a number with a percent sign is a share."""
    assert parse_amount(text) == amount


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "101%", "-1", "1.5", "nan%", "inf%", "ten", "\u0661"])
def test_no_amounts(text: str) -> None:
    """Everything else is a ValueError."""
    with pytest.raises(ValueError):
        parse_amount(text)


@pytest.mark.parametrize(
    ("amount", "rows", "wanted"), [(Amount(count=5), 3, 3), (Amount(percent=10), 100, 10), (Amount(percent=1), 10, 1)]
)
def test_how_many_rows_are_wanted(amount: Amount, rows: int, wanted: int) -> None:
    """Never more than there are, and at least one."""
    assert amount.of(rows) == wanted
