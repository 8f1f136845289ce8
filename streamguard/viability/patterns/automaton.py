"""Follows a pattern through a string, character by character, at a constant cost each.

In charge of: whether a beginning can still match, whether it matches whatever follows, and how many characters it
lacks at the least. States are made as they are met (a deterministic automaton, built lazily from a nondeterministic
one), and shared by all strings. What a class of characters holds is asked of `re`, whose dialect patterns are in.
Does not know escapes or schemas.
"""

from __future__ import annotations

import functools
import math
import re
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import regex

from streamguard.viability.patterns.python_regex import Parsed
from streamguard.viability.patterns.regex_tree import (
    Chars,
    Either,
    End,
    NotRegular,
    Repeat,
    Sequence,
    anchored,
    spans,
    starts_inside,
    tree_of,
)

MOST_PARTS: Final = 4_000
"""Parts of one automaton, repetitions written out. With more, every step could cost too much."""
MOST_AT_ONCE: Final = 256
"""Parts that one string may be in at once; in more, it is followed no further."""
_KEPT: Final = 2_000
"""States, and per state characters, that are remembered."""

_DONE, _END, _END_OR_NEWLINE = range(3)
"""The first parts: matched, whatever follows; matched at the end of the text; or before a newline that ends it."""
_ANY: Final = -1
_WIDE: Final = 70_000
"""Characters that are looked through for one of a class; of more, some are taken to be in it."""


class State:
    """How far a string has got."""

    __slots__ = ("alive", "ends", "known", "lacking", "parts", "seen", "sure")

    def __init__(self, parts: frozenset[int], lacking: float) -> None:
        self.parts = parts
        self.known = len(parts) <= MOST_AT_ONCE
        """Whether it is followed from here; otherwise it stays alive, and nothing is known of it."""
        self.alive = bool(parts)
        """Whether some continuation matches."""
        self.sure = _DONE in parts
        """Whether every continuation matches."""
        self.ends = self.known and not parts.isdisjoint((_DONE, _END, _END_OR_NEWLINE))
        """Whether the string matches if it ends here, where that is known."""
        self.lacking = lacking
        """Characters that must follow at the least; infinite if it is dead."""
        self.seen: dict[str, State] = {}


