"""What kind of value an expression can have, as far as a JSON Schema says, and what lies inside it.

In charge of reading a schema for names and kinds alone. It never says less than the schema: where a schema leaves
something open, anything is possible. A member that a schema does not list is a mistake, unless the schema says
`additionalProperties: true`, gives them a schema or a pattern, or lists no member at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from streamguard.files.json_pointer import parse_pointer

KINDS: Final = frozenset(("number", "string", "boolean", "array", "object", "date"))
_JSON: Final[Mapping[str, frozenset[str]]] = {
    "integer": frozenset(("number",)),
    "null": frozenset(),
    **{kind: frozenset((kind,)) for kind in KINDS if kind != "date"},
}
_JSON_KINDS: Final = KINDS - {"date"}

MAX_SHAPES: Final = 64
"""Alternatives of one schema beyond which anything is possible."""

_MAX_STEPS: Final = 40
"""References and combinations inside one another beyond which anything is possible."""


class Shape(msgspec.Struct, frozen=True):
    """One alternative of a schema, without references and combinations."""

    kinds: frozenset[str] = _JSON_KINDS
    members: Mapping[str, tuple[Any, ...]] = {}
    """What each listed member must satisfy."""
    open: bool = False
    """Whether it may have other members, of which nothing is known."""
    others: tuple[Any, ...] = ()
    """What its other members must satisfy."""
    first: tuple[Any, ...] = ()
    """What the first items must satisfy, each."""
    items: tuple[Any, ...] = ()
    """What the other items must satisfy."""


class Type(msgspec.Struct, frozen=True):
    """What is known of a value before there is one."""

    kinds: frozenset[str] = KINDS
    shapes: tuple[Shape, ...] | None = None
    """What an object or array is like; `None` if nothing is known."""
    item: Type | None = None
    """What the items of a computed array are."""

    @property
    def known(self) -> bool:
        """Whether it is of one kind."""
        return len(self.kinds) == 1

    def words(self) -> str:
        """Name the kinds, for a person."""
        return kinds_in_words(self.kinds)


def kinds_in_words(kinds: frozenset[str]) -> str:
    """Name kinds of values, each with its article."""
    *first, last = [f"an {kind}" if kind[0] in "aeiou" else f"a {kind}" for kind in sorted(kinds)]
    return f"{', '.join(first)} or {last}" if first else last


ANYTHING: Final = Type()
NUMBER: Final = Type(frozenset(("number",)))
STRING: Final = Type(frozenset(("string",)))
BOOLEAN: Final = Type(frozenset(("boolean",)))
DATE: Final = Type(frozenset(("date",)))


def array_of(item: Type) -> Type:
    """Return the type of a computed array."""
    return Type(frozenset(("array",)), None, item)


def union(types: Sequence[Type]) -> Type:
    """Return what a value is that is one of several."""
    kinds = frozenset().union(*(one.kinds for one in types)) or KINDS
    shapes: tuple[Shape, ...] | None = ()
    for one in types:
        shapes = None if shapes is None or one.shapes is None else (*shapes, *one.shapes)
    items = [one.item for one in types if one.item is not None]
    return Type(kinds, shapes, union(items) if items else None)


class SchemaTypes:
    """The types that a schema gives.

    :param root: the schema, `True` for none.
    """

    def __init__(self, root: Any) -> None:
        self._root = root

    def document(self) -> Type:
        """Return what the whole document is."""
        return self._type((self._root,))

    def member(self, of: Type, name: str) -> Type | list[str]:
        """Return what a member of an object is; or the members that it has, if it is none of them."""
        if of.shapes is None:
            return ANYTHING
        found: list[Type] = []
        listed: dict[str, None] = {}
        for shape in of.shapes:
            if "object" not in shape.kinds:
                continue
            listed |= dict.fromkeys(shape.members)
            if name in shape.members:
                found.append(self._type(shape.members[name]))
            elif shape.others:
                found.append(self._type(shape.others))
            elif shape.open or not shape.members:
                return ANYTHING
        return union(found) if found else list(listed)

    def item(self, of: Type, index: int | None = None) -> Type:
        """Return what an item of an array is; `None` for any item."""
        if of.item is not None:
            return of.item
        if of.shapes is None:
            return ANYTHING
        found: list[Type] = []
        for shape in of.shapes:
            if "array" not in shape.kinds:
                continue
            if index is not None and 0 <= index < len(shape.first):
                found.append(self._type((shape.first[index],)))
                continue
            if index is None:
                found += [self._type((one,)) for one in shape.first]
            found.append(self._type(shape.items) if shape.items else ANYTHING)
        return union(found) if found else ANYTHING

    def values(self, of: Type) -> Type:
        """Return what any member of an object is."""
        if of.shapes is None:
            return ANYTHING
        found: list[Type] = []
        for shape in of.shapes:
            if "object" in shape.kinds:
                found += [self._type(one) for one in shape.members.values()]
                if shape.others or shape.open or not shape.members:
                    found.append(self._type(shape.others) if shape.others else ANYTHING)
        return union(found) if found else ANYTHING

    def _type(self, nodes: tuple[Any, ...]) -> Type:
        shapes = self._shapes(nodes, 0)
        if shapes is None:
            return ANYTHING
        kinds = frozenset[str]().union(*(shape.kinds for shape in shapes))
        return Type(kinds, tuple(shapes)) if kinds else ANYTHING

    def _shapes(self, nodes: Sequence[Any], depth: int) -> list[Shape] | None:
        """The alternatives of what satisfies all nodes; `None` for anything."""
        found = [Shape()]
        for node in nodes:
            these = self._shapes_of(node, depth)
            if these is None:
                return None
            found = [_both(one, other) for one in found for other in these]
            if len(found) > MAX_SHAPES:
                return None
        return found

    def _shapes_of(self, node: Any, depth: int) -> list[Shape] | None:
        if node is False:
            return []
        if not isinstance(node, Mapping):
            return [Shape()]
        if depth > _MAX_STEPS or "$dynamicRef" in node or "$recursiveRef" in node:
            return None
        found: list[Shape] | None = [_own(node)]
        for some in self._combined(node, depth):
            if some is None or found is None:
                return None
            found = [_both(one, other) for one in found for other in some]
            if len(found) > MAX_SHAPES:
                return None
        return found

    def _combined(self, node: Mapping[str, Any], depth: int) -> Iterator[list[Shape] | None]:
        if "$ref" in node:
            target = self._target(node["$ref"])
            yield None if target is None else self._shapes_of(target, depth + 1)
        for each in _listed(node, "allOf"):
            yield self._shapes_of(each, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            some: list[Shape] = []
            for each in _listed(node, keyword):
                these = self._shapes_of(each, depth + 1)
                if these is None:
                    yield None
                    return
                some += these
            if keyword in node:
                yield some

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        at = self._root
        try:
            for part in parse_pointer(reference[1:].replace("%7B", "{").replace("%7D", "}")):
                at = at[int(part)] if isinstance(at, list | tuple) else at[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        return at


def _listed(node: Mapping[str, Any], keyword: str) -> Sequence[Any]:
    value = node.get(keyword)
    return value if isinstance(value, list | tuple) else ()


def _own(node: Mapping[str, Any]) -> Shape:
    """What a node says by its own keywords."""
    kinds = _JSON_KINDS
    said = node.get("type")
    if said is not None:
        names = said if isinstance(said, list | tuple) else (said,)
        kinds &= frozenset().union(*(_JSON.get(str(name), _JSON_KINDS) for name in names))
    constants = [node["const"]] if "const" in node else _listed(node, "enum")
    if constants or "enum" in node:
        kinds &= frozenset().union(*(_kind_of(value) for value in constants))
    members = node.get("properties")
    members = members if isinstance(members, Mapping) else {}
    extra = node.get("additionalProperties", node.get("unevaluatedProperties"))
    maybe = any(key in node for key in ("if", "then", "else", "not", "dependentSchemas", "dependencies"))
    patterns = isinstance(node.get("patternProperties"), Mapping) and bool(node["patternProperties"])
    items = node.get("items", node.get("additionalItems"))
    first = _listed(node, "prefixItems")
    if isinstance(items, list | tuple):
        first, items = items, node.get("additionalItems")
    return Shape(
        kinds,
        {str(name): (one,) for name, one in members.items()},
        extra is True or patterns or maybe,
        (extra,) if isinstance(extra, Mapping) and not patterns else (),
        tuple(first),
        () if items is None or isinstance(items, bool) else (items,),
    )


def _kind_of(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, bool):
        return frozenset(("boolean",))
    if isinstance(value, str):
        return frozenset(("string",))
    if isinstance(value, Mapping):
        return frozenset(("object",))
    return frozenset(("array",)) if isinstance(value, list | tuple) else frozenset(("number",))


def _both(one: Shape, other: Shape) -> Shape:
    """What satisfies both."""
    members: dict[str, tuple[Any, ...]] = dict(one.members)
    for name, nodes in other.members.items():
        members[name] = (*members.get(name, ()), *nodes)
    longer, shorter = (one, other) if len(one.first) >= len(other.first) else (other, one)
    return Shape(
        one.kinds & other.kinds,
        members,
        one.open or other.open,
        (*one.others, *other.others),
        longer.first or shorter.first,
        (*one.items, *other.items),
    )


LEGIBLE: Final = re.compile(r"[^\W\d]\w*").fullmatch
"""Matches a name that can be written behind a point."""
