"""The documents that `$ref`s lead through: their ids and anchors, their subschemas, and JSON Pointers into them.

Stands in for the resources of `referencing`, whose registry and resolver it is used by: those take for granted that a
schema has no mistake, and raise whatever a mistake happens to raise, wherever in the registry it is. Here, what is no
schema has no subschemas, and an id that is no URI is none. Does not judge: mistakes are found by `graph`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

import referencing
from jsonschema_specifications import REGISTRY as STANDARD
from referencing import Registry
from referencing._core import Resolved
from referencing.exceptions import PointerToNowhere
from referencing.jsonschema import DynamicAnchor

from streamguard.errors import Problem, SchemaError
from streamguard.files.json_pointer import escape
from streamguard.viability.schema import keywords as kw
from streamguard.viability.syntax.values_equal import Listed


class Resource:
    """A schema as a document that references lead into; what `referencing` calls a resource."""

    __slots__ = ("contents", "draft")

    def __init__(self, contents: Any, draft: int) -> None:
        self.contents = contents
        self.draft = draft

    def id(self) -> str | None:
        """The URI that it gives itself."""
        contents = self.contents
        if not isinstance(contents, dict) or (self.draft <= kw.D7 and "$ref" in contents):
            return None
        found = contents.get("id" if self.draft == kw.D4 else "$id")
        if not isinstance(found, str) or not kw.is_uri(found) or (self.draft <= kw.D7 and found.startswith("#")):
            return None
        return found.rstrip("#")

    def anchors(self) -> Iterator[Any]:
        """The names that it gives itself."""
        contents, draft = self.contents, self.draft
        if not isinstance(contents, dict):
            return
        if draft <= kw.D7:
            found = contents.get("id" if draft == kw.D4 else "$id")
            if isinstance(found, str) and found.startswith("#"):
                yield _anchor(name=found[1:], resource=self)
            return
        if isinstance(name := contents.get("$anchor"), str):
            yield _anchor(name=name, resource=self)
        if draft == kw.D2020 and isinstance(name := contents.get("$dynamicAnchor"), str):
            yield _dynamic_anchor(name=name, resource=self)

    def subresources(self) -> Iterator[Resource]:
        """The schemas right below."""
        contents, shapes = self.contents, kw.SHAPES[self.draft]
        if not isinstance(contents, dict):
            return
        for keyword in contents.keys() & shapes.keys():
            shape, value = shapes[keyword], contents[keyword]
            if isinstance(value, list) and shape in ("list", "one or list"):
                parts = value
            elif isinstance(value, dict) and shape == "map":
                parts = list(value.values())
            else:
                parts = [value] if shape in ("one", "one or list") else []
            yield from (self.below(part) for part in parts if isinstance(part, dict))

    def below(self, contents: Any) -> Resource:
        """A schema within, which may be of another draft."""
        uri = contents.get("$schema") if isinstance(contents, dict) else None
        return Resource(contents, (kw.draft_of(uri) if isinstance(uri, str) else None) or self.draft)

    def pointer(self, pointer: str, resolver: Any) -> Any:
        """What a JSON Pointer leads to.

        :raises PointerToNowhere: nothing.
        """
        contents, shape, draft = self.contents, "one", self.draft
        for part in unquote(pointer[1:]).split("/") if pointer else []:
            segment = part.replace("~1", "/").replace("~0", "~")
            if isinstance(contents, dict) and segment in contents:
                shape = kw.SHAPES[draft].get(segment, "") if shape == "one" else _WITHIN.get(shape, "")
                contents = contents[segment]
                if shape == "one or list":
                    shape = "list" if isinstance(contents, list) else "one"
            elif isinstance(contents, list) and segment.isdecimal() and int(segment) < len(contents):
                shape = "one" if shape == "list" else ""
                contents = contents[int(segment)]
            else:
                raise _nowhere(ref=pointer, resource=self)
            if shape == "one":
                entered = Resource(contents, draft).below(contents)
                draft, resolver = entered.draft, resolver.in_subresource(entered)
        return _resolved(contents=contents, resolver=resolver)


# Made through Any: theirs are typed for their own resources, and attrs hides what they take from mypy.
_anchor: Any = referencing.Anchor
_dynamic_anchor: Any = DynamicAnchor
_nowhere: Any = PointerToNowhere
_resolved: Any = Resolved

_WITHIN: Final = {"map": "one"}


def resource(contents: Any, default: int = kw.D2020) -> Any:
    """A document as a resource; `default`: its draft, if it names none."""
    return Resource(None, default).below(contents)


def combined(registry: Registry[Any] | Mapping[str, Any] | None) -> Registry[Any]:
    """The registry that a schema's references are looked up in: the one given, and the meta-schemas."""
    if isinstance(registry, Registry):
        given = {uri: registry[uri].contents for uri in registry}
        # What is no schema stays known by its name, so that references to it say so.
        usable = dict.fromkeys(given, resource(None)) | dict(_usable(given))
        both: Registry[Any] = registry.with_resources(usable.items()).combine(STANDARD)
        return both
    made: Registry[Any] = STANDARD.with_resources(_usable(registry or {}))
    return made