class Automaton:
    """One pattern.

    :raises NotRegular: a pattern that looks around or back, or is not understood, or too large.
    """

    __slots__ = (
        "_classes",
        "_edges",
        "_empty",
        "_holding",
        "_lacking",
        "_states",
        "_tests",
        "_wide",
        "anchored",
        "lasting",
        "longest",
        "shortest",
        "start",
    )

    def __init__(self, parsed: Parsed) -> None:
        tree = tree_of(parsed)
        self.anchored = anchored(tree)
        """Whether a beginning can be dead: otherwise a match may always come."""
        if not self.anchored and starts_inside(tree):
            raise NotRegular
        low, high = spans(tree)
        self.shortest: float = low
        """Characters of the shortest string that matches."""
        self._classes: dict[str, int] = {}
        self._tests: list[Any] = []
        self._wide: list[bool] = []  # per class, whether it may hold characters beyond U+FFFF
        self._empty: list[list[int]] = [[], [], []]  # per part: where it leads without a character
        self._edges: list[tuple[int, int] | None] = [None, None, None]  # per part: the class it takes, and where to
        first = self._build(tree, _DONE)
        if not self.anchored:
            loop = self._part()
            first = self._part(loop, first)
            self._edges[loop] = (_ANY, first)
        reached = self._closure([first], all_edges=True)
        self.lasting = _DONE in reached
        """Whether a beginning can be certain to match."""
        self.longest: float = math.inf if self.lasting or not self.anchored else high
        """Characters of the longest string that matches."""
        self._lacking = self._distances()
        self._holding: dict[str, frozenset[int]] = {}  # the classes that hold a character
        self._states: dict[frozenset[int], State] = {}
        self.start = self._state(self._closure([first]))

    # -- building ------------------------------------------------------------------------------------------------------

    def _part(self, *leads: int) -> int:
        if len(self._edges) >= MOST_PARTS:
            raise NotRegular
        self._empty.append(list(leads))
        self._edges.append(None)
        return len(self._edges) - 1

    def _build(self, tree: Any, then: int) -> int:
        """The part where the tree begins, if `then` follows it."""
        match tree:
            case Chars(source, wide, of_regex):
                if source not in self._classes:
                    self._classes[source] = len(self._tests)
                    self._tests.append(regex.compile(source) if of_regex else re.compile(source))
                    self._wide.append(wide)
                part = self._part()
                self._edges[part] = (self._classes[source], then)
                return part
            case Sequence(parts):
                for inner in reversed(parts):
                    then = self._build(inner, then)
                return then
            case Either(options):
                return self._part(*[self._build(option, then) for option in options])
            case Repeat(inner, least, most):
                after = then
                if most is None:
                    then = self._part(after)
                    self._empty[then].append(self._build(inner, then))
                else:
                    for _ in range(most - least):
                        then = self._part(after, self._build(inner, then))
                for _ in range(least):
                    then = self._build(inner, then)
                return then
            case End(newline):
                return _END_OR_NEWLINE if newline else _END
        return then  # the beginning, where we are

    def _closure(self, parts: Iterable[int], *, all_edges: bool = False) -> frozenset[int]:
        """What is reached without a character (or with any), of it what waits for one and what has matched."""
        todo = list(parts)
        found: set[int] = set(todo)
        while todo:
            part = todo.pop()
            leads = self._empty[part]
            edge = self._edges[part]
            if all_edges and edge is not None:
                leads = [*leads, edge[1]]
            for lead in leads:
                if lead not in found:
                    found.add(lead)
                    todo.append(lead)
        return frozenset(part for part in found if part <= _END_OR_NEWLINE or self._edges[part] is not None)

    def _distances(self) -> list[float]:
        """Characters from each part to a match, at the least."""
        before: list[list[tuple[int, int]]] = [[] for _ in self._edges]
        for part, leads in enumerate(self._empty):
            for lead in leads:
                before[lead].append((part, 0))
        for part, edge in enumerate(self._edges):
            if edge is not None:
                before[edge[1]].append((part, 1))
        found: list[float] = [math.inf] * len(self._edges)
        todo = deque((part, 0) for part in (_DONE, _END, _END_OR_NEWLINE))
        while todo:
            part, far = todo.popleft()
            if far >= found[part]:
                continue
            found[part] = far
            for earlier, step in before[part]:
                (todo.append if step else todo.appendleft)((earlier, far + step))
        return found

    def _state(self, parts: frozenset[int]) -> State:
        if _DONE in parts:
            parts = frozenset((_DONE,))
        state = self._states.get(parts)
        if state is None:
            if len(self._states) >= _KEPT:
                self._states.clear()
            least = min((self._lacking[part] for part in parts), default=math.inf)
            state = State(parts, least if len(parts) <= MOST_AT_ONCE else 0)
            self._states[parts] = state
        return state

    # -- following -----------------------------------------------------------------------------------------------------

    def run(self, text: str, state: State | None = None) -> State:
        """The state after more text; from the start if none is given."""
        state = self.start if state is None else state
        for char in text:
            after = state.seen.get(char)
            state = self._step(state, char) if after is None else after
        return state

    def _step(self, state: State, char: str) -> State:
        if state.sure or not state.alive or not state.known:
            return state
        classes = self._holding.get(char)
        if classes is None:
            if len(self._holding) >= _KEPT:
                self._holding.clear()
            classes = frozenset((_ANY, *(i for i, test in enumerate(self._tests) if test.match(char) is not None)))
            self._holding[char] = classes
        reached = []
        for part in state.parts:
            edge = self._edges[part]
            if edge is not None and edge[0] in classes:
                reached.append(edge[1])
        if char == "\n" and _END_OR_NEWLINE in state.parts:
            reached.append(_END)
        after = self._state(self._closure(reached))
        if len(state.seen) >= _KEPT:
            state.seen.clear()
        state.seen[char] = after
        return after

    def takes(self, state: State, first: int, last: int) -> bool:
        """Whether some character from code point `first` to `last` may follow. In doubt it may."""
        if state.sure or not state.known:
            return True
        if _END_OR_NEWLINE in state.parts and first <= 10 <= last:
            return True
        classes = {edge[0] for part in state.parts if (edge := self._edges[part]) is not None}
        if _ANY in classes:
            return True
        if last - first >= _WIDE:
            return any(first < 0x10000 or self._wide[i] for i in classes)
        block = _block(first, last)
        return any(self._tests[i].search(block) is not None for i in classes)


@functools.lru_cache(maxsize=64)
def _block(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))
