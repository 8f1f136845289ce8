"""The full, strict parse that acceptance rests on: RFC 8259 by `json`, without what it accepts beyond that.

Knows nothing of streams. Lone surrogate escapes are valid by the RFC's grammar and stay; so do numbers too large for a
float, which Python reads as infinity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from streamguard.files.strict_json import RepeatedName, no_constant, unique
from streamguard.viability.syntax.protocol import Dead, Duplicates
from streamguard.viability.syntax.quote import quote


class Refused(ValueError):
    """A text that is no JSON document, or not one that is allowed here; `dead` says why."""

    def __init__(self, dead: Dead) -> None:
        self.dead = dead
        super().__init__(str(dead))


def parse(text: str, *, duplicate_names: Duplicates = "reject") -> Any:
    """The value of a JSON text.

    :param duplicate_names: with `allow` the last of several members of one name counts.
    :raises Refused: no JSON text, `NaN` or an infinity by name, a repeated name, an integer beyond what Python can
        read.
    """
    hook = unique if duplicate_names == "reject" else dict
    try:
        try:
            return json.loads(text, parse_constant=no_constant, object_pairs_hook=hook)
        except RecursionError:  # json's parser stands on the caller's stack
            return _parse_deep(text, hook)
    except json.JSONDecodeError as error:
        dead = _dead(text, error.pos, "malformed", f"the document is no JSON: {error.msg}")
    except RepeatedName as error:
        dead = _dead(text, None, "duplicate_name", f"the name {quote(error.name)} stands twice in one object")
    except ValueError as error:  # a constant; an integer with more digits than Python converts
        dead = _dead(text, None, "number", f"the document holds a number that cannot be read: {error}")
    raise Refused(dead) from None


Pairs = list[tuple[str, Any]]

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALARS: Final = json.JSONDecoder(parse_constant=no_constant)


def _parse_deep(text: str, hook: Callable[[Pairs], dict[str, Any]]) -> Any:
    """As `json.loads`, with lists in place of the stack."""
    containers: list[list[Any]] = []  # open: the items of an array, the pairs of an object
    names: list[str | None] = []  # of each the name of the member that is read; `None` for an array
    at = _skip(text, 0)
    while True:
        begin = text[at : at + 1]
        if begin in _END:
            at = _skip(text, at + 1)
            if text[at : at + 1] != _END[begin]:
                name, at = (None, at) if begin == "[" else _name(text, at)
                containers.append([])
                names.append(name)
                continue
            value: Any = [] if begin == "[" else {}
            at += 1
        else:
            value, at = _SCALARS.raw_decode(text, at)
        while True:
            at = _skip(text, at)
            if not containers:
                if at < len(text):
                    raise json.JSONDecodeError("Extra data", text, at)
                return value
            within, name = containers[-1], names[-1]
            within.append(value if name is None else (name, value))
            end = text[at : at + 1]
            if end == ",":
                at = _skip(text, at + 1)
                if name is not None:
                    names[-1], at = _name(text, at)
                break
            if end != ("]" if name is None else "}"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            containers.pop()
            names.pop()
            value = within if name is None else hook(within)
            at += 1


_END: Final = {"[": "]", "{": "}"}


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _name(text: str, at: int) -> tuple[str, int]:
    """The name of a member, and where its value begins."""
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    name, at = _SCALARS.raw_decode(text, at)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    return name, _skip(text, at + 1)


def parse_at(text: str, begin: int) -> tuple[Any, int] | None:
    """The value that begins at a character of the text, and where it ends. `None` for whatever `parse` would refuse,
    and if it does not end within the text."""
    try:
        return _STRICT.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None


def _dead(text: str, char: int | None, keyword: str, message: str) -> Dead:
    if char is None or char >= len(text):
        return Dead(offset="eof", char="eof", pointer="", keyword=keyword, message=message)
    offset = len(text[:char].encode("utf-8", "surrogatepass"))
    return Dead(offset=offset, char=char, pointer="", keyword=keyword, message=message)


_STRICT: Final = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant)
