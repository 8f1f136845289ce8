"""An unfinished string: what is known of it, and what a conjunction of string keywords says to that.

In charge of: escapes cut anywhere, surrogate pairs, lengths in code points, candidates, patterns and formats. Strings
are compared in UTF-16 units, since that is what escapes spell. Does not know schemas beyond the atoms it is given.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable
from typing import Final

from streamguard.viability.patterns.automaton import Automaton, State
from streamguard.viability.patterns.formats import Format
from streamguard.viability.patterns.regexes import MAX_SEARCHED, Pattern, PatternTimeout
from streamguard.viability.schema.nodes import Atom, Sources
from streamguard.viability.schema.protocols import Beside
from streamguard.viability.syntax.escapes import unfinished
from streamguard.viability.syntax.protocol import decode

_LOW = re.compile(r"\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]*)?)?)?\Z").match
_HIGH_LENGTH: Final = 6
_LAST: Final = "\U0010ffff"
"""Sorts after every unit."""


def units(text: str) -> str:
    """The text as UTF-16 units, each a character."""
    if text.isascii() or max(text) <= "\uffff":
        return text
    return "".join(
        char if char <= "\uffff" else chr(0xD7C0 + (ord(char) >> 10)) + chr(0xDC00 + (ord(char) & 0x3FF))
        for char in text
    )


class Text:
    """A string or name so far.

    `head`: its first characters, decoded, as far as anything asks for them. `least`: code points it has at the least,
    an escape that has begun included. `pending`: raw text at the end that is no finished character, an escape or a high
    surrogate that a low one may join.
    """

    __slots__ = ("_most", "_units", "exact", "head", "last", "least", "parts", "pending")

    def __init__(self, most: int = MAX_SEARCHED) -> None:
        self._most = most
        self._units: str | None = ""
        self.head = ""
        self.last = ""  # what the latest piece added, decoded
        self.least = 0
        self.parts: list[str] = []
        self.pending = ""
        self.exact = 0  # code points decoded

    def feed(self, raw: str) -> None:
        self.parts.append(raw)
        if self.pending or "\\" in raw:
            raw = self.pending + raw
            self.pending = pending = unfinished(raw)
            raw = decode(raw[: len(raw) - len(pending)])
            self.exact += len(raw)
            self.least = self.exact + (self._least_pending() if pending else 0)
        else:
            self.least = self.exact = self.exact + len(raw)
        self.last = raw
        if len(self.head) <= self._most:
            self.head += raw
            self._units = None

    def _least_pending(self) -> int:
        escape = self.pending
        if len(escape) < _HIGH_LENGTH:
            return 1
        rest = escape[_HIGH_LENGTH:]
        return 2 if rest and not _LOW(rest) else 1

    def whole(self) -> str:
        """All of it, decoded, but for what is pending."""
        if self.complete_head:
            return self.head
        raw = "".join(self.parts)
        return decode(raw[: len(raw) - len(self.pending)])

    def without_last(self) -> Text:
        """The same before the latest piece."""
        text = Text(self._most)
        if before := "".join(self.parts[:-1]):
            text.feed(before)
        return text

    def finish(self) -> str:
        return decode("".join(self.parts))

    @property
    def complete_head(self) -> bool:
        """Whether `head` is all there is but for what is pending."""
        return len(self.head) == self.exact

    def extends(self, candidates: Iterable[str]) -> list[str]:
        """Those of the candidates, in units, that the text may still become."""
        so_far, digits = self.spelled()
        if not self.complete_head:
            return [c for c in candidates if len(c) > self._most and c.startswith(so_far)]
        found = [c for c in candidates if c.startswith(so_far)]
        return found if digits is None else [c for c in found if fits(c, len(so_far), digits)]

    def spelled(self) -> tuple[str, str | None]:
        """The head in units, a high surrogate at its end included; and the hexadecimal digits so far of one more unit
        that must follow, `None` if none must."""
        so_far = self._units
        if so_far is None:
            so_far = self._units = units(self.head)
        escape = self.pending
        if not escape:
            return so_far, None
        if len(escape) >= _HIGH_LENGTH:
            so_far += chr(int(escape[2:_HIGH_LENGTH], 16))
            escape = escape[_HIGH_LENGTH:]
        return so_far, escape[2:].lower() if escape else None


def fits(candidate: str, at: int, digits: str) -> bool:
    """Whether the candidate has a unit there that begins with these hexadecimal digits."""
    return len(candidate) > at and f"{ord(candidate[at]):04x}".startswith(digits)


class StringAlt:
    """A conjunction of string keywords. `None` as candidates: any string."""

    __slots__ = (
        "banned",
        "bans",
        "candidates",
        "follows",
        "formats",
        "hi",
        "lo",
        "no_formats",
        "no_patterns",
        "order",
        "patterns",
        "searched",
        "sources",
        "subs",
        "trivial",
        "wants_value",
        "watches",
    )

    def __init__(self) -> None:
        self.lo: float = 0
        self.hi: float = math.inf
        self.candidates: dict[str, str] | None = None  # units → text
        self.order: list[str] = []  # the candidates in units, sorted
        self.banned: set[str] = set()
        self.patterns: list[tuple[Pattern, Atom]] = []
        self.no_patterns: list[tuple[Pattern, Atom]] = []
        self.formats: list[tuple[Format, Atom]] = []
        self.no_formats: list[tuple[Format, Atom]] = []
        self.subs: tuple[Beside, ...] = ()
        self.sources = Sources()  # what set `lo`, `hi`, `candidates`, `banned`
        self.wants_value = False
        self.trivial = False
        self.follows: list[tuple[Automaton, Atom]] = []  # what must match, character by character
        self.bans: list[tuple[Automaton, Atom]] = []  # what must not
        self.searched: list[tuple[Pattern, Atom, bool]] = []  # patterns without automaton; whether they must match
        self.watches = False  # whether a beginning is looked at

    def settle(self) -> bool:
        """Filter the candidates by everything else; whether any string is left, as far as one can tell."""
        if self.hi < self.lo:
            return False
        if self.hi <= 0 and self.candidates is None:
            self.candidates = {"": ""}
            self.sources["candidates"] = self.sources["hi"]
        if self.candidates is not None:
            self.candidates = {u: text for u, text in self.candidates.items() if self.failing(text) is None}
            self.order = sorted(self.candidates)
            return bool(self.candidates)
        short = self.hi < math.inf  # then what is still lacking may not fit
        asked = [(p, source, True) for p, source in self.patterns if p.early or (short and p.automaton is not None)]
        asked += [(form.prefix, source, True) for form, source in self.formats if form.prefix is not None]
        asked += [(p, source, False) for p, source in self.no_patterns if p.lasting]
        for pattern, source, wanted in asked:
            if pattern.automaton is None:
                self.searched.append((pattern, source, wanted))
            else:
                (self.follows if wanted else self.bans).append((pattern.automaton, source))
        for pattern, _ in self.patterns:
            if pattern.automaton is not None and (
                pattern.automaton.shortest > self.hi or pattern.automaton.longest < self.lo
            ):
                return False
        self.watches = bool(asked)
        self.trivial = not (
            self.lo or self.hi < math.inf or self.banned or self.patterns or self.no_patterns or self.formats
            or self.no_formats or self.subs
        )  # fmt: skip
        return True

    def dead(self, text: Text, state: StringState) -> Atom | None:
        """What kills the beginning, or `None`."""
        if self.trivial:
            return None
        if self.candidates is not None:
            return None if state.narrow(text) else self.sources["candidates"]
        if text.least > self.hi:
            return self.sources["hi"]
        return self._watched(text, state) if self.watches else None

    def _watched(self, text: Text, state: StringState) -> Atom | None:
        more = text.last
        begin = text.exact - len(more)
        before = state.at.get(begin)
        if before is None:  # it begins, or more was taken back than one piece
            before, more = [automaton.start for automaton, _ in (*self.follows, *self.bans)], text.whole()
        at: list[State] = []
        for automaton, source in self.follows:
            now = automaton.run(more, before[len(at)])
            if not now.alive:
                return source
            if text.exact + now.lacking > self.hi:
                return self.sources["hi"]
            if text.pending and not _takes(automaton, now, text.pending):
                return source
            at.append(now)
        for automaton, source in self.bans:
            now = automaton.run(more, before[len(at)])
            if now.sure:
                return source
            at.append(now)
        state.at = {begin: before, text.exact: at}
        if self.searched and text.exact <= MAX_SEARCHED:
            for pattern, source, wanted in self.searched:
                if not wanted:
                    if pattern.certain(text.head):
                        return source
                elif not begins(pattern, text):
                    return source
        return None

    def failing(self, text: str) -> Atom | None:
        """What a finished string violates, or `None`."""
        if self.candidates is not None and units(text) not in self.candidates:
            return self.sources["candidates"]
        if text in self.banned:
            return self.sources["banned"]
        if len(text) > self.hi:
            return self.sources["hi"]
        if len(text) < self.lo:
            return self.sources["lo"]
        for pattern, source in self.patterns:
            try:
                if not pattern.matches(text):
                    return source
            except PatternTimeout:
                return source
        for pattern, source in self.no_patterns:
            try:
                if pattern.matches(text):
                    return source
            except PatternTimeout:
                continue
        for form, source in self.formats:
            if not form.check(text):
                return source
        for form, source in self.no_formats:
            if form.check(text):
                return source
        return None


class StringState:
    """How far one string has got with one alternative: which candidates are left, as a range of the sorted ones."""

    __slots__ = ("_from", "_taken", "_to", "alt", "at", "subs")

    def __init__(self, alt: StringAlt, taken: Container[object] = ()) -> None:
        self.alt = alt
        self.subs: tuple[object, ...] = ()
        self._taken = taken  # texts that may not come again
        self._from = 0
        self._to = len(alt.order)
        self.at: dict[int, list[State]] = {}  # characters passed → where the automata of `follows` and `bans` were

    def reset(self) -> None:
        """The latest piece is taken back."""
        self._from, self._to = 0, len(self.alt.order)

    def narrow(self, text: Text) -> bool:
        """Drop the candidates that the text has left behind; whether any remains."""
        order = self.alt.order
        so_far, digits = text.spelled()
        if not text.complete_head:  # longer than all of them
            return False
        self._from = bisect_left(order, so_far, self._from, self._to)
        self._to = bisect_right(order, so_far + _LAST, self._from, self._to)
        if digits is None and not self._taken:
            return self._from < self._to
        return self.possible(len(so_far), digits)

    def left(self) -> list[str]:
        """The candidates left that may come."""
        candidates = self.alt.candidates or {}
        found = (candidates[unit] for unit in self.alt.order[self._from : self._to])
        return [text for text in found if text not in self._taken]

    def possible(self, at: int = 0, digits: str | None = None) -> bool:
        """Whether a candidate is left that may come, and has such a unit there."""
        candidates = self.alt.candidates
        if candidates is None:
            return True
        return any(
            (digits is None or fits(unit, at, digits)) and candidates[unit] not in self._taken
            for unit in self.alt.order[self._from : self._to]
        )


def begins(pattern: Pattern, text: Text) -> bool:
    """Whether a string with this beginning, which `text.head` holds, may match. Never wrongly `False`."""
    head = text.head
    if not pattern.early:
        return True
    if pattern.automaton is None:
        return pattern.alive(head) and _escape_alive(pattern, head, text.pending)
    state = pattern.automaton.run(head)
    return state.alive and not (text.pending and not _takes(pattern.automaton, state, text.pending))


def _takes(automaton: Automaton, state: State, pending: str) -> bool:
    """Whether an escape that has begun, or a high surrogate that a low one may join, can become what may follow."""
    if len(pending) >= _HIGH_LENGTH:
        high = int(pending[2:_HIGH_LENGTH], 16)
        rest = pending[_HIGH_LENGTH:]
        lone = automaton.run(chr(high), state)
        if rest and not _LOW(rest):
            return lone.alive and _takes(automaton, lone, rest)
        digits = rest[2:].lower()
        lows = [low for low in range(0xDC00, 0xE000, 0x100) if f"{low:04x}".startswith(digits[:2])]
        first, last = lows[0], lows[-1] + 0xFF
        if len(digits) > 2:
            first = int(digits.ljust(4, "0"), 16)
            last = int(digits.ljust(4, "f"), 16)
        base = 0x10000 + ((high - 0xD800) << 10) - 0xDC00
        if automaton.takes(state, base + first, base + last):
            return True
        # Not joined: the high one stands alone, and something else follows or the string ends.
        return lone.alive and len(digits) < 2 and (not rest or _takes(automaton, lone, rest))
    digits = pending[2:]
    if not digits:
        return automaton.takes(state, 0, 0x10FFFF)
    first = int(digits.ljust(4, "0"), 16)
    last = int(digits.ljust(4, "f"), 16)
    if automaton.takes(state, first, last):
        return True
    highs = range(max(first, 0xD800), min(last, 0xDBFF) + 1)
    return bool(highs) and automaton.takes(
        state, 0x10000 + ((highs[0] - 0xD800) << 10), 0x10000 + ((highs[-1] - 0xD800) << 10) + 0x3FF
    )


def _escape_alive(pattern: Pattern, head: str, pending: str) -> bool:
    """Whether an escape that has begun can still be a character that the pattern takes. Tried for two hexadecimal
    digits and more (at most 256 characters); below that anything may come."""
    if len(pending) < 4 or len(pending) >= _HIGH_LENGTH:  # a lone or joining surrogate is seen when it is known
        return True
    digits = pending[2:]
    if digits[:2].lower() in ("d8", "d9", "da", "db"):
        return True
    first = int(digits.ljust(4, "0"), 16)
    last = int(digits.ljust(4, "f"), 16)
    return any(pattern.alive(head + chr(code)) for code in range(first, last + 1))
