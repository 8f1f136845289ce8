"""Patterns of a schema: compiled once with `regex`, and asked what a beginning of a string already decides.

In charge of: Python's search semantics with a time limit for finished strings, and for beginnings an automaton where
the pattern is regular, else a search of what there is, where a partial match can be trusted. The final judge uses the
same call, so that both say the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import regex

from streamguard.viability.patterns.automaton import Automaton
from streamguard.viability.patterns.regex_tree import NotRegular, class_end

TRIES: Final = 3
"""How often a search is tried. Whoever has lost the processor three times in a row for longer than the search may take
has other worries."""


def retry_timeout(search: Callable[..., Any], *args: Any, timeout: float) -> Any:
    """`search(*args, timeout=…)`, tried again if it runs out of time.

    :raises TimeoutError: it ran out of time each time.
    """
    for _ in range(TRIES - 1):
        try:
            return search(*args, timeout=timeout)
        except TimeoutError:
            continue
    return search(*args, timeout=timeout)


TIMEOUT: Final = 0.05
"""Seconds for one search. Beyond it a pattern counts as matched by a beginning, and fails a finished string."""

MAX_SEARCHED: Final = 1024
"""Characters of a string's beginning that are tried where there is no automaton; more would make the cost of a long
string quadratic."""


_UNANCHORED: Final = 'it does not begin with "^", so that a match may still come'


class PatternTimeout(Exception):
    """A pattern took too long on a finished string."""


class Pattern:
    """One pattern.

    `automaton`: follows it character by character, where that can be done; otherwise beginnings are searched anew.
    `early`: a beginning can be known to be dead. `lasting`: a match in a beginning stays one, whatever follows.
    `late`: why the pattern is judged at the end of a string only; `None` where `early`.
    """

    __slots__ = ("_banned", "_begin", "_search", "automaton", "early", "lasting", "late", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._search = regex.compile(source).search
        self._begin = self._search
        self._banned: Any = None
        self.late: str | None = None
        try:
            self.automaton: Automaton | None = Automaton(source)
        except (NotRegular, RecursionError):
            self.automaton = None
        if self.automaton is not None:
            self.lasting = self.automaton.lasting
            if not self.automaton.anchored:
                self.late = _UNANCHORED
        else:
            self._look(source)
        self.early = self.late is None

    def _look(self, source: str) -> None:
        traits = _traits(source)
        self.lasting = not traits["looks_ahead"]
        if not traits["anchored"]:
            self.late = _UNANCHORED
        elif traits["unsafe"]:
            split = _split_ban(source)
            if split is None:
                self.late = "it looks around in a way that a beginning cannot answer"
            else:
                self._banned = regex.compile(split[0]).search
                self._begin = regex.compile(split[1]).search

    def alive(self, beginning: str) -> bool:
        """Whether some string with this beginning may match. Never wrongly `False`."""
        if not self.early:
            return True
        if self.automaton is not None:
            return self.automaton.run(beginning).alive
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
        if self.automaton is not None:
            return self.automaton.run(beginning).sure
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
            if retry_timeout(self._search, text, timeout=TIMEOUT) is not None:
                return True
        except TimeoutError:
            if self.automaton is None or not (state := self.automaton.run(text)).known:
                raise PatternTimeout(self.source) from None
            return state.ends
        # regex takes `[^a]|[^b]` for `[^ab]`: a no gets a second opinion.
        return self.automaton is not None and self.automaton.run(text).ends


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
            i = class_end(source, i)
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
            i = class_end(source, i)
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
