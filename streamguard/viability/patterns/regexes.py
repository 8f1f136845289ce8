"""Patterns of a schema: read as `re` reads them, searched by `regex`, and asked what a beginning of a string decides.

In charge of: Python's search semantics with a time limit for finished strings, and for beginnings an automaton where
the pattern is regular, else a search of what there is, where a partial match can be trusted. The final judge uses the
same call, so that both say the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from re import _constants as sre  # type: ignore[attr-defined]  # re has no public name for its parser
from typing import Any, Final

import regex

from streamguard.viability.patterns.automaton import Automaton
from streamguard.viability.patterns.ecma import Dialect, translated
from streamguard.viability.patterns.python_regex import (
    Items,
    PatternError,
    Writer,
    inner_flags,
    is_known,
    parts,
    read,
    uses_categories,
)
from streamguard.viability.patterns.regex_tree import NotRegular

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

MAX_WALKED: Final = 128
"""Characters of a finished string that the automaton follows; from there on a search is cheaper."""

_UNANCHORED: Final = 'it does not begin with "^", so that a match may still come'


class PatternTimeout(Exception):
    """A pattern took too long on a finished string."""


class Pattern:
    """One pattern.

    `automaton`: follows it character by character, where that can be done; otherwise beginnings are searched anew.
    `early`: a beginning can be known to be dead. `lasting`: a match in a beginning stays one, whatever follows.
    `late`: why the pattern is judged at the end of a string only; `None` where `early`.

    :raises PatternError: it does not compile.
    """

    __slots__ = (
        "_ascii",
        "_banned",
        "_begin",
        "_exact",
        "_parsed",
        "_unicode",
        "_varies",
        "automaton",
        "early",
        "lasting",
        "late",
        "source",
    )

    def __init__(self, source: str, dialect: Dialect = "python") -> None:
        self.source = source
        self._parsed = parsed = read(source if dialect == "python" else translated(source))
        self._ascii = self._unicode = self._exact = None
        self._varies = uses_categories(parsed.items, parsed.flags)
        """Whether what a set holds depends on how much Unicode the engine knows."""
        if self._varies:
            self._ascii = self._compiled(ascii_text=True)
        else:
            self._ascii = self._unicode = self._exact = self._compiled()
        self._begin: Any = None
        self._banned: Any = None
        self.late: str | None = None
        try:
            self.automaton: Automaton | None = Automaton(parsed)
        except (NotRegular, RecursionError):
            self.automaton = None
        if self.automaton is not None:
            self.lasting = self.automaton.lasting
            if not self.automaton.anchored:
                self.late = _UNANCHORED
        else:
            self._look()
        self.early = self.late is None

    def _compiled(self, items: Any = None, **which: bool) -> Any:
        """The search function for all of the pattern, or for some parts of it."""
        parsed = self._parsed
        try:
            written = Writer(parsed, **which).write(parsed.items if items is None else items, parsed.flags)
            return regex.compile(written).search
        except (regex.error, RecursionError, OverflowError) as error:
            raise PatternError(f"it is too deep or too large: {error}") from None

    def _look(self) -> None:
        items = list(self._parsed.items)
        traits = Traits(items, self._parsed.flags)
        self.lasting = not traits.looks_ahead
        if not _is_anchored(items, self._parsed.flags):
            self.late = _UNANCHORED
            return
        if not traits.unsafe:
            self._begin = self._unicode = self._unicode or self._compiled()
            return
        # `^(?!X)Y`: X must not match, and `^Y` must.
        begin, *rest = items
        if rest and rest[0][0] is sre.ASSERT_NOT and rest[0][1][0] > 0:
            ban = list(rest[0][1][1])
            flags = self._parsed.flags
            if not Traits(ban, flags).looks_ahead and not Traits(rest[1:], flags).unsafe:
                self._banned = self._compiled([begin, *ban])
                self._begin = self._compiled([begin, *rest[1:]])
                return
        self.late = "it looks around in a way that a beginning cannot answer"

    def _search(self, text: str) -> Any:
        """The search function for a text, which may have to know more of Unicode or less."""
        if text.isascii():
            return self._ascii
        if self._unicode is None:
            self._unicode = self._compiled()
        if not self._varies or is_known(text):
            return self._unicode
        if self._exact is None:
            self._exact = self._compiled(exact=True)
        return self._exact

    def alive(self, beginning: str) -> bool:
        """Whether some string with this beginning may match. Never wrongly `False`."""
        if not self.early:
            return True
        if self.automaton is not None:
            return self.automaton.run(beginning).alive
        if self._varies and not beginning.isascii() and not is_known(beginning):
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
        if self.automaton is not None:
            return self.automaton.run(beginning).sure
        try:
            return self._search(beginning)(beginning, timeout=TIMEOUT) is not None
        except TimeoutError:
            return False

    def matches(self, text: str) -> bool:
        """Whether a finished string matches.

        :raises PatternTimeout: it took longer than `TIMEOUT`.
        """
        if self.automaton is not None and len(text) <= MAX_WALKED and text.isascii():
            # A third of the price of a search with a time limit, and it cannot run away.
            state = self.automaton.run(text)
            if state.known:
                return state.ends
        try:
            return retry_timeout(self._search(text), text, timeout=TIMEOUT) is not None
        except TimeoutError:
            if self.automaton is None or not (state := self.automaton.run(text)).known:
                raise PatternTimeout(self.source) from None
            return state.ends


@functools.lru_cache(maxsize=4096)
def compile_pattern(source: str, dialect: Dialect = "python") -> Pattern:
    """The pattern, shared.

    :raises PatternError: it does not compile.
    """
    return Pattern(source, dialect)


class Traits:
    """What parts of a pattern look at beyond the characters that they take."""

    __slots__ = ("looks_ahead", "unsafe")

    def __init__(self, items: Items, flags: int) -> None:
        self.looks_ahead = False
        """Whether at what follows: an end, a boundary, a look-ahead. A match may then not stay one."""
        self.unsafe = False
        """Whether at something that a partial match of `regex` takes for decided where it is not."""
        todo = [(items, flags)]
        while todo:
            some, flags = todo.pop()
            for item in some:
                op, arg = item
                looks = op is sre.ASSERT and arg[0] > 0
                ends = op is sre.AT and arg in (sre.AT_END, sre.AT_END_STRING)
                lines = op is sre.AT and flags & re.MULTILINE and arg in (sre.AT_BEGINNING, sre.AT_END)
                odd = lines or op in _ODD or (op is sre.ASSERT and not looks)
                odd = odd or (op is sre.AT and arg in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY))
                self.looks_ahead = bool(self.looks_ahead or looks or ends or odd)
                self.unsafe = bool(self.unsafe or odd)
                todo += [(part, inner_flags(item, flags)) for part in parts(item)]


_ODD: Final = (sre.ASSERT_NOT, sre.ATOMIC_GROUP, sre.POSSESSIVE_REPEAT, sre.GROUPREF_EXISTS, sre.FAILURE)


def _is_anchored(items: Any, flags: int) -> bool:
    """Whether every match begins at the beginning of the text."""
    for item in items:
        op, arg = item
        if op is sre.AT and (arg is sre.AT_BEGINNING_STRING or (arg is sre.AT_BEGINNING and not flags & re.MULTILINE)):
            return True
        if op is sre.BRANCH:
            return all(_is_anchored(option, flags) for option in arg[1])
        if op is sre.SUBPATTERN:
            return _is_anchored(arg[3], inner_flags(item, flags))
        return False
    return False
