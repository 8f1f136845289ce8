"""Read JSON as RFC 8259 has it: no repeated names, no `NaN`, no infinity. The one strict reader of the package.

`loads` is the whole; the hooks are for readers that need another parser around them. Knows no files and no schemas.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_SHOWN = 40
"""Characters of a number that a message repeats: the text may come from anybody, and be megabytes long."""


class NotStrict(ValueError):
    """JSON for Python's parser, and not for every other reader."""


class RepeatedName(NotStrict):
    """A name stands twice in one object: two readers of the text could see two different values."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the name {json.dumps(name, ensure_ascii=False)} stands twice in one object")


def loads(text: str) -> Any:
    """Parse a text strictly.

    :raises json.JSONDecodeError: the text is no JSON.
    :raises NotStrict: a repeated name, `NaN` or an infinity by name, a number too large for a float.
    :raises ValueError: an integer with more digits than Python converts.
    :raises RecursionError: nested more deeply than Python's parser goes.
    """
    return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite)


def is_object(text: str) -> bool:
    """Return whether a text is one JSON object, whole. Names may repeat."""
    try:
        return isinstance(json.loads(text, parse_constant=no_constant), dict)
    except (ValueError, RecursionError):
        return False


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members, for `object_pairs_hook`.

    :raises RepeatedName: a name stands twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        raise RepeatedName(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return members


def no_constant(name: str) -> NoReturn:
    """Refuse `NaN`, `Infinity` and `-Infinity`, for `parse_constant`.

    :raises NotStrict: always.
    """
    raise NotStrict(f"{name} is no JSON number")


def finite(text: str) -> float:
    """Read a number with a fraction or an exponent, for `parse_float`.

    :raises NotStrict: it is too large for a float.
    """
    value = float(text)
    if not math.isfinite(value):
        shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
        raise NotStrict(f"{shown} is too large for a number")
    return value


def is_deeper(value: Any, limit: int) -> bool:
    """Whether objects and arrays are nested more than `limit` deep in a value."""
    level = [value]
    for _ in range(limit):
        level = [
            below
            for item in level
            if isinstance(item, dict | list)
            for below in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)
