"""Read a pattern as Python's `re` reads it, and write it for `regex`, which can be stopped and matches beginnings.

The two engines read the same text differently: `{e}` and `{s<=1}` are fuzzy matching for `regex`, `\\m`, `\\K`, `\\R`
and set operations exist in one of them only, and `\\w` holds other characters. So a pattern is parsed by `re`'s own
parser, and what it found is written out in the plainest terms. `\\p{…}`, which `re` refuses, is as `regex` has it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from re import _constants as sre  # type: ignore[attr-defined]  # re has no public name for its parser
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

import msgspec
import regex

Items = Iterable[tuple[Any, Any]]
"""Parsed: what each part is, and its arguments."""

_TOKEN: Final = re.compile(
    r"\\(?:(?P<property>[pP]\{\^?[\w =:.-]+\})|.)|(?P<begin>\[\^?\]?)|(?P<end>\])|(?P<name>\(\?<(?=[A-Za-z_]))",
    re.DOTALL,
)
_FIRST_STAND_IN: Final = 0x10F000
"""Private characters stand for properties while `re` parses the rest."""
_ANYTHING: Final = r"[\s\S]"
_SPACES: Final = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


class PatternError(ValueError):
    """A pattern that cannot be read, with the reason."""


class Parsed(msgspec.Struct, frozen=True):
    """A pattern as `re` has read it."""

    items: Any
    flags: int
    properties: dict[int, str]
    """Stand-ins → the property each stands for."""


def read(source: str) -> Parsed:
    """Parse a pattern.

    :raises PatternError: `re` refuses it, or it holds what cannot be written for `regex`.
    """
    text, properties = _set_aside(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read differently
            re.compile(text)  # some mistakes only the compiler finds
            tree = _parser.parse(text)
        for name in properties.values():
            regex.compile(rf"\{name}")
    except (re.error, regex.error) as error:
        raise PatternError(str(error)) from None
    except (RecursionError, OverflowError):
        raise PatternError("it is too deep or too large") from None
    return Parsed(tree, tree.state.flags, properties)


def _set_aside(source: str) -> tuple[str, dict[int, str]]:
    """The pattern with what `re` refuses and others know in terms of `re`: properties, and names as `(?<name>…)`."""
    properties: dict[int, str] = {}
    in_set = False

    def stand_in(found: re.Match[str]) -> str:
        nonlocal in_set
        if found.lastgroup == "property":
            char = _FIRST_STAND_IN + len(properties)
            while chr(char) in source or f"{char:x}" in source.lower():
                char += 1
            properties[char] = found["property"]
            return chr(char)
        if found.lastgroup == "name":
            return found[0] if in_set else "(?P<"
        if found.lastgroup == "begin" and in_set:
            in_set = not found[0].endswith("]")
        elif found.lastgroup is not None:
            in_set = found.lastgroup == "begin"
        return found[0]

    return _TOKEN.sub(stand_in, source), properties


def parts(item: tuple[Any, Any]) -> Iterator[Items]:
    """What a part is made of, in turn."""
    op, arg = item
    if op is sre.BRANCH:
        yield from arg[1]
    elif op is sre.SUBPATTERN:
        yield arg[3]
    elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        yield arg[2]
    elif op in (sre.ASSERT, sre.ASSERT_NOT):
        yield arg[1]
    elif op is sre.ATOMIC_GROUP:
        yield arg
    elif op is sre.GROUPREF_EXISTS:
        yield arg[1]
        yield arg[2] or []


def inner_flags(item: tuple[Any, Any], flags: int) -> int:
    """The flags that hold within a part."""
    op, arg = item
    return (flags | arg[1]) & ~arg[2] if op is sre.SUBPATTERN else flags


def uses_categories(items: Items, flags: int) -> bool:
    """Whether `\\w`, `\\d`, `\\s` or `\\b` occur in it as Unicode has them."""
    for item in items:
        op, arg = item
        flags_here = inner_flags(item, flags)
        if not flags & re.ASCII and (
            (op is sre.IN and any(kind is sre.CATEGORY for kind, _ in arg))
            or (op is sre.AT and arg in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY))
        ):
            return True
        if any(uses_categories(part, flags_here) for part in parts(item)):
            return True
    return False


_ASCII: Final = {"W": "A-Za-z0-9_", "D": "0-9", "S": r"\t-\r\x1c-\x20"}
_ASCII_FLAG: Final = {"W": "A-Za-z0-9_", "D": "0-9", "S": r"\t-\r\x20"}
_UNICODE: Final = {"W": r"\p{L}\p{N}_", "D": r"\p{Nd}", "S": _SPACES}
_CATEGORIES: Final = {
    sre.CATEGORY_WORD: ("W", True),
    sre.CATEGORY_NOT_WORD: ("W", False),
    sre.CATEGORY_DIGIT: ("D", True),
    sre.CATEGORY_NOT_DIGIT: ("D", False),
    sre.CATEGORY_SPACE: ("S", True),
    sre.CATEGORY_NOT_SPACE: ("S", False),
}
_EMPTY_HAS_NO_BOUNDARY: Final = re.search(r"\B", "") is None  # so before Python 3.14


class Writer:
    """Writes what was parsed for `regex`.

    :param ascii_text: for texts that hold nothing beyond ASCII, of which less needs to be said.
    :param exact: for texts with characters that this Python's Unicode does not know, and `regex`'s may.
    """

    def __init__(self, parsed: Parsed, *, ascii_text: bool = False, exact: bool = False) -> None:
        self._properties = parsed.properties
        self._sets = _ASCII if ascii_text else _UNICODE
        self._exact = exact

    def write(self, items: Items, flags: int) -> str:
        """The text of several parts, one after the other."""
        return "".join(self._item(item, flags) for item in items)

    def _item(self, item: tuple[Any, Any], flags: int) -> str:
        op, arg = item
        if op is sre.LITERAL:
            return self._set([item], flags) if self._varies(arg, flags) else escaped(arg)
        if op is sre.NOT_LITERAL:
            return self._set([(sre.NEGATE, None), (sre.LITERAL, arg)], flags)
        if op is sre.IN:
            return self._set(arg, flags)
        if op is sre.ANY:
            return _ANYTHING if flags & re.DOTALL else r"[^\n]"
        if op is sre.AT:
            return self._at(arg, flags)
        if op is sre.BRANCH:
            return f"(?:{'|'.join(self._option(option, flags) for option in arg[1])})"
        inner = [self.write(part, inner_flags(item, flags)) for part in parts(item)]
        if op is sre.SUBPATTERN:
            return f"({inner[0]})" if arg[0] is not None else f"(?:{inner[0]})"
        if op in _REPEATS:
            low, high = arg[0], "" if arg[1] is sre.MAXREPEAT else arg[1]
            return f"(?:{inner[0]}){{{low},{high}}}{_REPEATS[op]}"
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            return f"(?{'' if arg[0] > 0 else '<'}{'=' if op is sre.ASSERT else '!'}{inner[0]})"
        if op is sre.ATOMIC_GROUP:
            return f"(?>{inner[0]})"
        if op is sre.GROUPREF:
            if flags & re.IGNORECASE:
                raise PatternError("a back-reference that ignores case is not supported")
            return rf"(?:\{arg})"
        if op is sre.GROUPREF_EXISTS:
            return f"(?({arg[0]}){inner[0]}|{inner[1]})"
        if op is sre.FAILURE:
            return "(?!)"
        raise PatternError(f"{op} is not supported")

    def _option(self, items: Items, flags: int) -> str:
        """An alternative. `regex` takes `[^a]|[^b]` for `[^ab]`, unless the sets do not look like sets."""
        listed = list(items)
        if len(listed) == 1:
            op, arg = listed[0]
            if op is sre.NOT_LITERAL:
                return f"(?:(?!{self._set([(sre.LITERAL, arg)], flags)}){_ANYTHING})"
            if op is sre.IN and arg[0][0] is sre.NEGATE:
                return f"(?:(?!{self._set(arg[1:], flags)}){_ANYTHING})"
        return self.write(listed, flags)

    def _varies(self, char: int, flags: int) -> bool:
        return char in self._properties or bool(flags & re.IGNORECASE)

    def _at(self, where: Any, flags: int) -> str:
        if where is sre.AT_BEGINNING:
            return "(?m:^)" if flags & re.MULTILINE else r"\A"
        if where is sre.AT_END:
            return "(?m:$)" if flags & re.MULTILINE else "$"
        if where in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
            word = self._category("W", flags)
            if where is sre.AT_BOUNDARY:
                return f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"
            but = r"(?!\A\Z)" if _EMPTY_HAS_NO_BOUNDARY else ""
            return f"(?:(?<={word})(?={word})|(?<!{word})(?!{word}){but})"
        return r"\A" if where is sre.AT_BEGINNING_STRING else r"\Z"

    def _category(self, name: str, flags: int, *, holds: bool = True) -> str:
        """A class by itself."""
        if self._exact and name != "S" and not flags & re.ASCII:
            one = f"(?:(?!{newer()})[{_UNICODE[name]}])"
            return one if holds else f"(?:(?!{one}){_ANYTHING})"
        return f"[{'' if holds else '^'}{self._listed(name, flags)}]"

    def _listed(self, name: str, flags: int) -> str:
        return (_ASCII_FLAG if flags & re.ASCII else self._sets)[name]

    def _set(self, members: Items, flags: int) -> str:
        """One character of a set."""
        negated = False
        plain: list[str] = []
        others: list[str] = []  # what cannot be written within brackets
        for kind, arg in members:
            if kind is sre.NEGATE:
                negated = True
            elif kind is sre.LITERAL:
                plain.append(f"\\{self._properties[arg]}" if arg in self._properties else escaped(arg))
            elif kind is sre.RANGE:
                if not self._properties.keys().isdisjoint(arg):
                    raise PatternError("a property cannot be the end of a range")
                plain.append(f"{escaped(arg[0])}-{escaped(arg[1])}")
            else:
                name, holds = _CATEGORIES[arg]
                if holds and not (self._exact and name != "S" and not flags & re.ASCII):
                    plain.append(self._listed(name, flags))
                else:
                    others.append(self._category(name, flags, holds=holds))
        if flags & re.IGNORECASE:
            plain += [escaped(ord(char)) for char in sorted(same_but_for_case(members, flags))]
        if not others:
            return f"[{'^' if negated else ''}{''.join(plain)}]"
        either = "|".join([f"[{''.join(plain)}]", *others] if plain else others)
        return f"(?:(?!{either}){_ANYTHING})" if negated else f"(?:{either})"


_REPEATS: Final = {sre.MAX_REPEAT: "", sre.MIN_REPEAT: "?", sre.POSSESSIVE_REPEAT: "+"}


def escaped(char: int) -> str:
    """A character that stands for itself, anywhere in a pattern of either engine."""
    text = chr(char)
    if text.isascii() and text.isalnum():
        return text
    return f"\\x{char:02x}" if char < 0x100 else f"\\u{char:04x}" if char < 0x10000 else f"\\U{char:08x}"


_NAMES: Final = {
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
}


def set_for_re(members: Items, flags: int) -> str:
    """A set of characters in `re`'s own terms."""
    found = []
    for kind, arg in members:
        if kind is sre.NEGATE:
            found.append("^")
        elif kind is sre.LITERAL:
            found.append(escaped(arg))
        elif kind is sre.RANGE:
            found.append(f"{escaped(arg[0])}-{escaped(arg[1])}")
        else:
            found.append(_NAMES[arg])
    marks = ("a" if flags & re.ASCII else "") + ("i" if flags & re.IGNORECASE else "")
    return f"(?{marks}:[{''.join(found)}])" if marks else f"[{''.join(found)}]"


