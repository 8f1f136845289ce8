"""What the scanner tells of a document, and what it may be told back: `Listener` and `Cause`.

Also what a string's text stands for (`decode`). Knows neither syntax nor schemas.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import msgspec


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a listener says dead; the scanner adds the place."""

    keyword: str
    schema_pointer: str | None
    message: str
    expected: tuple[str, ...] = ()
    """What could have come instead, each in words or as JSON."""
    at: int = 0
    """For `chars()`: the character within the fragment."""
    byte: int = 0
    """The byte within that character."""
    level: int | None = None
    """How deep the value concerned lies, 0 being the top value; `None` for where the scanner is."""


class Listener(Protocol):
    """Told of every token in order. A cause means: dead at the very character that brought the call about."""

    def value_open(self, kind: int) -> Cause | None:
        """A value begins, of this kind. For `true`, `false` and `null` it is thereby also known in full."""

    def name_open(self) -> Cause | None:
        """A member's name begins."""

    def chars(self, fragment: str) -> Cause | None:
        """More of the open string, name (undecoded, without quotes) or number. Never empty."""

    def value_close(self, kind: int) -> Cause | None:
        """The innermost open value has ended. Not called for literals."""

    def name_close(self, name: str) -> Cause | None:
        """The name has ended; decoded."""

    def comma(self, kind: int) -> Cause | None:
        """Another member or item is promised."""

    def whole_name(self, name: str) -> bool:
        """`name_open`, `chars` and `name_close` at once, of a name that has not come before: whether nothing speaks
        against it. If not, nothing has happened, and the name comes again in the usual way."""

    def whole_value(self, kind: int, raw: str) -> bool:
        """`value_open`, `chars` and `value_close` of a value inside a container at once, in the same sense. `raw` is a
        string without its quotes and without escapes, a number without an exponent, a literal, or an empty array."""

    def whole_container(self, value: Any, text: str, begin: int, end: int) -> bool:
        """The same for an object or array, of which every token would be told; `value` as `json.loads` reads it from
        that part of the text."""

    def outlook(self, at: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Per open container from the outermost on the names that must still come; and what may come next `at` a
        `value`, a `name` or `inside` a token. As far as known: fewer containers, or nothing, otherwise."""


def decode(raw: str) -> str:
    """The text of a JSON string from what stands between its quotes, as `json.loads` reads it."""
    if "\\" not in raw:
        return raw
    text: str = json.loads(f'"{raw}"')
    return text
