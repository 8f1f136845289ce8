"""Who reads along in the documents of an attempt: the places that each reader wants, and what it sees of each document.

A guard beside the guard of documents subscribes before the first event. From then on it takes from each document what
the events so far have completed, and no more, however far the document was read ahead of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from streamguard.files.json_pointer import Path
from streamguard.guards.document.finished import Finished, FinishedValue
from streamguard.guards.document.lookahead import Ahead


class Followed:
    """What one subscription sees of one document.

    :param ahead: the document, and how far it was read ahead of its events.
    :param block: index of the content block, where the document is a tool's input.
    """

    __slots__ = ("_ahead", "_queue", "block")

    def __init__(self, ahead: Ahead, subscription: int, block: int | None = None) -> None:
        finished = ahead.finished
        assert finished is not None  # there is a subscription
        self._queue: deque[tuple[int, FinishedValue]] = finished.queues[subscription]
        self._ahead = ahead
        self.block = block

    @property
    def accepted(self) -> bool:
        """Whether the document was accepted, by the events that have come."""
        return self._ahead.accepted

    @property
    def text(self) -> str:
        """The document's own text, by the events that have come."""
        return self._ahead.text

    def take(self) -> Iterator[tuple[int, FinishedValue]]:
        """Give what has been complete since the last call, in order: the number of its place, and the value."""
        queue = self._queue
        while queue and queue[0][1].at <= self._ahead.shown:
            yield queue.popleft()


@runtime_checkable
class Publisher(Protocol):
    """A watch that other watches can follow documents by."""

    def subscribe(self, places: Sequence[Path]) -> int:
        """Ask for the finished values at some places of each document. Before the first event.

        :returns: the number of the subscription.
        """

    def followed(self, subscription: int) -> Sequence[Followed]:
        """The documents that have begun, always the same objects."""

    @property
    def schema(self) -> Any:
        """The compiled schema of the documents; `None` if there is none, or each has its own."""

    @property
    def repeats(self) -> bool:
        """Whether a name may stand twice in one object, so that a later value replaces an earlier one."""


class Subscriptions:
    """What the readers of one attempt want."""

    def __init__(self) -> None:
        self._wanted: tuple[tuple[Path, ...], ...] = ()

    def add(self, places: Sequence[Path]) -> int:
        """Add a reader; gives its number."""
        self._wanted = (*self._wanted, tuple(places))
        return len(self._wanted) - 1

    def finished(self) -> tuple[Finished, ...]:
        """Return the follower for one more document; none if nobody wants anything."""
        return (Finished(self._wanted),) if self._wanted else ()
