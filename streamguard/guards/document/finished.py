"""The finished values of a document at some places, each as soon as it is complete.

In charge of: which values somebody wants, and the text of each once the scanner has passed it. A value is complete at
the closing quote of a string, at the bracket of an object or array, and at the character after a number. It does not
know what the values are wanted for; several readers share one pass over the document.

A place is a path of names and indexes, in which `*` stands for any one of them. The values on the way to a place are
told as well when they are complete: what has not come by then is absent.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, DecimalException
from functools import lru_cache
from typing import Any, Final

from streamguard.files.json_pointer import Path, pointer
from streamguard.models.following import Failure
from streamguard.viability.syntax.grammar import ARRAY, FALSE, NULL, NUMBER, OBJECT, STRING, TRUE
from streamguard.viability.syntax.pieces import Pieces

ANY_KEY: Final = "*"
"""In a place, any one name or index."""

ON_THE_WAY: Final = -1
"""Instead of a place's number: a value on the way to a place."""


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except DecimalException:
        raise ValueError(f"the number {text[:40]} is out of range") from None


_READ: Final = json.JSONDecoder(parse_float=_number, parse_int=_number).decode
"""Numbers as exact decimals. `NaN` and `Infinity` do not get here: the scanner refuses them."""

plain: Final = json.JSONDecoder(parse_float=_number).decode
"""Read a JSON text as Python code expects it: whole numbers as `int`, others as exact decimals."""


class FinishedValue:
    """One complete value."""

    __slots__ = ("_read", "_value", "at", "kind", "path", "text")

    @classmethod
    def of(cls, path: tuple[str | int, ...], value: Any) -> FinishedValue:
        """Return a value that was read already."""
        found = cls(path, _kind(value), None, 0)
        found._value, found._read = value, True
        return found

    def __init__(self, path: tuple[str | int, ...], kind: int, text: str | None, at: int) -> None:
        self.path = path
        """The names and indexes that lead to it."""
        self.kind = kind
        """One of the kinds of `viability.syntax.grammar`."""
        self.text = text
        """Its JSON text; `None` for a value on the way to a place."""
        self.at = at
        """How many characters of the document show that it is complete."""
        self._read = False
        self._value: Any = None

    def fresh(self) -> Any:
        """Read the value anew, as Python code expects it: whole numbers as `int`, others as exact decimals.

        :raises ValueError: a number that Python does not read.
        """
        return self._value if self.text is None else plain(self.text)

    @property
    def value(self) -> Any:
        """The value, with numbers as exact decimals. Read once.

        :raises ValueError: a number whose exponent no decimal can have.
        """
        if not self._read:
            self._value = _READ(self.text or "null")
            self._read = True
        return self._value

    @property
    def pointer(self) -> str:
        """Its JSON Pointer."""
        return pointer(self.path)


def _kind(value: Any) -> int:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, dict):
        return OBJECT
    return ARRAY if isinstance(value, list) else STRING if isinstance(value, str) else NUMBER


def exact(text: str) -> Any:
    """Read a JSON text with numbers as exact decimals. Of a repeated name the last value counts.

    :raises ValueError: a number whose exponent no decimal can have.
    """
    return _READ(text)


class _Place:
    """One node of the tree of wanted places."""

    __slots__ = ("deeper", "members", "rest", "takers", "wanted")

    def __init__(self, paths: Sequence[tuple[Path, int, int]]) -> None:
        exact = [(subscription, number) for path, subscription, number in paths if not path]
        deeper = [(path[0], (path[1:], subscription, number)) for path, subscription, number in paths if path]
        passed = dict.fromkeys((subscription, ON_THE_WAY) for _, (_, subscription, _) in deeper)
        self.takers = (*exact, *passed)
        """Who is told of a value here: the subscription, and the number of its place."""
        self.wanted = bool(exact)
        """Whether the value's own text is wanted."""
        every = [rest for name, rest in deeper if name == ANY_KEY]
        names = dict.fromkeys(name for name, _ in deeper if name != ANY_KEY)
        self.members: Mapping[str, _Place] = {
            name: _Place([rest for other, rest in deeper if other in (name, ANY_KEY)]) for name in names
        }
        self.rest = _Place(every) if every else None
        self.deeper = bool(deeper)

    def below(self, key: str | int) -> _Place | None:
        return self.members.get(str(key), self.rest) if self.members else self.rest


@lru_cache(maxsize=128)
def _tree(wanted: tuple[tuple[Path, ...], ...]) -> _Place:
    return _Place([(path, which, number) for which, paths in enumerate(wanted) for number, path in enumerate(paths)])


_Open = tuple[_Place | None, int, int, str | int | None]
_NOBODY: Final[_Open] = (None, 0, 0, None)


class Finished:
    """The state for one document. A `Follower` that never fails.

    :param wanted: the places of each subscription.
    """

    __slots__ = ("_kept", "_open", "_pieces", "_root", "failure", "queues")

    def __init__(self, wanted: tuple[tuple[Path, ...], ...]) -> None:
        self.failure: Failure | None = None
        self.queues = tuple(deque[tuple[int, FinishedValue]]() for _ in wanted)
        """For each subscription what was found: the number of its place, or `ON_THE_WAY`, and the value."""
        self._root = _tree(wanted)
        self._open: list[_Open] = []
        self._pieces = Pieces()
        self._kept = 0  # open values whose text is wanted

    def feed(self, text: str) -> None:
        """Take the piece that the scanner is about to be fed."""
        if not self._kept:
            self._pieces.clear()
        self._pieces.append(text)

    def read(self, until: int) -> None:
        """The scanner has read up to a character: an unfinished value is not told."""

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        """A value of a kind begins at a character."""
        place: _Place | None = self._root
        if self._open:
            parent = self._open[-1][0]
            place = None if parent is None else parent.below(key)  # type: ignore[arg-type]  # inside a container
        if place is None:
            self._open.append(_NOBODY)
            return False
        self._kept += place.wanted
        self._open.append((place, at, kind, key))
        return place.deeper

    def end(self, at: int) -> None:
        """The innermost open value has ended before a character."""
        place, begin, kind, key = self._open.pop()
        if place is None:
            return
        text = None
        if place.wanted:
            self._kept -= 1
            text = self._pieces.text(begin, at)
        path = tuple(one[3] for one in self._open[1:])
        value = FinishedValue(
            path if key is None else (*path, key),  # type: ignore[arg-type]  # none but the top value has no key
            kind,
            text,
            at + (kind == NUMBER),
        )
        for subscription, number in place.takers:
            self.queues[subscription].append((number, value))


def values_at(value: Any, places: Sequence[Path]) -> Iterator[tuple[int, FinishedValue]]:
    """Tell the values of a whole document at some places, in the order in which a stream would complete them.

    :param value: the document, as `exact` reads it.
    """
    todo: list[tuple[_Place, tuple[str | int, ...], Any, bool]] = [(_tree((tuple(places),)), (), value, False)]
    while todo:
        place, path, one, told = todo.pop()
        if told:
            found = FinishedValue.of(path, one)
            yield from ((number, found) for _, number in place.takers)
            continue
        todo.append((place, path, one, True))
        inside = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        below = [(place.below(key), (*path, key), item) for key, item in inside]
        todo += [(node, at, item, False) for node, at, item in reversed(below) if node is not None]
