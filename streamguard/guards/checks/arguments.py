"""The arguments of a check that is a function: which values it needs, and when all of them are there.

In charge of when such a function is called and for which item. A value that an object lacks when it closes does not
come any more: it is absent. Places with `*` make one call of each item; those without are shared by all calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from streamguard.files.json_pointer import Path, parse_pointer, pointer
from streamguard.guards.document.finished import ANY_KEY, ON_THE_WAY, FinishedValue

Keys = tuple[str | int, ...]
"""What each `*` stands for: names, and the numbers of items."""

NO_ITEM: Final[Keys] = ()


class Needs(msgspec.Struct, frozen=True):
    """The places of the values that a function needs, in the order of its arguments."""

    paths: tuple[Path, ...]
    item: Path
    """The place of the items; empty for a check of the whole document."""

    @classmethod
    def of(cls, pointers: Sequence[str]) -> Needs:
        """Read them.

        :raises ValueError: one is no JSON Pointer, or their items are those of two places.
        """
        paths = tuple(parse_pointer(one) for one in pointers)
        starred = [path[: len(path) - path[::-1].index(ANY_KEY)] for path in paths if ANY_KEY in path]
        item = max(starred, key=len, default=())
        for one in starred:
            if one != item[: len(one)]:
                raise ValueError(
                    f"{pointer(one)} and {pointer(item)} are items of two places, and a function is called for each "
                    "item of one: need the array itself for the other"
                )
        return cls(paths, item)

    @property
    def stars(self) -> int:
        """How many keys tell the items apart."""
        return self.item.count(ANY_KEY)


class Call(msgspec.Struct, frozen=True):
    """A call that is due."""

    by: FinishedValue
    """The value that was the last to be complete."""
    item: Keys
    """The path of the item; empty for a check of the whole document."""
    values: tuple[FinishedValue | None, ...]
    """The arguments; `None` for one that is absent."""


class _Item:
    """An item whose values are not all there yet."""

    __slots__ = ("keys", "left", "path")

    def __init__(self, path: Keys, keys: Keys) -> None:
        self.path = path
        self.keys = keys
        self.left = 0


class Arguments:
    """What one function knows of one document."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._known: list[dict[Keys, FinishedValue | None]] = [{} for _ in needs.paths]
        self._waiting: dict[tuple[int, Keys], list[_Item]] = {}
        self._begun: set[Keys] = set()
        self._stars = [path.count(ANY_KEY) for path in needs.paths]
        if not needs.item:
            self._begin(NO_ITEM, NO_ITEM)

    def take(self, number: int, value: FinishedValue) -> Iterator[Call]:
        """Take a value that is complete.

        :param number: of its place, or `ON_THE_WAY`.
        """
        path = value.path
        if number != ON_THE_WAY:
            keys = _keys(self._needs.paths[number], path)
            if keys not in self._known[number]:
                yield from self._know(number, keys, value, value)
            return
        item = self._needs.item
        if item and len(path) == len(item) and _leads(item, path) and (keys := _keys(item, path)) not in self._begun:
            yield from self._complete(self._begin(path, keys), value)
        for number, place in enumerate(self._needs.paths):
            beyond = place[len(path) :]
            if not beyond or ANY_KEY in beyond or not _leads(place, path):
                continue
            keys = _keys(place[: len(path)], path)
            if keys not in self._known[number]:
                yield from self._know(number, keys, None, value)

    def _know(self, number: int, keys: Keys, found: FinishedValue | None, by: FinishedValue) -> Iterator[Call]:
        """A value is complete, or absent."""
        self._known[number][keys] = found
        if len(keys) == self._needs.stars and keys not in self._begun:
            yield from self._complete(self._begin(by.path[: len(self._needs.item)], keys), by)
        for item in self._waiting.pop((number, keys), ()):
            item.left -= 1
            yield from self._complete(item, by)

    def _begin(self, path: Keys, keys: Keys) -> _Item:
        item = _Item(path, keys)
        self._begun.add(keys)
        for number, stars in enumerate(self._stars):
            own = keys[:stars]
            if own not in self._known[number]:
                item.left += 1
                self._waiting.setdefault((number, own), []).append(item)
        return item

    def _complete(self, item: _Item, by: FinishedValue) -> Iterator[Call]:
        if not item.left:
            values = [known[item.keys[:stars]] for known, stars in zip(self._known, self._stars, strict=True)]
            yield Call(by, item.path, tuple(values))


def _leads(place: Path, path: Keys) -> bool:
    """Whether a path is on the way to a place."""
    return all(part in (ANY_KEY, str(key)) for part, key in zip(place, path, strict=False))


def _keys(place: Path, path: Keys) -> Keys:
    """What each `*` of a place stands for in a path to it."""
    return tuple(key for part, key in zip(place, path, strict=True) if part == ANY_KEY)
