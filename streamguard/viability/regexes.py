"""Patterns of a schema: compiled once with `regex`, and asked what a beginning of a string already decides.

In charge of: Python's search semantics with a time limit, for beginnings and for finished strings, and of knowing for
which patterns a partial match can be trusted. The final judge uses the same call, so that both say the same.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import regex

TIMEOUT: Final = 0.05
"""Seconds for one search. Beyond it a pattern counts as matched by a beginning, and fails a finished string."""

MOST: Final = 1024
"""Characters of a string's beginning that are tried; more would make the cost of a long string quadratic."""


_TAIL = regex.compile(
    r"(?P<all>\^(?:(?!\(\?[=!<>])(?:[^\\\[$]|\\[^bBAZzGKRmMX]|\[(?:[^\]\\]|\\.)++\]))*?"
    r"(?P<unit>\[(?!\]|\^\])(?:[^\]\\]|\\.)++\]|\\[wdsWDS]|\.)[+*])\$?"
).fullmatch
"""A pattern whose last part is one class of characters, repeated without end."""


class PatternTimeout(Exception):
    """A pattern took too long on a finished string."""


class Pattern:
    """One pattern.

    `early`: a beginning can be known to be dead. `lasting`: a match in a beginning stays one, whatever follows.
    `late`: why the pattern is judged at the end of a string only; `None` where `early`.
    """

    __slots__ = ("_banned", "_begin", "_search", "_tail", "_to_tail", "early", "lasting", "late", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._search = regex.compile(source).search
        self._begin = self._search
        self._banned: Any = None
        traits = _traits(source)
        self.lasting = not traits["looks_ahead"]
        self.late: str | None = None
        if not traits["anchored"]:
            self.late = 'it does not begin with "^", so that a match may still come'
        elif traits["unsafe"]:
            split = _split_ban(source)
            if split is None:
                self.late = "it looks around in a way that a beginning cannot answer"
            else:
                self._banned = regex.compile(split[0]).search
                self._begin = regex.compile(split[1]).search
        self.early = self.late is None

        self._tail: Any = None
        self._to_tail: Any = None
        if self.early and self._banned is None and (found := _TAIL(source)) and not _has_bar(source):
            # With its last part repeated without end, what matches so far still does after more of the same.
            self._tail = regex.compile(f"(?:{found['unit']})*+").fullmatch
            self._to_tail = regex.compile(f"(?:{found['all']})\\Z").search

    def in_tail(self, beginning: str) -> bool:
        """Whether the beginning has reached a last part that may repeat without end."""
        try:
            return self._to_tail is not None and self._to_tail(beginning, timeout=TIMEOUT) is not None
        except TimeoutError:
            return False

    def stays(self, more: str) -> bool:
        """Whether a beginning that is `in_tail()` still is after this."""
        return self._tail(more) is not None

    def alive(self, beginning: str) -> bool:
        """Whether some string with this beginning may match. Never wrongly `False`."""
        if not self.early:
            return True
        try:
            if self._banned is not None and self._banned(beginning, timeout=TIMEOUT) is not None:
                return False
            return self._begin(beginning, partial=True, timeout=TIMEOUT) is not None
        except TimeoutError:
            return True

    def certain(self, beginning: str) -> bool:
        """Whether every string with this beginning matches. Never wrongly `True`."""
        if not self.lasting:
            return False
        try:
            return self._search(beginning, timeout=TIMEOUT) is not None
        except TimeoutError:
            return False

    def matches(self, text: str) -> bool:
        """Whether a finished string matches.

        Raises:
            PatternTimeout: it took longer than `TIMEOUT`.
        """
        try:
            return self._search(text, timeout=TIMEOUT) is not None
        except TimeoutError:
            raise PatternTimeout(self.source) from None


@functools.lru_cache(maxsize=4096)
def compile_pattern(source: str) -> Pattern:
    """The pattern, shared.

    Raises:
        regex.error: it does not compile.
    """
    return Pattern(source)


def _traits(source: str) -> dict[str, bool]:
    """What the text of a pattern shows: whether each top-level alternative begins with `^`, whether it looks at what
    follows (an end anchor, a boundary, a lookahead), and whether it has a construct that makes partial matches unsafe.
    In doubt the cautious answer."""
    anchored = True
    looks_ahead = unsafe = False
    depth = i = 0
    at_start = True
    n = len(source)
    while i < n:
        char = source[i]
        if at_start and depth == 0:
            anchored = anchored and (char == "^" or source.startswith("\\A", i))
            at_start = False
        if char == "\\":
            follows = source[i + 1 : i + 2]
            looks_ahead = looks_ahead or follows in "ZzbBmMGXKR"
            unsafe = unsafe or follows in "KGRbBmM"  # a boundary at the end of a beginning is taken for decided
            i += 2
            continue
        if char == "[":
            i = _class_end(source, i)
            continue
        if char == "(":
            depth += 1
            if source.startswith("(?", i) and not source.startswith("(?:", i):
                named = source.startswith(("(?P<", "(?<"), i) and not source.startswith(("(?<=", "(?<!"), i)
                looks_ahead = looks_ahead or not named
                unsafe = unsafe or not (named or source.startswith("(?=", i))
        elif char == ")":
            depth -= 1
        elif char == "$":
            looks_ahead = True
        elif char == "|" and depth == 0:
            at_start = True
        elif char in "+*?}" and source[i + 1 : i + 2] == "+":
            looks_ahead = unsafe = True  # possessive
        elif char == "{" and not source[i + 1 : i + 2].isdigit():
            looks_ahead = unsafe = True  # fuzzy matching, or a literal brace
        i += 1
    return {"anchored": anchored and not at_start, "looks_ahead": looks_ahead, "unsafe": unsafe}


def _class_end(source: str, i: int) -> int:
    """The index after a character class that begins at `i`."""
    j = i + 1
    if source[j : j + 1] == "^":
        j += 1
    if source[j : j + 1] == "]":
        j += 1
    while j < len(source) and source[j] != "]":
        if source.startswith("[:", j) and (end := source.find(":]", j)) > 0:
            j = end + 2
            continue
        j += 2 if source[j] == "\\" else 1
    return j + 1


def _split_ban(source: str) -> tuple[str, str] | None:
    """`^(?!X)Y` as the pattern that must not match, `^(?:X)`, and the one that must, `^Y`; else `None`.

    Only where a match of X stays one, whatever follows, and where the alternatives do not reach around.
    """
    if not source.startswith("^(?!"):
        return None
    depth = 0
    i = 1
    while i < len(source):
        char = source[i]
        if char == "\\":
            i += 2
            continue
        if char == "[":
            i = _class_end(source, i)
            continue
        depth += (char == "(") - (char == ")")
        i += 1
        if depth == 0:
            break
    ban, rest = f"^(?:{source[4 : i - 1]})", "^" + source[i:]
    if _traits(ban)["looks_ahead"] or _traits(rest)["unsafe"] or _has_bar(rest):
        return None
    try:
        regex.compile(ban), regex.compile(rest)
    except regex.error:
        return None
    return ban, rest


def _has_bar(source: str) -> bool:
    """Whether there is an alternative at the top level."""
    return not _traits(source)["anchored"] or "|" in regex.sub(r"\\.|\((?:[^()\\]|\\.|(?R))*\)|\[[^\]]*\]", "", source)
