"""When JSON Schema calls two values equal."""

from __future__ import annotations

import functools
from typing import Any


def canonical(value: Any) -> Any:
    """A hashable stand-in that is equal exactly where JSON Schema calls values equal.

    A container's is flat, so that neither making nor comparing it stands on the caller's stack: one token for each
    value within, and before the values of a container its kind and how many follow.
    """
    if isinstance(value, bool):
        return ("b", value)
    if not isinstance(value, (list, dict)):
        return value
    tokens: list[Any] = []
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, bool):
            tokens.append(("b", one))
        elif isinstance(one, list):
            tokens.append(("l", len(one)))
            todo += one
        elif isinstance(one, dict):
            names = tuple(sorted(one))
            tokens.append(("d", names))
            todo += [one[name] for name in names]
        else:
            tokens.append(one)
    return tuple(tokens)


class Listed(list[Any]):
    """Values that an `enum` lists."""

    @functools.cached_property
    def known(self) -> frozenset[Any]:
        """The same, canonical."""
        return frozenset(map(canonical, self))
