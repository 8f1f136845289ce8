"""Patterns in the dialect of ECMA-262, the one that JSON Schema recommends: written in terms of Python's `re`.

As with the flag `u`, and where that refuses what everybody writes (`{` alone, `\\-`, `[\\w-.]`), as without it. Exact,
but for what it refuses by name: back-references, which ECMA lets match nothing where their group did, and modifiers.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from streamguard.viability.patterns.python_regex import PatternError, escaped

Dialect = Literal["python", "ecma"]
"""How patterns are read: as Python's `re` does, or as ECMA-262 has it."""

Ranges = tuple[tuple[int, int], ...]

_LAST: Final = 0x10FFFF


def _codes(text: str) -> Ranges:
    """The ranges of a set as `a-z` has it."""
    return tuple((ord(found[0][0]), ord(found[0][-1])) for found in re.finditer(r".-.|.", text, re.DOTALL))


def _others(ranges: Ranges) -> Ranges:
    """Every character that is not in these."""
    found, after = [], 0
    for first, last in sorted(ranges):
        if first > after:
            found.append((after, first - 1))
        after = max(after, last + 1)
    return (*found, (after, _LAST))


_DIGIT: Final = _codes("0-9")
_WORD: Final = _codes("A-Za-z0-9_")
_SPACE: Final = _codes("\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff")
_LINE_ENDS: Final = _codes("\n\r\u2028\u2029")
_SETS: Final = {
    "d": _DIGIT,
    "D": _others(_DIGIT),
    "w": _WORD,
    "W": _others(_WORD),
    "s": _SPACE,
    "S": _others(_SPACE),
}
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??").match
_GROUP: Final = re.compile(r"\((?:\?(?::|=|!|<=|<!|<(?P<name>[A-Za-z_$][\w$]*)>))?").match
_PROPERTY: Final = re.compile(r"\\[pP]\{[\w =:.-]+\}").match
_HEX: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,8})\})").match
_LOW: Final = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match


def translated(source: str) -> str:
    """The pattern in terms of `re`.

    :raises PatternError: it is none, or holds what has no equal there.
    """
    return _Reader(source).whole()


def _written(ranges: Ranges) -> str:
    return "".join(escaped(a) if a == b else f"{escaped(a)}-{escaped(b)}" for a, b in ranges)


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0

    def whole(self) -> str:
        found = []
        while self.at < len(self.source):
            found.append(self._next())
        return "".join(found)

    def _next(self) -> str:
        source, at = self.source, self.at
        char = source[at]
        if char == "(":
            return self._group()
        if char == "[":
            return self._set()
        quantifier = _QUANTIFIER(source, at)
        if quantifier is not None:
            self.at = quantifier.end()
            if _QUANTIFIER(source, self.at) is not None:  # possessive for re, and a mistake in ECMA
                raise PatternError(f"nothing to repeat at position {self.at}")
            return quantifier.group()
        if char == "\\":
            return self._escape()
        self.at += 1
        if char in ")|":
            return char
        if char == "^":
            return r"\A"
        if char == "$":
            return r"\Z"
        return f"[^{_written(_LINE_ENDS)}]" if char == "." else escaped(ord(char))

    def _group(self) -> str:
        found = _GROUP(self.source, self.at)
        assert found is not None  # a bracket alone begins one
        self.at = found.end()
        if self.source.startswith("?", self.at):
            raise PatternError(f"the group at position {found.start()} is not supported in the dialect ecma")
        return "(" if found["name"] else found.group()

    def _escape(self) -> str:
        source, at = self.source, self.at
        char = source[at + 1 : at + 2]
        if char in ("b", "B"):
            self.at += 2
            if _QUANTIFIER(source, self.at) is not None:
                raise PatternError(f"nothing to repeat at position {self.at}")
            return r"(?a:\b)" if char == "b" else r"(?!(?a:\b))"
        if char in _SETS and char:
            self.at += 2
            return f"[{_written(_SETS[char])}]"
        if (found := _PROPERTY(source, at)) is not None:
            self.at = found.end()
            return found.group()
        return escaped(self._character())

    def _character(self) -> int:
        """One character that is written with a backslash."""
        source, at = self.source, self.at
        found = _HEX(source, at)
        if found is not None:
            self.at = found.end()
            code = int(found[1] or found[2] or found[3], 16)
            if code > _LAST:
                raise PatternError(f"no character has the number of {found.group()}")
            if found[2] and 0xD800 <= code < 0xDC00 and (low := _LOW(source, self.at)) is not None:
                self.at = low.end()
                return 0x10000 + (code - 0xD800 << 10) + int(low[1], 16) - 0xDC00
            return code
        char = source[at + 1 : at + 2]
        self.at += 2
        if char in _CONTROLS and char:
            return _CONTROLS[char]
        if char == "0" and source[self.at : self.at + 1] not in tuple("0123456789"):
            return 0
        if char == "c" and re.match("[A-Za-z]", source[self.at : self.at + 1]):
            self.at += 1
            return ord(source[self.at - 1]) % 32
        if char == "k" or char.isdigit():
            raise PatternError(f"the back-reference \\{char} is not supported in the dialect ecma")
        if not char or (char.isascii() and char.isalpha()):
            raise PatternError(f"\\{char} is no escape in ECMA-262")
        return ord(char)

    def _set(self) -> str:
        source = self.source
        self.at += 1
        negated = source.startswith("^", self.at)
        self.at += negated
        found: list[str] = []
        while not source.startswith("]", self.at):
            if self.at >= len(source):
                raise PatternError("a set without an end")
            member = self._member()
            if isinstance(member, str):
                found.append(member)
                continue
            after = self.at + 1
            if source.startswith("-", self.at) and source[after : after + 1] not in ("", "]"):
                self.at = after
                end = self._member()
                if isinstance(end, str):  # a class is no end of a range: the hyphen stands for itself
                    found += [escaped(member), escaped(ord("-")), end]
                elif end < member:
                    raise PatternError(f"a range out of order before position {self.at}")
                else:
                    found.append(f"{escaped(member)}-{escaped(end)}")
                continue
            found.append(escaped(member))
        self.at += 1
        if not found:
            return r"[\s\S]" if negated else "(?!)"
        return f"[{'^' if negated else ''}{''.join(found)}]"

    def _member(self) -> str | int:
        """A character of a set, or a class in it, written."""
        source, at = self.source, self.at
        if source[at] != "\\":
            self.at += 1
            return ord(source[at])
        char = source[at + 1 : at + 2]
        if char in _SETS and char:
            self.at += 2
            return _written(_SETS[char])
        if char == "b":
            self.at += 2
            return 8
        if (found := _PROPERTY(source, at)) is not None:
            self.at = found.end()
            return found.group()
        return self._character()
