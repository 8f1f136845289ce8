"""Follows one document and holds its values against the source, character by character.

In charge of which values are grounded, of the first one that is not, and of the sentence that says so. A string dies at
the first character with which it occurs nowhere; a number or a date is judged at its end. `null` and `""` pass, and so
does a value of a kind that an entry is not about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from streamguard.errors import PolicyError, Problem
from streamguard.files.json_pointer import pointer
from streamguard.guards.grounding.dates import dates
from streamguard.guards.grounding.normal_form import NormalForm, normal_form
from streamguard.guards.grounding.numbers import exact, numbers
from streamguard.guards.grounding.search import Search
from streamguard.guards.grounding.source import NoSource, SourceText, SourceTexts
from streamguard.guards.grounding.spec import Grounded
from streamguard.models.following import Failure
from streamguard.viability.syntax.escapes import StringText, spelled
from streamguard.viability.syntax.grammar import ARRAY, NUMBER, STRING
from streamguard.viability.syntax.pieces import Pieces
from streamguard.viability.syntax.quote import quote

REASON: Final = "json.ungrounded"
KNOB: Final = "json.grounded"
_ANY: Final = "*"


class Rule(msgspec.Struct, frozen=True):
    """One entry, with its source."""

    spec: Grounded
    source: SourceText
    form: NormalForm


class _Node:
    """A part of the pointers of all entries."""

    __slots__ = ("below", "every", "rules")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.every: _Node | None = None
        self.rules: list[Rule] = []

    def reach(self, path: Iterable[str]) -> _Node:
        node = self
        for part in path:
            if part == _ANY:
                node.every = node = node.every or _Node()
            else:
                node = node.below.setdefault(part, _Node())
        return node


class Grounding:
    """The entries of a policy for one attempt.

    :param sources: the sources of the call.
    :param observed: whether those count that only observe, instead of the others.
    :raises PolicyError: there is no source.
    """

    def __init__(self, entries: Sequence[Grounded], sources: SourceTexts, *, observed: bool = False) -> None:
        self._root = _Node()
        for index, spec in enumerate(entries):
            if (spec.mode == "observe") != observed:
                continue
            try:
                source = sources.find(spec.in_, spec.between)
            except NoSource as missing:
                at = f"/json/grounded/{index}/in"
                raise PolicyError(
                    Problem(pointer=at, problem=f"values at {spec.at} need a source: {missing}")
                ) from None
            self._root.reach(spec.path).rules.append(Rule(spec, source, normal_form(spec.ignored)))

    def followers(self) -> tuple[GroundingFollower, ...]:
        """Return the state for one document."""
        return (GroundingFollower(self._root),)


class GroundingFollower:
    """The state for one document. A `Follower`.

    :ivar failure: the first value that is not grounded; `None` while there is none.
    """

    __slots__ = ("_keys", "_last", "_nodes", "_number", "_open", "_pieces", "_root", "failure")

    def __init__(self, root: _Node) -> None:
        self.failure: Failure | None = None
        self._root = root
        self._pieces = Pieces()
        self._last = ""
        self._nodes: list[tuple[_Node, ...]] = []
        self._keys: list[str | int | None] = []
        self._open: _OpenString | None = None
        self._number: int | None = None

    def feed(self, text: str) -> None:
        """Take the piece that the scanner is about to be fed."""
        if self._number is None:
            self._pieces.clear()
        self._pieces.append(text)
        self._last = text

    def read(self, until: int) -> None:
        """The scanner has read up to a character: what there is of an open string is looked for."""
        if self._open is not None and self.failure is None:
            self._look(self._open, until)

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        """A value of a kind begins at a character, as the member or item `key`.

        :returns: whether something inside it may have to be grounded.
        """
        nodes: tuple[_Node, ...] = () if self._nodes else (self._root,)
        if self._nodes and self._nodes[-1]:
            name = str(key)
            nodes = tuple(
                below for node in self._nodes[-1] for below in (node.below.get(name), node.every) if below is not None
            )
        self._nodes.append(nodes)
        self._keys.append(key)
        if kind <= ARRAY:
            return any(node.below or node.every is not None for node in nodes)
        if nodes and kind in (STRING, NUMBER):
            rules = [rule for node in nodes for rule in node.rules]
            if kind == STRING and rules:
                self._open = _OpenString(rules, at + 1)
            elif any(rule.spec.as_ == "number" for rule in rules):
                self._number = at
        return False

    def end(self, at: int) -> None:
        """The innermost open value has ended before a character."""
        nodes = self._nodes.pop()
        string, self._open = self._open, None
        number, self._number = self._number, None
        if self.failure is None:
            if string is not None:
                self._close(string, at - 1)
            elif number is not None:
                self._count([rule for node in nodes for rule in node.rules], self._pieces.text(number, at), at)
        self._keys.pop()

    def _look(self, string: _OpenString, until: int) -> None:
        """Look for more of a string."""
        last = self._last
        raw = last if until - string.at == len(last) else self._pieces.text(string.at, until)
        string.at = until
        decoded = string.text.feed(raw)
        dead: int | None = None
        blamed: tuple[Rule, Search] | None = None
        for rule, search in string.searches if decoded else ():
            found = search.feed(decoded if dead is None else decoded[:dead])
            if found is not None:
                dead, blamed = found, (rule, search)
        if blamed is None or dead is None:
            string.parts.append(decoded)
            return
        begin = until - string.text.pending - len(string.text.raw)
        self._missing(string, decoded, dead, blamed, begin + spelled(string.text.raw, dead + 1) - 1)

    def _close(self, string: _OpenString, end: int) -> None:
        """The string has ended before its closing quote, the character `end`."""
        self._look(string, end)
        if self.failure is not None:
            return
        rest = string.text.finish()
        for rule, search in string.searches:
            dead = search.feed(rest) if rest else None
            if dead is not None:
                self._missing(string, rest, dead, (rule, search), end)
                return
            if not search.finish():
                self._cut_off(string.whole + rest, rule, search, end)
                return
        string.parts.append(rest)
        whole = string.whole
        if not whole.strip():
            return
        for rule in string.rules:
            if rule.spec.as_ == "number":
                self._spelled_number(rule, whole, end)
            elif rule.spec.as_ == "date":
                self._date(rule, whole, end)
            if self.failure is not None:
                return

    def _count(self, rules: Sequence[Rule], text: str, at: int) -> None:
        """A JSON number has ended before a character."""
        value = exact(text)
        for rule in rules:
            if rule.spec.as_ == "number" and (value is None or not _has(rule, (value,))):
                self._no_number(rule, text[:60], value, at)
                return

    def _spelled_number(self, rule: Rule, text: str, at: int) -> None:
        values = numbers(text)
        if not values:
            self._fail(f"{quote(text)} is no number, and as: number compares numbers", "", at)
        elif not _has(rule, values):
            self._no_number(rule, quote(text, 60), min(values), at)

    def _no_number(self, rule: Rule, text: str, value: Decimal | None, at: int) -> None:
        nearest = None if value is None else rule.source.numbers.nearest(value)
        near = "it has no number at all" if nearest is None else f"the nearest it has is {nearest:f}"
        within = f" within {rule.spec.tolerance:g}" if rule.spec.tolerance else ""
        self._fail(f"the source has no number {text}{within}: {near}", "", at)

    def _date(self, rule: Rule, text: str, at: int) -> None:
        found = dates(text)
        days = {date for date in found if date[2]} or found
        if not found:
            self._fail(f"{quote(text)} is no date, and as: date compares dates", "", at)
        elif not days & rule.source.dates:
            self._fail(f"the source has no date that is {quote(text)}, however it is written", "", at)

    def _missing(self, string: _OpenString, decoded: str, dead: int, blamed: tuple[Rule, Search], at: int) -> None:
        """A string occurs nowhere from its character `dead` on, of those just decoded."""
        rule, search = blamed
        found = string.whole + decoded[:dead]
        seen = quote((string.whole + decoded[: dead + 1])[-60:], 80)
        said = f"nowhere in the source stands {seen}"
        if search.length:
            said += f": it has {quote(found[-60:], 80)}, in {quote(_around(rule, search), 160)}"
        self._fail(said, found, at)

    def _cut_off(self, text: str, rule: Rule, search: Search, at: int) -> None:
        """A string occurs, but ends where the source's word or character goes on."""
        where = quote(_around(rule, search), 160)
        what = "as whole words" if rule.spec.edges == "word" else "by itself"
        self._fail(f"{quote(text[-60:], 80)} does not stand in the source {what}: it has {where}", text, at)

    def _fail(self, message: str, found: str, at: int) -> None:
        path = [key for key in self._keys if key is not None]
        self.failure = Failure(message, pointer(path), "grounded", at, reason=REASON, knob=KNOB, observed=found or None)


class _OpenString:
    """A string that is being looked for."""

    __slots__ = ("at", "parts", "rules", "searches", "text")

    def __init__(self, rules: Sequence[Rule], at: int) -> None:
        self.rules = rules
        self.at = at
        """The next character that was not looked at."""
        self.text = StringText()
        self.parts: list[str] = []
        self.searches = [
            (rule, Search(rule.source.in_form(rule.form), rule.form, edges=rule.spec.edges))
            for rule in rules
            if rule.spec.as_ == "text"
        ]

    @property
    def whole(self) -> str:
        """The string so far, decoded."""
        return "".join(self.parts)


def _has(rule: Rule, values: Iterable[Decimal]) -> bool:
    """Whether the source has one of the numbers."""
    found, slack = rule.source.numbers, rule.spec.slack
    signless = "sign" in rule.spec.ignore
    return any(found.near(value, slack) or (signless and found.near(value.copy_negate(), slack)) for value in values)


def _around(rule: Rule, search: Search) -> str:
    return rule.source.around(rule.form, search.at, search.length)
