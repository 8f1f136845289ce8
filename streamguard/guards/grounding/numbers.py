"""The numbers of a text, by value: every reading of every spelling.

In charge of how numbers are written: `1.234,50`, `1,234.50`, `1 234,50`, `1'234.50`, `12,34,567.00`, `(1,234.50)`,
`1234-`, `19 %`, `$1.2M`, `.5`, `2½`, the digits of every script. Where a spelling has several readings, all of them
count: `1.234` is a thousand and something, and one and something. Values are exact decimals.

A separator groups digits only where it groups all of them, by three (or by two, with three at the end); otherwise a
number a hundred times too large would be found. A minus sign before a number is a part of it, unless it may be a dash.
Number words are not read.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal, InvalidOperation, localcontext
from functools import lru_cache
from typing import Final
from unicodedata import decimal, numeric

_SPACES: Final = " \u00a0\u2007\u2009\u202f"
_GROUPING: Final = ".,'\u2019_\u02bc\u066c"
_POINTS: Final = ".,\u066b"
_MINUS: Final = "-\u2212\u2010\u2011\u2013\ufe63\uff0d"
_VULGAR: Final = "\u00bc\u00bd\u00be\u2150-\u215e"
_CURRENCY: Final = "$\u20ac\u00a3\u00a5\u20b9"

_DIGITS: Final = rf"[0-9]++(?:[{_GROUPING}\u066b][0-9]++)*+(?: [0-9]{{3}}(?![0-9])(?:[.,\u066b][0-9]++)?+){{0,30}}+"
"""A number's digits, with whatever separates them. Blanks stand before groups of three only."""
_SPELLED: Final = re.compile(rf"(?<![0-9{_MINUS}]){_DIGITS}").findall
_USUAL: Final = re.compile(
    r"([0-9]+(?:\.(?:[0-9]{1,2}|[0-9]{4,}))?)|([1-9][0-9]{0,2}(?:,[0-9]{3})+\.[0-9]+)"
    r"|((?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]+),(?:[0-9]{1,2}|[0-9]{4,}))"
).fullmatch
"""Spellings with one reading, which most have: they are read together."""
_MONEY: Final = rf"(?:(?:[A-Z]{{3}}|[A-Z]{{0,2}}[{_CURRENCY}]) ?)?"
_AFTER_SIGN: Final = re.compile(rf"(?<=(.))([{_MINUS}(])( ?){_MONEY}({_DIGITS})", re.DOTALL).findall
_FRACTION: Final = re.compile(f"[{_VULGAR}]")
_OTHER_DIGIT: Final = re.compile(r"(?![0-9])\d")
_TENS: Final = {
    **dict.fromkeys(("k", "tsd", "thousand", "tausend", "mille", "mil"), 3),
    **dict.fromkeys(("lakh", "lac", "lakhs"), 5),
    **dict.fromkeys(("m", "mn", "mm", "mio", "million", "millions", "millionen", "millones", "milioni"), 6),
    **dict.fromkeys(("crore", "crores", "cr"), 7),
    **dict.fromkeys(("b", "bn", "mrd", "billion", "billions", "milliard", "milliards", "milliarden", "miliardi"), 9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions"), 12),
    "\u5343": 3,
    "\u4e07": 4,
    "\u842c": 4,
    "\u5104": 8,
    "\u4ebf": 8,
    "\u5146": 12,
    "%": -2,
    "\u2030": -3,
}
"""A word or sign behind a number, and the power of ten that it may stand for."""
_WORDS: Final = "|".join(sorted((word for word in _TENS if word.isalpha()), key=len, reverse=True))
_BEFORE_WORD: Final = re.compile(
    rf"(?<![0-9])([{_MINUS}]?)({_DIGITS})(?= ?[A-Za-z%\u2030{_VULGAR}{_MINUS}\u4e00-\u9fff])"
    r"(?:[eE]([-+]?[0-9]{1,3})(?![0-9A-Za-z])"
    rf"| ?(?:([%\u2030]|(?i:{_WORDS})(?![A-Za-z]))|([{_VULGAR}])"
    rf"|((?i:cr|dr)(?![A-Za-z])|[{_MINUS}](?![\w{_CURRENCY}]))))"
).findall
"""Numbers behind which stands what changes them: a power of ten, a word or sign for one, a fraction, a minus."""
_LISTED: Final = re.compile(
    r"(?<![0-9])(?:(?<=[^0-9],)[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|(?<![,.])[0-9]{1,3}(?:,[0-9]{3})++(?=,)"
    r"|^[0-9]{1,3}(?:,[0-9]{3}){2,}$)",
    re.MULTILINE,
).findall
"""Numbers with a comma beside them, or alone on their line: perhaps several, between commas."""
_POINT_FIRST: Final = re.compile(rf"(?<![0-9A-Za-z])([{_MINUS}]?)\.([0-9]+)(?![.,]?[0-9])").findall


class Numbers:
    """The numbers of one text."""

    def __init__(self, text: str) -> None:
        self._values = frozenset(numbers(text))
        self._sorted: list[Decimal] | None = None

    def __contains__(self, value: Decimal) -> bool:
        return value in self._values

    def near(self, value: Decimal, tolerance: Decimal) -> bool:
        """Return whether a number of the text is at most `tolerance` from a value."""
        if value in self._values:
            return True
        if not tolerance or not value.is_finite() or abs(value.adjusted()) > _EXPONENTS:
            return False
        if self._sorted is None:
            self._sorted = sorted(self._values)
        with localcontext() as context:
            context.prec = 2 * _EXPONENTS
            low, high = value - tolerance, value + tolerance
        place = bisect_left(self._sorted, low)
        return place < len(self._sorted) and self._sorted[place] <= high

    def nearest(self, value: Decimal) -> Decimal | None:
        """Return the number of the text that is nearest to a value, for a person; `None` for a text without any."""
        if self._sorted is None:
            self._sorted = sorted(self._values)
        place = bisect_left(self._sorted, value)
        around = self._sorted[max(0, place - 1) : place + 1]
        if not around or abs(value.adjusted()) > _EXPONENTS:
            return None
        with localcontext() as context:
            context.prec = 2 * _EXPONENTS
            return min(around, key=lambda number: abs(number - value))


_EXACT: Final = Context(prec=100_000)
"""Decimals of as many digits as a text has: nothing is rounded."""
_EXPONENTS: Final = 1_000
"""Powers of ten up to which differences are worked out."""


def numbers(text: str) -> set[Decimal]:
    """Return every reading of every number of a text."""
    text = ascii_digits(text)
    for space in _SPACES[1:]:
        if space in text:
            text = text.replace(space, " ")
    found: set[Decimal] = set()
    spellings = set(_SPELLED(text))
    gapped = [spelling for spelling in spellings if " " in spelling]
    spellings.difference_update(gapped)
    for spelling in gapped:
        spellings.update(spelling.split(" "))
        found.update(_joined(spelling.split(" ")))
    usual = [form for form in map(_USUAL, spellings) if form is not None]
    spellings.difference_update(form[0] for form in usual)
    found.update(map(Decimal, [form[1] for form in usual if form[1]]))
    found.update(map(Decimal, [form[2].replace(",", "") for form in usual if form[2]]))
    found.update(map(Decimal, [form[3].replace(".", "").replace(",", ".") for form in usual if form[3]]))
    for spelling in spellings:
        found |= _ungapped(spelling)
    for before, sign, gap, spelling in set(_AFTER_SIGN(f"\n{text}")):
        found.update(_signed(_readings(spelling), before, sign, gap))
    for sign, spelling, power, word, fraction, minus in set(_BEFORE_WORD(text)):
        plain = _readings(spelling)
        if minus:
            changed = [value.copy_negate() for value in plain]
        elif fraction:
            changed = [value + _vulgar(fraction) for value in plain if spelling.isdigit()]
        else:
            tens = int(power) if power else _TENS[word.lower()]
            changed = [value.scaleb(tens, _EXACT) for value in plain]
        found.update(changed)
        if sign:
            found.update(value.copy_negate() for value in changed)
    for several in set(_LISTED(text)) if "," in text else ():
        found.update(map(Decimal, several.split(",")))
    for sign, digits in set(_POINT_FIRST(text)):
        found.add(Decimal(f"{'-' if sign else ''}0.{digits}"))
    if _FRACTION.search(text):
        found.update(map(_vulgar, _FRACTION.findall(text)))
    return found


def ascii_digits(text: str) -> str:
    """Return the text with the digits of every script as ASCII's."""
    if text.isascii() or _OTHER_DIGIT.search(text) is None:
        return text
    return _OTHER_DIGIT.sub(lambda found: str(decimal(found[0])), text)


def _signed(values: Iterable[Decimal], before: str, sign: str, gap: str) -> Iterator[Decimal]:
    """The values behind a minus or a bracket; both signs where it may be a dash."""
    if sign == "(" or gap or before == "\n" or before.isalnum() or before in ")]":
        yield from values
    if not before.isalnum() and before not in (")", "]"):
        yield from (value.copy_negate() for value in values)


def _vulgar(text: str) -> Decimal:
    """A fraction of one character; thirds and the like to 28 digits."""
    exact = Decimal(numeric(text))
    return exact if exact.as_tuple().exponent >= -4 else Decimal(round(numeric(text), 12)).quantize(Decimal("1e-12"))  # type: ignore[operator]  # finite


@lru_cache(maxsize=4096)
def _readings(spelling: str) -> frozenset[Decimal]:
    """Every value that digits with separators may have, without a sign."""
    parts = spelling.split(" ")
    return frozenset().union(_joined(parts), *map(_ungapped, parts))


def _joined(parts: list[str]) -> Iterator[Decimal]:
    """The numbers whose groups are parts that blanks separate: up to eight groups, beginning with any part."""
    for begin, first in enumerate(parts[:-1], 1):
        if len(first) > 3 or first[0] == "0" or not first.isdigit():
            continue
        digits = first
        for part in parts[begin : begin + 7]:
            digits += part[:3]
            if len(part) > 3:
                yield Decimal(f"{digits}.{part[4:]}")
                break
            yield Decimal(digits)


def _ungapped(spelling: str) -> frozenset[Decimal]:
    """The same, without blanks among the digits."""
    if (form := _USUAL(spelling)) is not None:
        plain, english, _ = form.groups()
        if plain or english:
            return frozenset((Decimal(plain or english.replace(",", "")),))
    kinds = [kind for kind in _SEPARATORS if kind in spelling]
    last = max(map(spelling.rfind, kinds))
    point, whole, fraction = spelling[last], spelling[:last], spelling[last + 1 :]
    found = set()
    if point in _POINTS and point not in whole and len(kinds) <= 2:
        other = kinds[0] if kinds[0] != point else kinds[-1]
        if len(kinds) == 1 or _groups(other, whole.split(other)):
            found.add(Decimal(f"{whole if len(kinds) == 1 else whole.replace(other, '')}.{fraction}"))
    if len(kinds) == 1 and _groups(point, spelling.split(point)):
        found.add(Decimal(spelling.replace(point, "")))
    if not found:  # several numbers, such as those of a date
        for kind in kinds:
            found |= {value for part in spelling.split(kind) for value in _ungapped(part)}
    return frozenset(found)


_SEPARATORS: Final = f"{_GROUPING}\u066b"


def _groups(separator: str, groups: list[str]) -> bool:
    """Whether the separator groups all digits, as thousands or as lakhs."""
    first, last = groups[0], groups[-1]
    if separator not in _GROUPING or len(last) != 3 or len(first) > 3 or first[0] == "0":
        return False
    inner = {len(group) for group in groups[1:-1]}
    return inner <= {3} or (separator == "," and len(first) <= 2 and inner == {2})


def exact(text: str) -> Decimal | None:
    """Return the value of a JSON number; `None` for one that no decimal holds."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
