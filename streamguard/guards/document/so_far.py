"""The finished values of a document so far, by JSON Pointer: what a guard of one's own can look up.

In charge of reading the document for one reader, and only once that reader asks: then the text so far, and from there
on each piece once. Values are read from their text when they are looked up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from streamguard.events import Delta
from streamguard.files.json_pointer import escape
from streamguard.guards.document.finished import plain
from streamguard.guards.document.lookahead import Ahead
from streamguard.viability.syntax.grammar import NUMBER
from streamguard.viability.syntax.pieces import Pieces
from streamguard.viability.syntax.scanner import SyntaxPrefix

NONE: Final[Mapping[str, Any]] = MappingProxyType({})


@runtime_checkable
class HasDocuments(Protocol):
    """A watch that reads documents."""

    @property
    def begun(self) -> Sequence[tuple[int | None, Ahead]]:
        """The documents that have begun: the content block, where it is a tool's input, and how far each was read."""

    @property
    def repeats(self) -> bool:
        """Whether a later value may replace an earlier one."""


class _Value:
    """A value, read from its text when it is looked up."""

    __slots__ = ("_text", "_value", "number")

    def __init__(self, number: int, text: str | None, value: Any = None) -> None:
        self.number = number
        """How many were complete before it."""
        self._text = text
        self._value = value

    @property
    def value(self) -> Any:
        if self._text is not None:
            self._value, self._text = plain(self._text), None
        return self._value


class Values(Mapping[str, Any]):
    """Values by JSON Pointer, in the order in which they were complete."""

    def __init__(self, found: Mapping[str, _Value], count: int) -> None:
        self._found = found
        self._count = count  # the first so many: the mapping grows

    def __getitem__(self, pointer: str) -> Any:
        found = self._found[pointer]
        if found.number >= self._count:
            raise KeyError(pointer)
        return found.value

    def __iter__(self) -> Iterator[str]:
        return islice(self._found, self._count)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, pointer: object) -> bool:
        found = self._found.get(pointer) if isinstance(pointer, str) else None
        return found is not None and found.number < self._count

    def __repr__(self) -> str:
        return f"Values({dict(self)!r})"


class SoFar:
    """What one reader sees of the documents of an attempt.

    :param documents: the watch that reads them.
    """

    def __init__(self, documents: HasDocuments) -> None:
        self._documents = documents
        self._reading: dict[int, _Reading] = {}  # by the number of the document

    def note(self, event: Delta) -> None:
        """Take a piece of the answer whose event has come."""
        for reading in self._reading.values():
            reading.note(event)

    def now(self) -> Callable[[], Mapping[str, Any]]:
        """Return what gives the values at this moment, whenever it is called."""
        begun = self._documents.begun
        if not begun:
            return lambda: NONE
        number = len(begun) - 1
        block, ahead = begun[-1]
        shown, accepted = ahead.shown, ahead.accepted

        def values() -> Mapping[str, Any]:
            if self._documents.repeats:
                return _whole(ahead.text) if accepted else NONE
            if not ahead.inside:
                return NONE
            if number not in self._reading:
                self._reading[number] = _Reading(block, ahead)
            return self._reading[number].values(shown, accepted)

        return values


class _Reading:
    """One document: every value, once it is complete."""

    def __init__(self, block: int | None, ahead: Ahead) -> None:
        self._block = block
        self._every = _Every()
        self._prefix = SyntaxPrefix(duplicate_names="reject", max_depth=None, max_digits=None, expect="any")
        self._prefix.values = self._every
        self._noted = [ahead.text]

    def note(self, event: Delta) -> None:
        wanted = event.kind == "text" if self._block is None else event.index == self._block
        if wanted and self._prefix.dead is None:
            self._noted.append(event.text)

    def values(self, shown: int, accepted: bool) -> Values:
        """The values that so many characters have completed."""
        for text in self._noted:
            self._every.pieces.append(text)
            self._prefix.feed(text)
        self._noted.clear()
        if accepted and not self._prefix.complete and self._prefix.dead is None:
            self._prefix.close()  # a number that is all of the document
        every = self._every
        return Values(every.found, len(every.found) if accepted else bisect_right(every.ends, shown))


class _Every:
    """Notes each value of a document."""

    def __init__(self) -> None:
        self.found: dict[str, _Value] = {}
        self.ends: list[int] = []
        """How many characters show that each is complete."""
        self.pieces = Pieces()
        self._open: list[tuple[str, int, int]] = []

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        pointer = "" if key is None else f"{self._open[-1][0]}/{escape(key)}"
        self._open.append((pointer, at, kind))
        return True

    def end(self, at: int) -> None:
        pointer, begin, kind = self._open.pop()
        self.found[pointer] = _Value(len(self.found), self.pieces.text(begin, at))
        self.ends.append(at + (kind == NUMBER))


def _whole(text: str) -> Values:
    """Every value of a whole document."""
    found: dict[str, _Value] = {}
    todo: list[tuple[str, Any, bool]] = [("", plain(text), False)]
    while todo:
        pointer, value, entered = todo.pop()
        if entered or not isinstance(value, dict | list):
            found[pointer] = _Value(len(found), None, value)
            continue
        todo.append((pointer, value, True))
        inside = list(value.items() if isinstance(value, dict) else enumerate(value))
        todo += [(f"{pointer}/{escape(key)}", one, False) for key, one in reversed(inside)]
    return Values(found, len(found))
