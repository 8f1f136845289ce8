"""The JSON Schema of what a model accepts, read off Pydantic's core schema.

In charge of a schema that may kill while an answer streams: every text that `validate_json` accepts satisfies it. The
schema that Pydantic itself writes (`json_schema()`) says what the model should be told, and refuses much of what the
model accepts: `"12"` for an integer, numbers for dates, other spellings of a UUID.

An allow-list: core types that are known are written down, narrowed by nothing but what Pydantic checks on that form of
the value. The rest is open (`{}`), and noted with the reason. A validator that runs before the type (`before`, `wrap`,
`plain`) may change anything, so its value is open as well.
"""

# ruff: noqa: ARG002  what writes a core type shares a signature
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Final

from streamguard.files.json_pointer import escape
from streamguard.models.core import (
    NOTHING,
    Config,
    Core,
    Definitions,
    extras,
    fields,
    has_default,
    is_required,
    is_strict,
    own_config,
)

Json = dict[str, Any]

EXACT: Final = 2**53
"""Integers below it are floats as well. Pydantic reads some numbers as floats, so bounds beyond it prove nothing."""

STRING: Final[Mapping[str, Any]] = {"type": "string"}
NUMBER: Final[Mapping[str, Any]] = {"type": "number"}
BOOLEAN: Final[Mapping[str, Any]] = {"type": "boolean"}
NULL: Final[Mapping[str, Any]] = {"type": "null"}


