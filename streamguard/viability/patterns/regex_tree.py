"""Reads a regular expression, as far as it is one in the narrow sense: what it accepts is a regular language.

In charge of: telling those patterns from the ones that look around or back, and taking them apart. Classes are not
understood, only cut out: what character they hold is asked of `regex` itself, so that both mean the same. A pattern
that is not understood to the last character is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

MOST_REPEATS: Final = 1024
"""Repetitions of one part that are written out."""

_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]+)(?:(,)([0-9]*))?\})(\??)").match
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?|\*))").match
_CLASS_ESCAPE = re.compile(
    r"\\(?:[wdsWDS]|[tnrfvae]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[pP]\{\^?[A-Za-z_ =-]+\}|[^A-Za-z0-9])"
).match


class Chars(msgspec.Struct, frozen=True):
    """One character of a class. `source`: as written."""

    source: str


class Sequence(msgspec.Struct, frozen=True):
    """One part after the other."""

    parts: tuple[Any, ...]


class Either(msgspec.Struct, frozen=True):
    """One of several."""

    options: tuple[Any, ...]


class Repeat(msgspec.Struct, frozen=True):
    """`least` to `most` times; `None`: without end."""

    part: Any
    least: int
    most: int | None


class Start(msgspec.Struct, frozen=True):
    """The beginning of the text."""


class End(msgspec.Struct, frozen=True):
    """The end of the text. `newline`: or what comes before a newline that ends it, as Python's `$` has it."""

    newline: bool


class NotRegular(ValueError):
    """The pattern is not understood."""


def parse(source: str) -> Any:
    """The pattern as a tree.

    :raises NotRegular: it holds something that no automaton can follow, or that is not known here.
    """
    reader = _Reader(source)
    tree = reader.either()
    if reader.at < len(source):
        raise NotRegular
    return tree


def anchored(tree: Any) -> bool:
    """Whether everything it matches begins at the beginning of the text, and nothing but that is anchored there.

    :raises NotRegular: an anchor where it is neither the first thing nor the last.
    """
    _ends(tree, last=True)
    return _starts(tree)


def starts_inside(tree: Any) -> bool:
    """Whether something in it must stand at the beginning of the text."""
    return _holds(tree, Start)


def spans(tree: Any) -> tuple[int, float]:
    """The fewest and the most characters of a text that it matches from end to end."""
    match tree:
        case Chars():
            return 1, 1
        case End(newline):
            return 0, int(newline)
        case Either(options):
            found = [spans(option) for option in options]
            return min(low for low, _ in found), max(high for _, high in found)
        case Sequence(parts):
            found = [spans(part) for part in parts]
            return sum(low for low, _ in found), sum(high for _, high in found)
        case Repeat(part, least, most):
            low, high = spans(part)
            return least * low, 0 if not high or most == 0 else math.inf if most is None else most * high
    return 0, 0


def _starts(tree: Any) -> bool:
    match tree:
        case Start():
            return True
        case Either(options):
            return all(_starts(option) for option in options)
        case Sequence(parts):
            if any(_holds(part, Start) for part in parts[1:]):
                raise NotRegular
            return bool(parts) and _starts(parts[0])
        case Repeat(part):
            if _holds(part, Start):
                raise NotRegular
    return False


def _ends(tree: Any, *, last: bool) -> None:
    """End anchors stand last, or are unknown here."""
    match tree:
        case End() if not last:
            raise NotRegular
        case Either(options):
            for option in options:
                _ends(option, last=last)
        case Sequence(parts):
            for i, part in enumerate(parts):
                _ends(part, last=last and i == len(parts) - 1)
        case Repeat(part):
            _ends(part, last=False)


def _holds(tree: Any, kind: type) -> bool:
    return isinstance(tree, kind) or any(_holds(part, kind) for part in _below(tree))


def _below(tree: Any) -> Iterator[Any]:
    match tree:
        case Either(options):
            yield from options
        case Sequence(parts):
            yield from parts
        case Repeat(part):
            yield part


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0

    def either(self) -> Any:
        options = [self.sequence()]
        while self.source.startswith("|", self.at):
            self.at += 1
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def sequence(self) -> Sequence:
        parts: list[Any] = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            parts.append(self.quantified())
        return Sequence(tuple(parts))

    def quantified(self) -> Any:
        part = self.single()
        found = _QUANTIFIER(self.source, self.at)
        if found is None:
            if self.source[self.at : self.at + 1] in ("{", "*", "+", "?"):  # fuzzy, or a brace that stands for itself
                raise NotRegular
            return part
        self.at = found.end()
        if self.source[self.at : self.at + 1] in ("{", "*", "+", "?"):  # possessive
            raise NotRegular
        sign, low, comma, high, _ = found.groups()
        if sign:
            return Repeat(part, int(sign == "+"), 1 if sign == "?" else None)
        least = int(low)
        most = least if not comma else int(high) if high else None
        if max(least, most or 0) > MOST_REPEATS or (most is not None and most < least):
            raise NotRegular
        return Repeat(part, least, most)

    def single(self) -> Any:
        source, at = self.source, self.at
        char = source[at]
        if char == "(":
            found = _GROUP(source, at)
            if found is None:
                raise NotRegular
            self.at = found.end()
            inner = self.either()
            if not source.startswith(")", self.at):
                raise NotRegular
            self.at += 1
            return inner
        if char == "[":
            end = class_end(source, at)
            inside = source[at:end]
            if not inside.endswith("]") or re.search(r"\[:|\[\^?\]|--|\|\||&&|~~|\\[NLmMXRGKbBAzZ0-9]", inside[1:]):
                raise NotRegular
            self.at = end
            return Chars(inside)
        if char in "{*+?":
            raise NotRegular
        self.at += 1
        if char == "^":
            return Start()
        if char == "$":
            return End(newline=True)
        if char == "\\":
            if source.startswith(("\\A", "\\Z"), at):
                self.at += 1
                return Start() if source[at + 1] == "A" else End(newline=False)
            found = _CLASS_ESCAPE(source, at)
            if found is None:
                raise NotRegular
            self.at = found.end()
            return Chars(found.group())
        return Chars(char)


def class_end(source: str, i: int) -> int:
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
