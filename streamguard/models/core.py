"""Pydantic's core schema as data: what wraps what, under which configuration, and which names a field is read from.

In charge of the few facts that both the accepts schema and the places need. It validates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

Core = Mapping[str, Any]
"""One node of a core schema (`pydantic_core.core_schema.CoreSchema`), read as a mapping."""

Config = Mapping[str, Any]
"""A `pydantic_core.core_schema.CoreConfig`: what the nearest model says."""

FIELDS: Final = frozenset({"model-fields", "typed-dict", "dataclass-args"})
"""Core types that read an object's members one by one, and give validators the earlier ones (`info.data`)."""

NOTHING: Final[Config] = {}
"""No configuration. One object, so that a configuration can be told by its identity."""

_WRAPPERS: Final = frozenset(
    {"function-after", "function-before", "function-wrap", "nullable", "custom-error", "definitions", "model"}
    | {"dataclass", "default"}
)


class Definitions:
    """The shared parts of one core schema, by their references."""

    def __init__(self) -> None:
        self.by_ref: dict[str, Core] = {}

    def unwrapped(self, core: Core) -> Core:
        """Return the schema behind `definitions` and `definition-ref`."""
        while True:
            kind = core["type"]
            if kind == "definitions":
                self.by_ref |= {str(item["ref"]): item for item in core["definitions"] if "ref" in item}
                core = core["schema"]
            elif kind == "definition-ref":
                core = self.by_ref[core["schema_ref"]]
            else:
                return core

    def reachable(self, core: Core) -> list[Core]:
        """Return the definitions that a schema refers to, directly or not."""
        found: dict[str, Core] = {}
        waiting: list[Any] = [core]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Mapping):
                ref = node.get("schema_ref") if node.get("type") == "definition-ref" else None
                if ref is not None and ref not in found and ref in self.by_ref:
                    found[ref] = self.by_ref[ref]
                    waiting.append(self.by_ref[ref])
                waiting += [value for key, value in node.items() if key not in ("metadata", "serialization")]
            elif isinstance(node, list | tuple):
                waiting += node
        return list(found.values())


class FieldNames(msgspec.Struct, frozen=True):
    """From which members of the object a field may be read."""

    heads: tuple[str, ...]
    """Every member's name that may hold it or a part of it, the first choice first."""
    plain: str | None
    """The first choice, if its value is the member itself; `None` for a path into the member."""


def fields(core: Core, config: Config) -> Iterator[tuple[FieldNames, Core]]:
    """Yield the names and the field's own node of each member that a `FIELDS` schema reads."""
    listed = core["fields"]
    pairs = (
        ((field["name"], field) for field in listed if field.get("init", True))
        if core["type"] == "dataclass-args"
        else listed.items()
    )
    for name, field in pairs:
        yield _names(name, field.get("validation_alias"), config), field


def _names(name: str, alias: Any, config: Config) -> FieldNames:
    paths: list[list[Any]] = []
    if isinstance(alias, str):
        paths = [[alias]]
    elif isinstance(alias, list) and alias:
        paths = alias if isinstance(alias[0], list) else [alias]
    by_name = bool(config.get("validate_by_name", config.get("populate_by_name", False)))
    if not paths or not config.get("validate_by_alias", True):
        paths = [[name]]
    elif by_name:
        paths = [*paths, [name]]
    heads = tuple(dict.fromkeys(str(path[0]) for path in paths))
    first = paths[0]
    return FieldNames(heads, str(first[0]) if len(first) == 1 else None)


def is_required(core: Core, field: Core, definitions: Definitions) -> bool:
    """Whether a member must be there. Where any default hides below the field's wrappers, it need not."""
    if core["type"] == "typed-dict":
        total = core.get("total", (core.get("config") or {}).get("typed_dict_total", True))
        required = bool(field.get("required", total))
    else:
        required = field.get("required", True) is not False
    return required and not has_default(field["schema"], definitions)


def has_default(core: Core, definitions: Definitions) -> bool:
    """Whether a default may stand in for a missing value."""
    seen: set[int] = set()
    while id(core) not in seen:
        seen.add(id(core))
        core = definitions.unwrapped(core)
        kind = core["type"]
        if kind in ("default", "union", "chain", "lax-or-strict", "function-plain"):
            return kind == "default" or _any_default(core, definitions)
        if kind == "json-or-python":
            core = core["json_schema"]
        elif kind in _WRAPPERS and "schema" in core:
            core = core["schema"]
        else:
            return False
    return False


def _any_default(core: Core, definitions: Definitions) -> bool:
    below = [*core.get("choices", ()), *core.get("steps", ())]
    below += [core[key] for key in ("lax_schema", "strict_schema") if key in core]
    nodes = (item[0] if isinstance(item, tuple) else item for item in below)
    return any(definitions.unwrapped(node)["type"] in ("default", "missing-sentinel") for node in nodes)


def extras(core: Core, config: Config) -> tuple[str, Core | None]:
    """How a `FIELDS` schema treats other members (`ignore`, `allow`, `forbid`), and by which schema it reads them."""
    behaviour = core.get("extra_behavior") or config.get("extra_fields_behavior") or "ignore"
    return behaviour, core.get("extras_schema") if behaviour == "allow" else None


def own_config(core: Core, config: Config) -> Config:
    """The configuration below a node: a model's, a dataclass's or a typed dict's own, instead of what is around it."""
    if core["type"] in ("model", "dataclass"):
        return core.get("config") or NOTHING
    if core["type"] == "typed-dict":
        return core.get("config") or config
    return config


def is_strict(core: Core, config: Config) -> bool:
    """Whether a value must have its very type already."""
    strict = core.get("strict")
    return bool(config.get("strict", False) if strict is None else strict)


def needs_data(core: Core, definitions: Definitions) -> bool:
    """Whether a validator takes an `info` whose `data` the object around it would have to fill in."""
    seen: set[int] = set()
    waiting: list[Any] = [core]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list | tuple):
            waiting += node
            continue
        if not isinstance(node, Mapping) or id(node) in seen:
            continue
        seen.add(id(node))
        kind = node.get("type")
        if kind == "definition-ref":
            waiting.append(definitions.by_ref.get(node["schema_ref"]))
            continue
        if kind in FIELDS:
            continue  # it fills in `data` itself
        if kind == "default" and node.get("default_factory_takes_data"):
            return True
        function = node.get("function")
        if isinstance(function, Mapping) and function.get("type") == "with-info":
            return True
        waiting += [value for key, value in node.items() if key not in ("metadata", "serialization", "ref")]
    return False