def _usable(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas that something may refer to; one that is no JSON, or has no URI, is not there for any reference."""
    for uri, contents in given.items():
        if isinstance(uri, str) and kw.is_uri(uri):
            with contextlib.suppress(SchemaError):
                yield uri, resource(copy(contents))


def copy(schema: Any) -> Any:
    """The schema as JSON of its own, its `enum`s made quick to ask.

    :raises SchemaError: it is no JSON.
    """
    try:
        try:
            return json.loads(json.dumps(schema), object_hook=_listing)
        except RecursionError:  # json's stands on the caller's stack
            return _copy_deep(schema)
    except (TypeError, ValueError) as error:
        raise SchemaError(Problem(problem=f"the schema is not JSON: {error}", pointer="")) from None


def _copy_deep(schema: Any) -> Any:
    """As JSON has it, with a list in place of the stack."""
    found: list[Any] = []
    todo: list[tuple[Iterator[tuple[Any, Any]], Any, int]] = [(iter([(0, schema)]), found, 0)]
    open_: set[int] = set()
    while todo:
        parts, into, source = todo[-1]
        for key, value in parts:
            made: Any = {} if isinstance(value, dict) else [] if isinstance(value, (list, tuple)) else ...
            if made is ...:
                made = json.loads(json.dumps(value))
            if isinstance(into, list):
                into.append(made)
            else:
                into[key if isinstance(key, str) else json.dumps(key)] = made
            if isinstance(value, (dict, list, tuple)):
                if id(value) in open_:
                    raise ValueError("Circular reference detected")
                open_.add(id(value))
                inner = value.items() if isinstance(value, dict) else enumerate(value)
                todo.append((iter(inner), made, id(value)))
                break
        else:
            todo.pop()
            open_.discard(source)
            if isinstance(into, dict):
                _listing(into)
    return found[0]


def _listing(schema: dict[str, Any]) -> dict[str, Any]:
    """Where a list may be an `enum`, it can be asked quickly."""
    if isinstance(schema.get("enum"), list):
        schema["enum"] = Listed(schema["enum"])
    return schema


def pointers(schema: Any) -> dict[int, str]:
    """Where each object of a schema stands, by its `id()`."""
    found: dict[int, str] = {}
    todo = [(schema, "")]
    while todo:
        value, at = todo.pop()
        if isinstance(value, dict):
            found[id(value)] = at
            todo += [(v, f"{at}/{escape(n)}") for n, v in value.items() if isinstance(v, (dict, list))]
        else:
            todo += [(v, f"{at}/{i}") for i, v in enumerate(value) if isinstance(v, (dict, list))]
    return found
