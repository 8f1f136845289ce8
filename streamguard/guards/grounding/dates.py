"""The dates of a text: every reading of every spelling.

In charge of how dates are written: `2026-01-02`, `02.01.2026`, `1/2/26` (both ways), `20260102`, `2 January 2026`,
`Jan 2nd, 2026`, `2. Januar 2026`, `2026年1月2日`; and of months alone: `2026-01`, `01/2026`, `January 2026`. A date is
`(year, month, day)`, the day 0 where there is none. Nothing is worked out: no weekday, no "yesterday", no missing year.
"""

from __future__ import annotations

import re
from typing import Final
from unicodedata import normalize

from streamguard.guards.grounding.numbers import ascii_digits

Date = tuple[int, int, int]
"""Year, month and day; the day is 0 for a month alone."""

_NAMES: Final = (
    "january jan januar jänner jän janvier janv enero ene gennaio gen januari janeiro",
    "february feb februar februari février fevrier févr fevr febrero febbraio fevereiro fev",
    "march mar märz mrz mars marzo maart mrt março marco",
    "april apr avril avr abril abr aprile",
    "may mai mayo maggio mag mei maio",
    "june jun juni juin junio giugno giu junho",
    "july jul juli juillet juil julio luglio lug julho",
    "august aug août aout agosto ago augustus",
    "september sep sept septembre septiembre settembre set setembro",
    "october oct oktober okt octobre octubre ottobre ott outubro out",
    "november nov novembre noviembre novembro",
    "december dec dezember dez décembre decembre diciembre dic dicembre dezembro",
)
_MONTH_OF: Final = {normalize("NFKC", name): month for month, names in enumerate(_NAMES, 1) for name in names.split()}
_MONTH: Final = "|".join(sorted(_MONTH_OF, key=len, reverse=True))
_DAY: Final = r"([0-9]{1,2})(?:st|nd|rd|th|er|º|°|\.)?"
_YEAR: Final = "([0-9]{4}|['\u2019]?[0-9]{2})(?![0-9])"

_BIG_END: Final = re.compile(
    r"(?<![0-9])([0-9]{4})\s?([-/.年])\s?([0-9]{1,2})(?:\s?[-/.月]\s?([0-9]{1,2}))?(?![0-9])"
).findall
_COMPACT: Final = re.compile(r"(?<![0-9])((?:1[5-9]|2[01])[0-9]{2})([01][0-9])([0-3][0-9])(?![0-9])").findall
_SMALL_END: Final = re.compile(r"(?<![0-9])([0-9]{1,2})([-/.])\s?([0-9]{1,2})\2\s?([0-9]{4}|[0-9]{2})(?![0-9])").findall
_MONTH_YEAR: Final = re.compile(r"(?<![0-9./-])([0-9]{1,2})[-/.]([0-9]{4})(?![0-9])").findall
_DAY_FIRST: Final = re.compile(
    rf"(?<![0-9]){_DAY}[\s-]*(?:of |de )?({_MONTH})\b\.?[\s,-]*(?:of |de |del )?{_YEAR}"
).findall
_MONTH_FIRST: Final = re.compile(rf"\b({_MONTH})\b\.?[\s-]*{_DAY}[\s,]+{_YEAR}").findall
_NAMED_MONTH: Final = re.compile(rf"\b({_MONTH})\b\.?[\s,-]*(?:of |de |del )?([0-9]{{4}})(?![0-9])").findall
_YEAR_FIRST: Final = re.compile(rf"(?<![0-9])([0-9]{{4}})[\s-]+({_MONTH})\b\.?[\s-]*{_DAY}?").findall


def dates(text: str) -> set[Date]:
    """Return every reading of every date of a text."""
    text = ascii_digits(text)
    if not text.isascii():
        text = normalize("NFKC", text)
    text = text.lower()
    found: set[Date] = set()
    for year, mark, month, day in set(_BIG_END(text)):
        found.add((int(year), int(month), int(day or 0)))
        if day and mark == "/":
            found.add((int(year), int(day), int(month)))
    for year, month, day in set(_COMPACT(text)):
        found.add((int(year), int(month), int(day)))
    for first, _, second, year in set(_SMALL_END(text)):
        for whole in _years(year):
            found |= {(whole, int(second), int(first)), (whole, int(first), int(second))}
        if len(year) == 2:  # the year may come first
            found |= {(whole, int(second), int(year)) for whole in _years(first)}
    for month, year in set(_MONTH_YEAR(text)):
        found.add((int(year), int(month), 0))
    for day, month, year in set(_DAY_FIRST(text)):
        found |= {(whole, _MONTH_OF[month], int(day)) for whole in _years(year)}
    for month, day, year in set(_MONTH_FIRST(text)):
        found |= {(whole, _MONTH_OF[month], int(day)) for whole in _years(year)}
    for month, year in set(_NAMED_MONTH(text)):
        found.add((int(year), _MONTH_OF[month], 0))
    for year, month, day in set(_YEAR_FIRST(text)):
        found.add((int(year), _MONTH_OF[month], int(day or 0)))
    return {date for date in found if _is_date(*date)}


def _years(year: str) -> tuple[int, ...]:
    """The years that two or four digits may be."""
    digits = year.lstrip("'\u2019")
    number = int(digits)
    return (number,) if len(digits) == 4 else (1900 + number, 2000 + number) if len(digits) == 2 else ()


def _is_date(year: int, month: int, day: int) -> bool:
    if not 1 <= month <= 12 or not year:
        return False
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 30 if month in (4, 6, 9, 11) else 31 if month != 2 else 29 if leap else 28
    return 0 <= day <= days
