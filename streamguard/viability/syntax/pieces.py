"""The text of an unfinished document by position, without joining its pieces.

Whoever follows a document keeps the pieces of what is still open here, and lets go of the rest.
"""

from __future__ import annotations

from bisect import bisect_right


class Pieces:
    """The latest pieces of a text.

    :ivar end: characters of the whole text so far, those that were let go of included.
    """

    __slots__ = ("_pieces", "_starts", "end")

    def __init__(self) -> None:
        self.end = 0
        self._pieces: list[str] = []
        self._starts: list[int] = []

    def append(self, piece: str) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._starts.append(self.end)
        self.end += len(piece)

    def clear(self) -> None:
        """Let go of everything so far."""
        if self._pieces:
            self._pieces.clear()
            self._starts.clear()

    def text(self, begin: int, end: int) -> str:
        """Return the text between two characters, neither of which was let go of."""
        if begin >= end:
            return ""
        first = bisect_right(self._starts, begin) - 1
        start = self._starts[first]
        if first == len(self._pieces) - 1:
            return self._pieces[first][begin - start : end - start]
        return "".join(self._pieces[first:])[begin - start : end - start]
