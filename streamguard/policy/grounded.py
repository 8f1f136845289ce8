"""What a policy's grounded values have to do with its schema: members that there are none of, kinds that do not fit.

In charge of findings, before anything is sent. It reads the schema as text; where that does not say, it is silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from streamguard.files.json_pointer import parse_pointer, pointer
from streamguard.files.suggest import did_you_mean
from streamguard.guards.grounding.spec import Grounded

Node = Mapping[str, Any]
_EVERY: Final = "*"
_HOPS: Final = 32
_SOME: Final = 256
"""Subschemas that are looked at; a schema may have more ways to a place than anybody counts."""
_FITS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset(("string",)),
    "number": frozenset(("number", "integer", "string")),
    "date": frozenset(("string",)),
}
_NAMES: Final = {"integer": "a number", "number": "a number", "boolean": "true or false", "string": "a text"}


def mistakes(entry: Grounded, schema: Node) -> Iterator[tuple[bool, str]]:
    """What is wrong or unwise about an entry: whether it is wrong, and the sentence.

    :param schema: of the document.
    """
    nodes = _expanded([schema], schema)
    for place, part in enumerate(entry.path):
        below, names = _below(nodes, part)
        if not below:
            if names is not None:
                at = pointer(entry.path[:place])
                yield True, f"{at or 'the document'} has no member {part!r} in the schema{did_you_mean(part, names)}"
            return
        nodes = _expanded(below, schema)
    kinds = _kinds(nodes)
    if kinds is None or kinds & _FITS[entry.as_]:
        if entry.as_ == "text" and nodes and all("enum" in node or "const" in node for node in nodes):
            yield False, "chosen from a list in the schema, so it need not stand in the source"
        return
    if kinds <= {"array"}:
        yield True, f"an array in the schema: write {entry.at}/* for its items"
    elif kinds <= {"object"}:
        first = next((name for node in nodes for name in node.get("properties", ())), "NAME")
        yield True, f"an object in the schema: name its members, such as {entry.at}/{first}"
    else:
        what = " or ".join(sorted({_NAMES.get(kind, f"an {kind}") for kind in kinds - {"null"}})) or "null"
        advice = "write as: number" if what == "a number" else "it cannot be grounded"
        yield True, f"{what} in the schema, and this is as: {entry.as_}; {advice}"


def _expanded(nodes: Sequence[Any], root: Node) -> list[Node]:
    """Nodes with references followed and combinations taken apart."""
    found: list[Node] = []
    queue = [(node, 0) for node in nodes]
    while queue and len(found) < _SOME:
        node, hops = queue.pop(0)
        if not isinstance(node, Mapping) or hops > _HOPS:
            continue
        reference = node.get("$ref")
        if isinstance(reference, str):
            queue.append((_at(root, reference), hops + 1))
        parts = [one for word in ("anyOf", "oneOf", "allOf") for one in node.get(word) or ()]
        queue.extend((one, hops + 1) for one in parts)
        if not parts and not isinstance(reference, str):
            found.append(node)
        elif "properties" in node or "items" in node:
            found.append({key: value for key, value in node.items() if key not in ("anyOf", "oneOf", "allOf", "$ref")})
    return found


def _at(root: Node, reference: str) -> Any:
    node: Any = root
    try:
        parts = parse_pointer(reference[1:]) if reference.startswith("#") else ("",)
    except ValueError:
        return None
    for part in parts:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _below(nodes: Sequence[Node], part: str) -> tuple[list[Any], list[str] | None]:
    """The subschemas of a member or item; and the names that there are, if there can be no others."""
    found: list[Any] = []
    names: list[str] = []
    closed = bool(nodes)
    for node in nodes:
        properties, others, items = node.get("properties") or {}, node.get("additionalProperties"), node.get("items")
        first = list(node.get("prefixItems") or ())
        names += properties
        if part == _EVERY:
            found += [*properties.values(), *first, *(one for one in (others, items) if isinstance(one, Mapping))]
        elif part in properties:
            found.append(properties[part])
        elif part.isdecimal():
            found += [first[int(part)]] if int(part) < len(first) else [items] if isinstance(items, Mapping) else []
        elif isinstance(others, Mapping):
            found.append(others)
        closed = closed and others is False and not node.get("patternProperties")
    return found, names if closed else None


def _kinds(nodes: Sequence[Node]) -> frozenset[str] | None:
    """The kinds of value that the nodes allow; `None` where one does not say."""
    kinds: set[str] = set()
    for node in nodes:
        declared = node.get("type")
        values = node.get("enum") if "enum" in node else [node["const"]] if "const" in node else None
        if isinstance(declared, str):
            kinds.add(declared)
        elif isinstance(declared, list | tuple):
            kinds.update(map(str, declared))
        elif isinstance(values, list | tuple):
            kinds.update("string" if isinstance(value, str) else "value" for value in values)
        else:
            return None
    return frozenset(kinds - {"null"}) if kinds else None
