"""Where in a JSON Schema the schema of one value stands, as far as the keywords lead there without a choice.

It reads the schema as text; it knows neither instances nor how a schema is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.files.json_pointer import Path, parse_pointer, pointer


def subschema(root: Mapping[str, Any], path: Path) -> str | None:
    """JSON Pointer of the subschema for the value at `path`, by `properties`, `prefixItems`, `items` and local `$ref`s.

    `None` where they do not lead to one: behind `anyOf` and its like, in another document, or nowhere.
    """
    place: list[str] = []
    node: Any = root
    for part in path:
        hops = 0
        while True:
            step = _step(node, part)
            if step is not None:
                break
            reference = node.get("$ref") if isinstance(node, Mapping) else None
            hops += 1
            if not isinstance(reference, str) or not reference.startswith("#/") or hops > 32:
                return None
            place = list(parse_pointer(reference[1:]))
            node = _at(root, place)
        place = [*place, *step]
        node = _at(root, place)
    if not isinstance(node, Mapping) or not path:
        return None
    return pointer(place)


def _step(node: Any, part: str) -> tuple[str, ...] | None:
    """From a schema to the subschema of one of its values, by keyword."""
    if not isinstance(node, Mapping):
        return None
    properties, prefix, items = node.get("properties"), node.get("prefixItems"), node.get("items")
    if isinstance(properties, Mapping) and part in properties:
        return ("properties", part)
    if part.isdecimal():
        for keyword, schemas in (("prefixItems", prefix), ("items", items)):
            if isinstance(schemas, list) and int(part) < len(schemas):
                return (keyword, part)
        if isinstance(items, Mapping):
            return ("items",)
    return None


def _at(root: Any, place: list[str]) -> Any:
    node = root
    for part in place:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node
