"""A document's pieces read together, though their events are still to be looked at one after the other.

When a read brings many deltas, a scan of them all costs a fraction of as many scans. What it finds is told with the
event it belongs to, and until then the document is shown as far as the events have come: nothing but the cost tells
that it was read ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from streamguard.guards.base import Document
from streamguard.guards.document.finished import Finished
from streamguard.guards.document.reader import DocumentReader
from streamguard.verdict import Enough, Trip
from streamguard.viability.syntax.values import FinishedValues


class Ahead:
    """How far one document was read ahead of its events.

    :param finished: follows the document for whoever wants its values.
    """

    __slots__ = ("_at", "_back", "_reader", "_verdict", "finished", "left")

    def __init__(self, reader: DocumentReader, finished: Finished | None = None) -> None:
        self._reader = reader
        self.finished = finished
        self.left = 0
        """Pieces that were read and whose events have not come yet."""
        self._back = 0  # their characters
        self._verdict: Trip | Enough | None = None
        self._at = 0  # pieces left when the verdict's event has come

    def read(self, pieces: Sequence[str]) -> None:
        """The next pieces, all from one read."""
        reader = self._reader
        ends = list(accumulate(map(len, pieces)))
        if self.left or not reader.takes(ends[-1]):
            return
        before = reader.fed
        place = 0
        while not reader.inside and place < len(pieces) and self._verdict is None:
            self._verdict = reader.feed(pieces[place])
            place += 1
        self._at = 0
        if self._verdict is None and (rest := "".join(pieces[place:])):
            place = len(pieces)
            self._verdict = reader.feed(rest)
            if self._verdict is not None:
                at = reader.verdict_at(self._verdict) - before
                self._at = sum(end > at for end in ends[:-1])
        self.left = place
        self._back = ends[place - 1]

    def take(self, piece: str) -> Trip | Enough | None:
        """The event of the next of these pieces has come: what was found in it."""
        self.left -= 1
        self._back -= len(piece)
        if self._verdict is None or self.left > self._at:
            return None
        self._reader.forget(self._back)
        self.left = self._back = 0
        return self._verdict

    @property
    def inside(self) -> bool:
        """Whether the document has begun by the events that have come, so that all further text is its own."""
        return self._reader.begun_before(self._back if self.left else 0)

    @property
    def text(self) -> str:
        """The document's own text, by the events that have come."""
        return self._reader.text_before(self._back) if self.left else self._reader.text

    @property
    def shown(self) -> int:
        """Characters of the document's own text whose events have come."""
        return self._reader.read - self._back if self.left else self._reader.read

    @property
    def accepted(self) -> bool:
        """Whether the document was accepted, as far as the events have come."""
        return not self.left and self._reader.complete

    def document(self) -> Document:
        """The document, as far as the events have come."""
        reader = self._reader
        if not self.left:
            complete, instance = reader.complete, reader.instance
            return Document(text=reader.text, value=reader.value, complete=complete, instance=instance)
        text = self.text
        values = FinishedValues()
        values.feed(text)
        return Document(text=text, value=values.value)
