"""What follows a document beside its schema: told where values begin and end, it says when one cannot stand.

In charge of the protocol, and of telling several at once. A follower is pure and belongs to one document. Models are
one kind; grounded values and checks are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamguard.models.following import Failure
from streamguard.viability.syntax.protocol import ValueListener


class Follower(ValueListener, Protocol):
    """Follows one document. For each piece: `feed`, then what the scanner finds in it, then `read`."""

    failure: Failure | None
    """The first failure, by the character that showed it; `None` while there is none."""

    def feed(self, text: str) -> None:
        """Take the piece that the scanner is about to be fed."""

    def read(self, until: int) -> None:
        """The scanner has read up to a character, and the document lives so far: judge what is unfinished."""


class Followers:
    """Several followers as one."""

    __slots__ = ("_all",)

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._all = tuple(followers)

    @property
    def failure(self) -> Failure | None:
        """The earliest failure of all. Of two at one character, that of the earlier follower."""
        found: Failure | None = None
        for one in self._all:
            if one.failure is not None and (found is None or _at(one.failure) < _at(found)):
                found = one.failure
        return found

    def feed(self, text: str) -> None:
        """Take the piece that the scanner is about to be fed."""
        for one in self._all:
            one.feed(text)

    def read(self, until: int) -> None:
        """The scanner has read up to a character."""
        for one in self._all:
            one.read(until)

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        """A value of a kind begins at a character, as the member or item `key`.

        :returns: whether any of them must be told what is inside.
        """
        told = False
        for one in self._all:
            told = one.begin(key, at, kind) or told
        return told

    def end(self, at: int) -> None:
        """The innermost open value has ended before a character."""
        for one in self._all:
            one.end(at)


def together(followers: Sequence[Follower]) -> Follower | Followers | None:
    """Return one listener for all of them; `None` for none."""
    if len(followers) < 2:
        return followers[0] if followers else None
    return Followers(followers)


def _at(failure: Failure) -> float:
    return float("inf") if failure.char is None else failure.char
