"""Whether an unfinished value still stands in a source: `Search`.

In charge of the first place of the source where the value so far occurs, and of the first character after which there
is none. The first place never moves to the left as the value grows, so a value costs one pass over the source at most.
"""

from __future__ import annotations

from typing import Literal

from streamguard.guards.grounding.normal_form import NormalForm, NormalText, in_word, joins

Edges = Literal["any", "word"]


class Search:
    """One value, looked for in a source.

    :param source: in its form.
    :param edges: where the value may begin and end: anywhere, or where a word does.
    :ivar at: where in the source's form the value so far occurs first.
    """

    __slots__ = ("_edges", "_length", "_parts", "_source", "_text", "at")

    def __init__(self, source: str, form: NormalForm, *, edges: Edges = "any") -> None:
        self.at = 0
        self._source = source
        self._text = NormalText(form)
        self._edges = edges
        self._parts: list[str] = []
        self._length = 0

    def feed(self, text: str) -> int | None:
        """Take the next characters of the value.

        :returns: the first of them with which the value occurs nowhere; `None` while it occurs. Then feed no more.
        """
        normal = self._text
        before = normal.state
        found = normal.feed(text)
        if self._goes_on(found):
            return None
        low, high = 1, len(text)  # dead with `high` of them
        while low < high:
            middle = (low + high) // 2
            if self._occurs(normal.resumed(before).feed(text[:middle])):
                low = middle + 1
            else:
                high = middle
        self._text = normal.resumed(before)
        self._goes_on(self._text.feed(text[: low - 1]))
        return low - 1

    def finish(self) -> bool:
        """The value has ended. Return whether it occurs, from edge to edge."""
        return self._goes_on(self._text.finish()) and self._ends_well()

    @property
    def length(self) -> int:
        """Characters of the source's form in which the value so far occurs."""
        return self._length

    def _goes_on(self, text: str) -> bool:
        """Add to the value so far, if that still occurs."""
        if not text:
            return True
        if not self._source.startswith(text, self.at + self._length):
            before = "".join(self._parts)
            at = self._source.find(before + text, self.at + 1 if before else 0)
            if at < 0:
                return False
            self.at = at
            self._parts = [before] if before else []
        self._parts.append(text)
        self._length += len(text)
        return True

    def _occurs(self, text: str) -> bool:
        """Whether the value so far and more occurs."""
        if self._source.startswith(text, self.at + self._length):
            return True
        return self._source.find("".join((*self._parts, text)), self.at + 1 if self._parts else 0) >= 0

    def _ends_well(self) -> bool:
        """Whether the value occurs where no character, and if so wanted no word, is cut."""
        value, source, at = "".join(self._parts), self._source, self.at
        while at >= 0 and value:
            if self._fits(value, at):
                self.at = at
                return True
            at = source.find(value, at + 1)
        return not value

    def _fits(self, value: str, at: int) -> bool:
        source = self._source
        before = source[at - 1 : at]
        after = source[at + len(value) : at + len(value) + 1]
        if after and joins(after):
            return False
        if self._edges == "any":
            return True
        left = bool(before) and in_word(before) and in_word(value[0])
        right = bool(after) and in_word(after) and in_word(value[-1])
        return not left and not right
