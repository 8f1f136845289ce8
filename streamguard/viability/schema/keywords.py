"""Which keywords a draft of JSON Schema has, and what their values must look like.

In charge of: recognising a draft by `$schema`, and telling a mistake in a schema from a keyword nobody knows. Does not
know what the keywords mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from streamguard.viability.syntax.grammar import ANY, ARRAY, FALSE, NULL, NUMBER, OBJECT, STRING, TRUE

D4, D6, D7, D2019, D2020 = 4, 6, 7, 2019, 2020

DRAFTS: Final[dict[str, int]] = {
    "http://json-schema.org/draft-04/schema": D4,
    "http://json-schema.org/draft-06/schema": D6,
    "http://json-schema.org/draft-07/schema": D7,
    "https://json-schema.org/draft/2019-09/schema": D2019,
    "https://json-schema.org/draft/2020-12/schema": D2020,
}
REFUSED: Final = {"http://json-schema.org/draft-03/schema": "draft-03"}
VALIDATION: Final = "https://json-schema.org/draft/2020-12/vocab/validation"

TYPES: Final = {
    "object": OBJECT,
    "array": ARRAY,
    "string": STRING,
    "number": NUMBER,
    "integer": NUMBER,
    "boolean": TRUE | FALSE,
    "null": NULL,
}
EVERY_KIND: Final = tuple(1 << i for i in range(7))
assert sum(EVERY_KIND) == ANY  # the kinds are the bits of ANY


def draft_of(uri: str) -> int | None:
    """The draft that a `$schema` names; `None` for one nobody knows."""
    uri = uri.removesuffix("#")
    return DRAFTS.get(uri) or DRAFTS.get(uri.replace("https://json-schema.org/draft-", "http://json-schema.org/draft-"))


def is_uri(text: str) -> bool:
    """Whether a URI reference can be taken apart."""
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0 and int(value) == value


def _is_schema(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_types(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return isinstance(value, list) and all(isinstance(name, str) and name in TYPES for name in value)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_schema, value))


def _is_schema_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


def _is_names_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_names, value.values()))


def _is_dependencies(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_schema(v) or _is_names(v) for v in value.values())


Check = tuple[Callable[[Any], bool], str]
_SCHEMA: Final[Check] = (_is_schema, "a schema")
_SCHEMAS: Final[Check] = (_is_schemas, "a list of schemas")
_MAP: Final[Check] = (_is_schema_map, "an object of schemas")
_COUNT: Final[Check] = (_is_count, "an integer, 0 or more")
_NUMBER: Final[Check] = (_is_number, "a number")
_STRING: Final[Check] = (lambda v: isinstance(v, str), "a string")
_BOOL: Final[Check] = (lambda v: isinstance(v, bool), "true or false")
_NAMES: Final[Check] = (_is_names, "a list of names")
_LIST: Final[Check] = (lambda v: isinstance(v, list), "a list")
_ANYTHING: Final[Check] = (lambda _: True, "a value")
_DIVISOR: Final[Check] = (lambda v: _is_number(v) and v > 0, "a number above 0")
_ITEMS: Final[Check] = (lambda v: _is_schema(v) or _is_schemas(v), "a schema or a list of schemas")
_EXTRA: Final[Check] = (_is_schema, "a schema")
_TYPE: Final[Check] = (_is_types, f"one of {', '.join(TYPES)}, or a list of them")

_URI: Final[Check] = (lambda v: isinstance(v, str) and is_uri(v), "a URI")
_DEPENDENCIES: Final[Check] = (_is_dependencies, "an object of schemas or lists of names")

_D4: Final[dict[str, Check]] = {
    "id": _URI,
    "$ref": _STRING,
    "type": _TYPE,
    "enum": _LIST,
    "allOf": _SCHEMAS,
    "anyOf": _SCHEMAS,
    "oneOf": _SCHEMAS,
    "not": _SCHEMA,
    "properties": _MAP,
    "patternProperties": _MAP,
    "additionalProperties": _EXTRA,
    "required": _NAMES,
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "dependencies": _DEPENDENCIES,
    "items": _ITEMS,
    "additionalItems": _EXTRA,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "uniqueItems": _BOOL,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": _STRING,
    "format": _STRING,
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _BOOL,
    "exclusiveMaximum": _BOOL,
    "multipleOf": _DIVISOR,
}
_D6: Final = {k: v for k, v in _D4.items() if k != "id"} | {
    "$id": _URI,
    "const": _ANYTHING,
    "contains": _SCHEMA,
    "propertyNames": _SCHEMA,
    "exclusiveMinimum": _NUMBER,
    "exclusiveMaximum": _NUMBER,
}
_D7: Final = _D6 | {"if": _SCHEMA, "then": _SCHEMA, "else": _SCHEMA}
_D2019: Final = {k: v for k, v in _D7.items() if k != "dependencies"} | {
    "$anchor": _STRING,
    "$recursiveRef": _STRING,
    "dependentRequired": (_is_names_map, "an object of lists of names"),
    "dependentSchemas": _MAP,
    "minContains": _COUNT,
    "maxContains": _COUNT,
    "unevaluatedItems": _SCHEMA,
    "unevaluatedProperties": _SCHEMA,
}
_D2020: Final = {k: v for k, v in _D2019.items() if k not in ("additionalItems", "$recursiveRef")} | {
    "$dynamicAnchor": _STRING,
    "$dynamicRef": _STRING,
    "prefixItems": _SCHEMAS,
    "items": _SCHEMA,
}
KEYWORDS: Final[dict[int, dict[str, Check]]] = {D4: _D4, D6: _D6, D7: _D7, D2019: _D2019, D2020: _D2020}

_DIALECT: Final = 'or name the dialect that it is written in, such as "$schema": "http://json-schema.org/{}/schema#"'


def ignored(keyword: str, value: Any, draft: int) -> str | None:
    """Why a keyword that says nothing in this draft was probably meant to, and what to write; `None` if it was not."""
    if keyword == "nullable" and value is True:
        return 'nullable is OpenAPI\'s, and says nothing in JSON Schema: write "null" into type, or anyOf'
    if keyword == "dependencies" and draft >= D2019:
        return (
            "dependencies says nothing since 2019-09: write dependentRequired or dependentSchemas, "
            + _DIALECT.format("draft-07")
        )
    if keyword == "additionalItems" and draft == D2020:
        return "additionalItems says nothing since 2020-12: write prefixItems and items, " + _DIALECT.format("draft-07")
    return None


def instead(keyword: str, value: Any, draft: int) -> str:
    """What to write for a value that another draft allows; empty if none does."""
    if keyword == "items" and isinstance(value, list) and draft == D2020:
        return ": a list is prefixItems since 2020-12 (pydantic 1 wrote items): write that, " + _DIALECT.format(
            "draft-07"
        )
    if keyword in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(value, bool) and draft > D4:
        bound = keyword.removeprefix("exclusive").lower()
        return f": true is draft-04's: write the number here instead of in {bound}, " + _DIALECT.format("draft-04")
    if keyword == "required" and isinstance(value, bool):
        return ": required lists names, beside properties, since draft-04"
    if keyword == "type" and value == "any":
        return ": leave type out for any value"
    return ""


IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies"})
OF_STRINGS: Final = frozenset({"minLength", "maxLength", "pattern", "format"})
OF_NUMBERS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OF_OBJECTS: Final = frozenset(
    {
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "minProperties",
        "maxProperties",
        "propertyNames",
        "dependentRequired",
        "dependencies",
        "unevaluatedProperties",
    }
)
OF_ARRAYS: Final = frozenset(
    {
        "prefixItems",
        "items",
        "additionalItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "unevaluatedItems",
    }
)
"""Keywords by what they are about."""

_SHAPE_OF: Final = {
    id(_SCHEMA): "one",
    id(_EXTRA): "one",
    id(_SCHEMAS): "list",
    id(_ITEMS): "one or list",
    id(_MAP): "map",
    id(_DEPENDENCIES): "map",
}
SHAPES: Final[dict[int, dict[str, str]]] = {
    draft: {keyword: _SHAPE_OF[id(check)] for keyword, check in checks.items() if id(check) in _SHAPE_OF}
    | {"definitions": "map"}
    | ({"$defs": "map", "contentSchema": "one"} if draft >= D2019 else {})
    for draft, checks in KEYWORDS.items()
}
"""Per draft, which keywords hold schemas: `one`, a `list` of them, a `map`, or `one or list`."""

ASSERTIONS: Final = frozenset(
    [
        "type",
        "enum",
        "const",
        "required",
        "minProperties",
        "maxProperties",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "dependentRequired",
        "minContains",
        "maxContains",
    ]
)
"""Keywords of the validation vocabulary, which a meta-schema may leave out."""
