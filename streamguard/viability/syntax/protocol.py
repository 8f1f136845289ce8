"""The words between scanner, schema and caller: `Dead`, `Prefix`, `PrefixStatus`, `Listener` and `Cause`.

Also what a string's text stands for (`decode`). Does not know how a prefix is judged.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol

import msgspec

Duplicates = Literal["reject", "allow"]
"""What to do with a name that stands twice in one object."""


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """No continuation of the prefix is a complete, valid document."""

    offset: int | Literal["eof"]
    """0-based, in bytes of the UTF-8 text from the document's start: the first byte after which nothing can save it.
    `eof` where only the end of input kills it."""
    char: int | Literal["eof"]
    """The same, in characters (Unicode code points)."""
    pointer: str
    """JSON Pointer of the value concerned."""
    keyword: str
    """`malformed`, `trailing`, `duplicate_name`, `depth`, `number`, `type`, or the JSON Schema keyword."""
    schema_pointer: str | None = None
    """JSON Pointer of that keyword in the schema; `None` for syntax."""
    message: str
    """One sentence for a person: what was seen, what was expected."""
    expected: tuple[str, ...] = ()
    """What could have come instead, as far as that can be told: JSON, or words."""

    def __str__(self) -> str:
        where = "end of input" if self.char == "eof" else f"character {self.char}"
        return f"{where}: {self.pointer or '/'}: {self.message}"


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An object or array that has not closed."""

    pointer: str
    """JSON Pointer."""
    kind: Literal["object", "array"]
    missing: tuple[str, ...] = ()
    """Names that must still come, whatever else does."""


class PrefixStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far an unfinished document has got."""

    pointer: str
    """JSON Pointer of the value or member it stands at."""
    open: tuple[Open, ...]
    """Outermost first."""
    inside: str | None
    """The token that has begun, in words, if one has."""
    expected: tuple[str, ...]
    """What can come next, as far as that can be told: JSON, or words."""


class ValueListener(Protocol):
    """Told where each value of a document begins and ends, those inside a container that was read at once excepted."""

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        """A value of a kind begins at a character; `key` is its name or index, `None` for the top value.

        :returns: whether the values inside must be told, too, so that a container is not read at once.
        """

    def end(self, at: int) -> None:
        """The innermost open value has ended before a character."""


class Prefix(Protocol):
    """One document, fed in pieces."""

    dead: Dead | None
    """Why the document is dead, once it is."""
    complete: bool
    """Whether the top value has closed. A top-level number closes with the whitespace after it or with `close()`."""
    end: int | None
    """Characters up to and including the last one of the top value, once complete."""
    consumed: int
    """Characters fed."""
    token_start: int | None
    """Where an unfinished scalar token (string, name, number, literal) began, in characters; `None` between tokens."""
    depth: int
    """Containers open."""
    values: ValueListener | None
    """Told where values begin and end. Set before the first piece."""

    def feed(self, text: str) -> Dead | None:
        """Take the next piece, split anywhere. Once dead it stays dead and gives the same `Dead` again.

        :param text: the next piece.
        :returns: where and why the document is dead, or `None`.
        """

    def close(self) -> Dead | None:
        """Say that the input has ended.

        :returns: where and why the document is dead, or `None` if it is valid.
        """


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

    def expected_next(self, at: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Per open container from the outermost on the names that must still come; and what may come next `at` a
        `value`, a `name` or `inside` a token. As far as known: fewer containers, or nothing, otherwise."""


def decode(raw: str) -> str:
    """The text of a JSON string from what stands between its quotes, as `json.loads` reads it."""
    if "\\" not in raw:
        return raw
    text: str = json.loads(f'"{raw}"')
    return text
