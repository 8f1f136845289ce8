"""A parsed pattern as a tree, as far as it is a regular expression in the narrow sense: it accepts a regular language.

In charge of: telling those patterns from the ones that look around or back. What characters a set holds is asked of
`re` itself, so that both mean the same. A pattern that is not understood to the last part is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from re import _constants as sre  # type: ignore[attr-defined]  # re has no public name for its parser
from typing import Any, Final

import msgspec

from streamguard.viability.patterns.python_regex import Items, Parsed, Writer, inner_flags, set_for_re

MOST_REPEATS: Final = 1024
"""Repetitions of one part that are written out."""


class Chars(msgspec.Struct, frozen=True):
    """One character of a set. `source`: the set, in terms of `re`, or of `regex` where it holds a property."""

    source: str
    wide: bool = False
    """Whether it may hold characters beyond U+FFFF."""
    of_regex: bool = False


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


def tree_of(parsed: Parsed) -> Any:
    """A pattern as a tree.

    :raises NotRegular: it holds something that no automaton can follow, or that is not known here.
    """
    return _sequence(parsed.items, parsed.flags, parsed)


def _sequence(items: Items, flags: int, parsed: Parsed) -> Sequence:
    return Sequence(tuple(_single(item, flags, parsed) for item in items))


def _single(item: tuple[Any, Any], flags: int, parsed: Parsed) -> Any:
    op, arg = item
    if op is sre.IN:
        return _chars(arg, flags, parsed)
    if op is sre.LITERAL:
        return _chars([item], flags, parsed)
    if op is sre.NOT_LITERAL:
        return _chars([(sre.NEGATE, None), (sre.LITERAL, arg)], flags, parsed)
    if op is sre.ANY:
        return Chars("[^\\n]" if not flags & re.DOTALL else r"[\s\S]", wide=True)
    if op is sre.AT and not flags & re.MULTILINE and arg in _ANCHORS:
        return _ANCHORS[arg]
    if op is sre.BRANCH:
        return Either(tuple(_sequence(option, flags, parsed) for option in arg[1]))
    if op is sre.SUBPATTERN:
        return _sequence(arg[3], inner_flags(item, flags), parsed)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        low, high = arg[0], None if arg[1] is sre.MAXREPEAT else arg[1]
        if max(low, high or 0) > MOST_REPEATS:
            raise NotRegular
        return Repeat(_sequence(arg[2], flags, parsed), low, high)
    raise NotRegular


_ANCHORS: Final = {
    sre.AT_BEGINNING: Start(),
    sre.AT_BEGINNING_STRING: Start(),
    sre.AT_END: End(newline=True),
    sre.AT_END_STRING: End(newline=False),
}


def _chars(members: Items, flags: int, parsed: Parsed) -> Chars:
    listed = list(members)
    wide = any(
        kind in (sre.NEGATE, sre.CATEGORY) or (arg[1] if kind is sre.RANGE else arg) > 0xFFFF for kind, arg in listed
    )
    if any(kind is sre.LITERAL and arg in parsed.properties for kind, arg in listed):
        return Chars(Writer(parsed).write([(sre.IN, listed)], flags), wide=True, of_regex=True)
    return Chars(set_for_re(listed, flags), wide or bool(flags & re.IGNORECASE))


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