class AcceptsSchema:
    """Writes the accepts schema of one core schema.

    :ivar open: what was left open, each as `PLACE is open: WHY`.
    """

    def __init__(self, definitions: Definitions) -> None:
        self.open: list[str] = []
        self._definitions = definitions
        self._defs: dict[str, Any] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._path: list[str] = []

    def write(self, core: Core) -> Json:
        """Return the whole schema, with its `$defs`."""
        schema = self._schema(core, NOTHING)
        return {**schema, "$defs": self._defs} if self._defs else schema

    def _open(self, why: str) -> Json:
        self.open.append(f"{''.join(self._path) or 'the whole answer'} is open: {why}")
        return {}

    def _schema(self, core: Core, config: Config) -> Json:
        kind = core["type"]
        if kind == "definitions":
            self._definitions.unwrapped(core)
            return self._schema(core["schema"], config)
        if kind == "definition-ref":
            return self._referred(core, config)
        write = self._WRITERS.get(kind)
        if write is None:
            return self._open(_WHY.get(kind, f"no JSON Schema says what Pydantic's type {kind} accepts"))
        return write(self, core, config)

    def _referred(self, core: Core, config: Config) -> Json:
        """A reference, kept as one: it may lead back to itself."""
        target = self._definitions.by_ref[core["schema_ref"]]
        key = id(target), id(own_config(target, config))
        if key not in self._names:
            self._names[key] = name = f"d{len(self._names)}"
            self._defs[name] = {}  # holds the name while what is below it is written
            self._defs[name] = self._schema(target, config)
        return {"$ref": f"#/$defs/{escape(self._names[key])}"}

    def _at(self, step: str, core: Core, config: Config) -> Json:
        self._path.append(step)
        try:
            return self._schema(core, config)
        finally:
            self._path.pop()

    def _anything(self, core: Core, config: Config) -> Json:
        return {}

    def _null(self, core: Core, config: Config) -> Json:
        return dict(NULL)

    def _text(self, core: Core, config: Config) -> Json:
        return dict(STRING)

    # -- scalars -------------------------------------------------------------------------------------------------------

    def _integer(self, core: Core, config: Config) -> Json:
        schema = {"type": "integer"} | _bounds(core, integer=True)
        return schema if is_strict(core, config) else _any_of(schema, STRING, BOOLEAN)

    def _float(self, core: Core, config: Config) -> Json:
        schema = {**NUMBER, **_bounds(core)}
        return schema if is_strict(core, config) else _any_of(schema, STRING, BOOLEAN)

    def _decimal(self, core: Core, config: Config) -> Json:
        return _any_of({**NUMBER, **_bounds(core, decimal=True)}, STRING)

    def _boolean(self, core: Core, config: Config) -> Json:
        if is_strict(core, config):
            return dict(BOOLEAN)
        return _any_of(BOOLEAN, {**NUMBER, "minimum": 0, "maximum": 1}, STRING)

    def _string(self, core: Core, config: Config) -> Json:
        schema, _ = text_schema(core, config)
        strict = is_strict(core, config)
        numbers = core.get("coerce_numbers_to_str", config.get("coerce_numbers_to_str", False))
        return _any_of(schema, NUMBER, BOOLEAN) if numbers and not strict else schema

    def _bytes(self, core: Core, config: Config) -> Json:
        schema = dict(STRING)
        if config.get("val_json_bytes", "utf8") == "utf8":
            if core.get("max_length") is not None:
                schema["maxLength"] = core["max_length"]
            if core.get("min_length"):
                schema["minLength"] = math.ceil(core["min_length"] / 4)
        return schema

    def _moment(self, core: Core, config: Config) -> Json:
        return dict(STRING) if is_strict(core, config) else _any_of(STRING, NUMBER)

    def _literal(self, core: Core, config: Config) -> Json:
        return self._one_of(core["expected"])

    def _one_of(self, values: list[Any]) -> Json:
        if any(value is not None and type(value) not in (str, int, bool) for value in values):
            return self._open("it lists values that are no JSON, which JSON may spell in several ways")
        listed = {"enum": list(dict.fromkeys(values))}
        if all(type(value) is str or value is None for value in values):
            return listed
        return _any_of(listed, BOOLEAN, NUMBER)  # true is 1, and 1.0 is 1

    def _enum(self, core: Core, config: Config) -> Json:
        cls = core["cls"]
        own = any("_missing_" in vars(base) for base in cls.__mro__ if base is not Enum)
        if own or core.get("missing") is not None:
            return self._open("the enum's own _missing_ may take any value")
        values = [member.value for member in core["members"]]
        if core.get("sub_type") not in ("int", "float"):
            return self._one_of(values)
        if not all(math.isfinite(value) for value in values):
            return _any_of(NUMBER, STRING, BOOLEAN)
        return _any_of({"enum": list(dict.fromkeys(values))}, STRING, BOOLEAN)

    # -- arrays --------------------------------------------------------------------------------------------------------

    def _list(self, core: Core, config: Config) -> Json:
        return self._array(core, config, limits=("minItems", "maxItems"))

    def _set(self, core: Core, config: Config) -> Json:
        return self._array(core, config, limits=("minItems",))  # equal items become one

    def _array(self, core: Core, config: Config, limits: tuple[str, ...]) -> Json:
        schema: Json = {"type": "array"}
        if core.get("items_schema") is not None:
            schema["items"] = self._at("[]", core["items_schema"], config)
        for keyword, key in (("minItems", "min_length"), ("maxItems", "max_length")):
            if keyword in limits and core.get(key) is not None:
                schema[keyword] = core[key]
        return schema

    def _tuple(self, core: Core, config: Config) -> Json:
        items = core["items_schema"]
        variadic = core.get("variadic_item_index")
        schema: Json = {"type": "array"}
        first = items if variadic is None else items[:variadic]
        if first:
            schema["prefixItems"] = [self._at(f"[{place}]", item, config) for place, item in enumerate(first)]
        if variadic is not None and variadic == len(items) - 1:
            schema["items"] = self._at("[]", items[variadic], config)
        fixed = [item for place, item in enumerate(items) if place != variadic]
        least = sum(not has_default(item, self._definitions) for item in fixed)
        if least:
            schema["minItems"] = least
        if variadic is None:
            schema["maxItems"] = len(items)
        return schema

    # -- objects -------------------------------------------------------------------------------------------------------

    def _dict(self, core: Core, config: Config) -> Json:
        schema: Json = {"type": "object"}
        keys = core.get("keys_schema")
        plain = keys is None
        if keys is not None:
            keys = self._definitions.unwrapped(keys)
            if keys["type"] == "str":
                names, exact = text_schema(keys, config)
                plain = exact
                if len(names) > 1:
                    schema["propertyNames"] = names
            elif keys["type"] == "any":
                plain = True
        if core.get("values_schema") is not None:
            schema["additionalProperties"] = self._at("{}", core["values_schema"], config)
        if core.get("min_length") is not None:
            schema["minProperties"] = core["min_length"]
        if core.get("max_length") is not None and plain:  # else two names may become one
            schema["maxProperties"] = core["max_length"]
        return schema

    def _fields(self, core: Core, config: Config) -> Json:
        schema: Json = {"type": "object"}
        properties: Json = {}
        required: list[str] = []
        either: list[Json] = []
        config = own_config(core, config)
        for names, field in fields(core, config):
            written = self._at(f".{names.heads[0]}", field["schema"], config)
            for head in names.heads:
                properties.setdefault(head, {})
            if names.plain is not None and written:
                known = properties[names.plain]
                properties[names.plain] = {"allOf": [known, written]} if known else written
            elif names.plain is None and written:
                self._path.append(f".{names.heads[0]}")
                self._open("an AliasPath reads a part of it")
                self._path.pop()
            if is_required(core, field, self._definitions):
                if len(names.heads) == 1:
                    required.append(names.heads[0])
                else:
                    either.append({"anyOf": [{"required": [head]} for head in names.heads]})
        if core["type"] == "dataclass-args":
            for field in core["fields"]:
                properties.setdefault(field["name"], {})
        if properties:
            schema["properties"] = properties
        if required:
            schema["required"] = list(dict.fromkeys(required))
        if either:
            schema["allOf"] = either
        behaviour, extra = extras(core, config)
        if behaviour == "forbid":
            schema["additionalProperties"] = False
        elif extra is not None:
            schema["additionalProperties"] = self._at(".*", extra, config)
        return schema

    def _model(self, core: Core, config: Config) -> Json:
        if core.get("custom_init"):
            return self._open("the model has an __init__ of its own")
        named = not self._path
        if named:
            self._path.append(getattr(core.get("cls"), "__name__", "model"))
        try:
            return self._schema(core["schema"], own_config(core, config))
        finally:
            if named:
                self._path.pop()

    # -- wrappers ------------------------------------------------------------------------------------------------------

    def _inner(self, core: Core, config: Config) -> Json:
        return self._schema(core["schema"], config)

    def _default(self, core: Core, config: Config) -> Json:
        if core.get("on_error", "raise") != "raise":
            return self._open("what is wrong is replaced by the default, or left out")
        return self._schema(core["schema"], config)

    def _nullable(self, core: Core, config: Config) -> Json:
        inner = self._schema(core["schema"], config)
        return _any_of(inner, NULL) if inner else inner

    def _union(self, core: Core, config: Config) -> Json:
        choices = (choice[0] if isinstance(choice, tuple) else choice for choice in core["choices"])
        return self._branches([self._schema(choice, config) for choice in choices])

    def _tagged(self, core: Core, config: Config) -> Json:
        """By the branches alone: a function may find the tag wherever it likes."""
        return self._branches(
            [
                self._schema(choice, config)
                for choice in core["choices"].values()
                if isinstance(choice, Mapping)  # else another name of one of these
            ]
        )

    def _branches(self, schemas: list[Json]) -> Json:
        return {} if not all(schemas) else _any_of(*schemas)

    def _chain(self, core: Core, config: Config) -> Json:
        return self._schema(core["steps"][0], config)

    def _lax_or_strict(self, core: Core, config: Config) -> Json:
        if is_strict(core, config):
            return self._schema(core["strict_schema"], config)
        return self._schema(core["lax_schema"], config)

    def _json_or_python(self, core: Core, config: Config) -> Json:
        return self._schema(core["json_schema"], config)

    _WRITERS: ClassVar[Mapping[str, Callable[[Any, Core, Config], Json]]] = {
        "any": _anything,
        "none": _null,
        "bool": _boolean,
        "int": _integer,
        "float": _float,
        "decimal": _decimal,
        "str": _string,
        "bytes": _bytes,
        "date": _moment,
        "time": _moment,
        "datetime": _moment,
        "timedelta": _moment,
        "literal": _literal,
        "enum": _enum,
        "uuid": _text,
        "url": _text,
        "multi-host-url": _text,
        "json": _text,
        "list": _list,
        "set": _set,
        "frozenset": _set,
        "tuple": _tuple,
        "dict": _dict,
        "model-fields": _fields,
        "typed-dict": _fields,
        "dataclass-args": _fields,
        "model": _model,
        "dataclass": _model,
        "function-after": _inner,
        "custom-error": _inner,
        "default": _default,
        "nullable": _nullable,
        "union": _union,
        "tagged-union": _tagged,
        "chain": _chain,
        "lax-or-strict": _lax_or_strict,
        "json-or-python": _json_or_python,
    }
    """Core type → how to write it. The types that are missing are open."""


