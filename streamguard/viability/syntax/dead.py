"""The words of this package: what a dead prefix is (`Dead`), and what watches one document (`Prefix`).

Knows nothing of how a prefix is judged.
"""

from __future__ import annotations

from typing import Literal, Protocol

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


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far an unfinished document has got."""

    pointer: str
    """JSON Pointer of the value or member it stands at."""
    open: tuple[Open, ...]
    """Outermost first."""
    inside: str | None
    """The token that has begun, in words, if one has."""
    expected: tuple[str, ...]
    """What can come next, as far as that can be told: JSON, or words."""


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

    def feed(self, text: str) -> Dead | None:
        """Take the next piece, split anywhere. Once dead it stays dead and gives the same `Dead` again."""

    def close(self) -> Dead | None:
        """The input has ended."""
