"""Make a JSON value that satisfies a schema, as far as the usual keywords lead. For the simulated provider only.

Follows `type`, `enum`, `const`, `properties`, `required`, `items`, `minItems`, the bounds of numbers and lengths, the
first branch of `anyOf`, `oneOf` and `allOf`, and local `$ref`s. Patterns are not followed: texts are plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.files.json_pointer import parse_pointer

MAX_DEPTH = 12
"""Levels of objects and arrays; below them values that may be left out are left out."""


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value for a schema.

    :param schema: a JSON Schema, or what stands in place of one.
    :param root: where `#/…` references lead; the schema itself by default.
    """
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH * 2:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return sample(_at(root, reference), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for listed in ("enum", "examples"):
        if isinstance(values := schema.get(listed), list) and values:
            return values[0]
    for branches in ("anyOf", "oneOf", "allOf"):
        if isinstance(choices := schema.get(branches), list) and choices:
            return sample(
                {**{k: v for k, v in schema.items() if k != branches}, **_mapping(choices[0])}, root, depth + 1
            )
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    make = _KINDS.get(kind, _text)
    return make(schema, root, depth)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(root: Any, reference: str) -> Any:
    node = root
    try:
        for part in parse_pointer(reference.removeprefix("#")):
            node = node[int(part)] if isinstance(node, list) else node[part]
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    return node


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    names = _mapping(schema.get("properties"))
    required = schema.get("required") or ()
    wanted = names if depth < MAX_DEPTH else [name for name in names if name in required]
    made = {name: sample(names[name], root, depth + 1) for name in wanted}
    return made | {name: "text" for name in required if name not in made}


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> list[Any]:
    count = int(schema.get("minItems") or (1 if depth < MAX_DEPTH else 0))
    return [sample(schema.get("items"), root, depth + 1) for _ in range(count)]


def _number(schema: Mapping[str, Any], root: Any, depth: int) -> float:  # noqa: ARG001  # makers share a signature
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = 1 if "exclusiveMinimum" in schema else 0
    if isinstance(low, int | float):
        return low + step
    return min(1, high - 1) if isinstance(high, int | float) else 1


def _text(schema: Mapping[str, Any], root: Any, depth: int) -> str:  # noqa: ARG001
    formats = {"date": "2026-11-30", "date-time": "2026-11-30T12:00:00Z", "email": "someone@example.com"}
    text = formats.get(str(schema.get("format")), "text")
    least, most = schema.get("minLength") or 0, schema.get("maxLength")
    text = text.ljust(least, "x") if len(text) < least else text
    return text if most is None else text[:most]


_KINDS: Mapping[Any, Any] = {
    "object": _object,
    "array": _array,
    "number": _number,
    "integer": lambda schema, root, depth: int(_number(schema, root, depth)),
    "string": _text,
    "boolean": lambda *_: True,
    "null": lambda *_: None,
}
