"""When JSON Schema calls two values equal."""

from __future__ import annotations

import functools
from typing import Any


def canonical(value: Any) -> Any:
    """A hashable stand-in that is equal exactly where JSON Schema calls values equal."""
    if isinstance(value, bool):
        return ("b", value)
    if isinstance(value, list):
        return ("l", tuple(map(canonical, value)))
    if isinstance(value, dict):
        return ("d", frozenset((name, canonical(inner)) for name, inner in value.items()))
    return value


class Listed(list[Any]):
    """Values that an `enum` lists."""

    @functools.cached_property
    def known(self) -> frozenset[Any]:
        """The same, canonical."""
        return frozenset(map(canonical, self))
