"""One policy file on top of another: what is merged, what replaces, and where each value of the result stands.

In charge of plain data and positions. Mappings are merged key by key; lists, JSON Schemas and values replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.files.yaml import Loaded, Positions
from streamguard.files.yaml import Path as At
from streamguard.policy.json_schema import NO_SECTIONS, OFF, SWITCHED

OPAQUE: frozenset[At] = frozenset({("json", "schema")})
"""Mappings that are one value: half of one JSON Schema and half of another is neither."""


def without_empty(own: Loaded) -> list[At]:
    """Drop the keys with nothing behind them; their paths."""
    dropped = []
    for path in [path for path, span in own.positions.items() if span.empty]:
        if any(isinstance(part, int) for part in path) or any(path[: len(at)] == at != path for at in OPAQUE):
            continue  # an item of a list, such as a patch, or inside a JSON Schema: there it is a value
        around = value_of(own.data, path[:-1])
        if isinstance(around, dict) and path[-1] in around:
            del around[path[-1]]
            dropped.append(path)
    return dropped


def read_off(data: dict[str, Any], at: At) -> None:
    """Read `off` as what it stands for: no such section, no such limit."""
    for key, value in data.items():
        path = (*at, key)
        if value == OFF and key not in NO_SECTIONS:
            data[key] = None
        elif isinstance(value, dict) and path not in OPAQUE:
            read_off(value, path)


def value_of(data: Any, path: At) -> Any:
    """The value at a path; `None` if there is none."""
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data


def value_at(data: Any, path: At) -> Any:
    """The value at a path that is known, lists included."""
    for part in path:
        data = data[part]
    return data


def merged(parent: Loaded, child: Loaded) -> Loaded:
    """The child on top of the parent, and where each value of the result stands."""
    positions = dict(parent.positions)
    data = _merge(parent.data, child.data, positions, ())
    positions.update(child.positions)
    return Loaded(data, positions)


def _merge(old: Mapping[str, Any], new: Mapping[str, Any], positions: Positions, at: At) -> dict[str, Any]:
    """`new` on top of `old`; what is replaced loses its positions."""
    data = dict(old)
    for key, value in new.items():
        path = (*at, key)
        before = data.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and path not in OPAQUE:
            data[key] = _merge(before, value, positions, path)
        else:
            _forget(before, positions, path)
            data[key] = value
            if isinstance(before, dict) and value is None and path not in {(name,) for name in SWITCHED}:
                del data[key]
    return data


def _forget(value: Any, positions: Positions, at: At) -> None:
    positions.pop(at, None)
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inside:
        _forget(below, positions, (*at, key))


def without_nulls(loaded: Loaded) -> Loaded:
    """Without the sections that are `null`, unless that means something."""
    return loaded._replace(
        data={key: value for key, value in loaded.data.items() if value is not None or key in SWITCHED}
    )
