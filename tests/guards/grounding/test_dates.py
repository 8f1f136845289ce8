"""`guards.grounding.dates`: every reading of every spelling of a date."""

from __future__ import annotations

import pytest

from streamguard.guards.grounding.dates import Date, dates

DAY = (2026, 1, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02", {DAY}),
        ("2026-01-02T10:00:00Z", {DAY}),
        ("20260102", {DAY}),
        ("02.01.2026", {DAY, (2026, 2, 1)}),
        ("13/01/2026", {(2026, 1, 13)}),
        ("1/2/26", {DAY, (2026, 2, 1), (1926, 1, 2), (1926, 2, 1)}),
        ("2 January 2026", {DAY, (2026, 1, 0)}),
        ("Jan 2nd, 2026", {DAY}),
        ("2. Januar 2026", {DAY, (2026, 1, 0)}),
        ("2-Jan-2026", {DAY, (2026, 1, 0)}),
        ("1er août 2026", {(2026, 8, 1), (2026, 8, 0)}),
        ("5 de mayo de 2026", {(2026, 5, 5), (2026, 5, 0)}),
        ("2026年1月2日", {DAY}),
        ("2026-01", {(2026, 1, 0)}),
        ("01/2026", {(2026, 1, 0)}),
        ("31.02.2026", set()),
        ("29.02.2024", {(2024, 2, 29)}),
        ("29.02.2026", set()),
        ("1.2.3.4 and 12", set()),
        ("may be 2 or 3", set()),
    ],
)
def test_readings(text: str, expected: set[Date]) -> None:
    """Each spelling is these days, or months."""
    assert dates(text) == expected
