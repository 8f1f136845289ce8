"""The text of a JSON string whose pieces may end anywhere: inside an escape, or between the halves of a pair.

In charge of what of a piece is known for sure. Does not know what the text is for.
"""

from __future__ import annotations

import re

from streamguard.viability.syntax.protocol import decode

_PENDING = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z").search
_BACKSLASHES = re.compile(r"\\+\Z")
_CHARACTER = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u.{4}|\\.|.", re.DOTALL)


def unfinished(raw: str) -> str:
    """Return the end of a string's raw text that is no finished character: an escape, or half a surrogate pair."""
    found = _PENDING(raw)
    pending = found.group() if found else ""
    if not pending:
        return ""
    # A backslash may itself be escaped: count those that stand before.
    before = _BACKSLASHES.search(raw, 0, len(raw) - len(pending))
    if before and len(before.group()) % 2:
        pending = pending[1:]  # its first backslash belongs to the one before
        inner = _PENDING(pending)
        pending = inner.group() if inner else ""
        if pending and not pending.startswith("\\"):
            pending = ""
    return pending


class StringText:
    """Decodes one string, piece by piece.

    :ivar raw: what was fed last, behind what had been held back of the piece before.
    """

    __slots__ = ("_pending", "raw")

    def __init__(self) -> None:
        self.raw = ""
        self._pending = ""

    def feed(self, raw: str) -> str:
        """Take raw text from between the quotes.

        :returns: the characters that are now certain, decoded.
        """
        if not self._pending and "\\" not in raw:
            self.raw = raw
            return raw
        raw = self._pending + raw
        self._pending = pending = unfinished(raw)
        self.raw = raw = raw[: len(raw) - len(pending)]
        return decode(raw)

    def finish(self) -> str:
        """Return what was held back: half a surrogate pair, or nothing."""
        self.raw, self._pending = self._pending, ""
        return decode(self.raw)

    @property
    def pending(self) -> int:
        """Characters of raw text that are held back."""
        return len(self._pending)


def spelled(raw: str, count: int) -> int:
    """Return how many characters of raw text spell the first `count` characters."""
    if "\\" not in raw:
        return min(count, len(raw))
    end = 0
    for _, found in zip(range(count), _CHARACTER.finditer(raw), strict=False):
        end = found.end()
    return end
