"""The latest pieces of a text, for who needs parts of it again: each piece with where it begins."""

from __future__ import annotations

from bisect import bisect_right


class Pieces:
    """Pieces of one text, kept from some character on."""

    __slots__ = ("_pieces", "_starts", "fed")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._starts: list[int] = []
        self.fed = 0
        """Characters fed."""

    def feed(self, text: str, *, keep: bool) -> None:
        """Take the next piece.

        :param keep: whether the pieces before it are still needed.
        """
        if not keep and self._pieces:
            self._pieces.clear()
            self._starts.clear()
        self._pieces.append(text)
        self._starts.append(self.fed)
        self.fed += len(text)

    def text(self, begin: int, end: int) -> str:
        """Return the text between two characters; both lie in pieces that were kept."""
        first = bisect_right(self._starts, begin) - 1
        start = self._starts[first]
        if first == len(self._pieces) - 1:
            return self._pieces[first][begin - start : end - start]
        last = bisect_right(self._starts, end - 1)
        return "".join(self._pieces[first:last])[begin - start : end - start]