def same_but_for_case(members: Items, flags: int) -> set[str]:
    """The characters with a case that `re` takes to be in a set, negated or not, when it ignores case."""
    listed = [member for member in members if member[0] is not sre.NEGATE]
    return set(re.findall(set_for_re(listed, flags), _cased())) if listed else set()


@functools.cache
def _cased() -> str:
    """Every character with another case."""
    return "".join(c for c in map(chr, range(0x1F000)) if c.lower() != c or c.upper() != c)


@functools.cache
def newer() -> str:
    """A set of the characters that `regex` knows and this Python does not."""
    unknown = "".join(c for c in map(chr, range(0x40000)) if unicodedata.category(c) == "Cn")
    found = [ord(c) for c in regex.findall(r"[\p{L}\p{N}]", unknown)]
    begins = [c for c, before in zip(found, [-2, *found], strict=False) if c != before + 1]
    ends = [c for c, after in zip(found, [*found[1:], -2], strict=False) if c + 1 != after]
    return f"[{''.join(f'{escaped(a)}-{escaped(b)}' for a, b in zip(begins, ends, strict=True))}]" if found else "(?!)"


def is_known(text: str) -> bool:
    """Whether this Python's Unicode knows every character of a text."""
    return not any(unicodedata.category(char) == "Cn" for char in set(text))