def text_schema(core: Core, config: Config) -> tuple[Json, bool]:
    """The schema of a string as such, and whether it holds everything that Pydantic checks on a string."""
    schema = dict(STRING)
    constrained = any(core.get(key) is not None for key in ("min_length", "max_length", "pattern"))
    least = core.get("min_length", config.get("str_min_length") or None)
    most = core.get("max_length", config.get("str_max_length"))
    constrained = constrained or least is not None or most is not None
    cased = any(core.get(key, config.get(f"str_{key}", False)) for key in ("to_lower", "to_upper"))
    if cased:  # a letter may become two
        return schema, not constrained
    stripped = core.get("strip_whitespace", config.get("str_strip_whitespace", False))
    if least:
        schema["minLength"] = least
    if stripped:
        return schema, not constrained
    if most is not None:
        schema["maxLength"] = most
    pattern = core.get("pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or not is_shared_pattern(pattern):
            return schema, False
        schema["pattern"] = pattern
        return schema, core.get("regex_engine", config.get("regex_engine", "rust-regex")) == "rust-regex"
    return schema, True


_DIALECT: Final = re.compile(r"&&|--|~~|\\x\{|\\[QE<>]|\\b\{|\\u\{|\\U|\(\?(?![:i]|P<)|\(\?i(?!\))|[*+?}]\+")
_NESTED: Final = re.compile(r"\[(?:[^\]\\]|\\.)*\[(?!:)")


def is_shared_pattern(pattern: str) -> bool:
    """Whether Rust's `regex`, which Pydantic uses, and ours read a pattern alike."""
    if _DIALECT.search(pattern) or _NESTED.search(pattern):
        return False
    from streamguard.viability.patterns.regexes import Pattern

    try:
        Pattern(pattern)
    except Exception:  # whatever the regular expression engine says of another dialect
        return False
    return True


def _bounds(core: Core, *, integer: bool = False, decimal: bool = False) -> Json:
    """The bounds of a number that JSON Schema can state without refusing what Pydantic takes."""
    found: Json = {}
    for key, exclusive, inclusive in (
        ("ge", None, "minimum"),
        ("gt", "exclusiveMinimum", "minimum"),
        ("le", None, "maximum"),
        ("lt", "exclusiveMaximum", "maximum"),
    ):
        bound: Any = core.get(key)
        if bound is None or isinstance(bound, bool) or not isinstance(bound, int | float | Decimal):
            continue
        if not math.isfinite(bound):
            continue
        whole = bool(bound == int(bound))
        if not (integer and whole) and not -EXACT < bound < EXACT:
            continue
        value: int | float = int(bound) if whole else float(bound)
        keyword = exclusive if exclusive and (whole or not decimal) else inclusive
        if keyword not in found:
            found[keyword] = value
    step: Any = core.get("multiple_of")
    if integer and type(step) is int and step > 0:
        found["multipleOf"] = step
    return found


def _any_of(*schemas: Mapping[str, Any]) -> Json:
    return {"anyOf": [dict(schema) for schema in schemas]} if len(schemas) > 1 else dict(schemas[0])


_WHY: Final[Mapping[str, str]] = {
    "function-before": "a before validator may change anything",
    "function-wrap": "a wrap validator may change anything",
    "function-plain": "a plain validator takes anything",
    "generator": "an iterable's items are read when it is used",
    "any": "it takes any value",
}
