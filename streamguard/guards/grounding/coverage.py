"""What share of right values stands in its source, for each way of comparing: to look at before grounding anything.

In charge of the count. Which values are right is the caller's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from streamguard.files.json_pointer import escape
from streamguard.guards.grounding.dates import dates
from streamguard.guards.grounding.normal_form import normal_form
from streamguard.guards.grounding.numbers import numbers
from streamguard.guards.grounding.search import Edges, Search
from streamguard.guards.grounding.source import SourceText

Way = Literal["exact", "case, space", "+ dashes, quotes", "+ markup", "word edges", "number", "date"]

_TEXTS: Final[Mapping[Way, tuple[tuple[str, ...], Edges]]] = {
    "exact": ((), "any"),
    "case, space": (("case", "space"), "any"),
    "+ dashes, quotes": (("case", "dashes", "quotes", "space"), "any"),
    "+ markup": (("case", "dashes", "markup", "quotes", "space"), "any"),
    "word edges": (("case", "dashes", "markup", "quotes", "space"), "word"),
}
WAYS: Final[tuple[Way, ...]] = (*_TEXTS, "number", "date")


class Coverage:
    """The values at one place of all documents."""

    def __init__(self) -> None:
        self.values = 0
        """How many there are; `null` and empty texts are none."""
        self.stand: dict[Way, int] = dict.fromkeys(WAYS, 0)
        """How many of them stand in their source, by the way of comparing."""
        self.about: dict[Way, int] = dict.fromkeys(WAYS, 0)
        """How many a way of comparing is about."""
        self.missing: str | None = None
        """One that stands nowhere, in no way."""

    @property
    def best(self) -> tuple[Way, int]:
        """The strictest way by which the most values stand, and how many do."""
        strict: tuple[Way, ...] = ("word edges", *WAYS)
        most = max(self.stand[way] for way in WAYS if self.is_about(way))
        return next((way, most) for way in strict if self.is_about(way) and self.stand[way] == most)

    def is_about(self, way: Way) -> bool:
        """Return whether a way of comparing is about all values here."""
        return self.about[way] == self.values

    def add(self, value: str | float | Decimal, source: SourceText) -> None:
        """Count one right value."""
        self.values += 1
        found = False
        for way, stands in _ways(value, source):
            self.about[way] += 1
            self.stand[way] += stands
            found = found or stands
        if not found and self.missing is None:
            self.missing = str(value)


def _ways(value: str | float | Decimal, source: SourceText) -> Iterator[tuple[Way, bool]]:
    text = value if isinstance(value, str) else None
    if text is not None:
        for way, (ignore, edges) in _TEXTS.items():
            form = normal_form(ignore)
            search = Search(source.in_form(form), form, edges=edges)
            yield way, search.feed(text) is None and search.finish()
        if days := dates(text):
            yield "date", bool(days & source.dates)
    read = {Decimal(str(value))} if text is None else numbers(text) if _is_number(text) else set()
    if read:
        yield "number", any(number in source.numbers for number in read)


_is_number = re.compile(
    r"[-+(]? ?[$\u20ac\u00a3]? ?[0-9]+(?:[.,'\u2019 \u00a0\u202f][0-9]{2,3})*(?:[.,][0-9]+)? ?[%$\u20ac\u00a3]?\)?"
).fullmatch
"""Whether a text is written like one number."""


def add(found: dict[str, Coverage], document: Any, source: SourceText, at: str = "") -> None:
    """Count every value of a right document at its place, items of arrays together.

    :param found: place to count, which grows.
    """
    if isinstance(document, Mapping):
        for name, value in document.items():
            add(found, value, source, f"{at}/{escape(name)}")
    elif isinstance(document, list):
        for value in document:
            add(found, value, source, f"{at}/*")
    elif document is not None and not isinstance(document, bool) and document != "":
        found.setdefault(at, Coverage()).add(document, source)
