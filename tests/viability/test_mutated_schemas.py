"""Schemas with slips: each compiles, or is refused with a `SchemaError` that says where. Nothing else gets out."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from jsonschema.exceptions import SchemaError as TheirSchemaError
from jsonschema.validators import validator_for

from streamguard.errors import SchemaError
from streamguard.viability import compile_schema

D4 = "http://json-schema.org/draft-04/schema#"
D7 = "http://json-schema.org/draft-07/schema#"
D2019 = "https://json-schema.org/draft/2019-09/schema"

SEEDS: list[Any] = [
    {
        "$schema": D7,
        "$id": "http://example.com/r.json",
        "definitions": {"m": {"$id": "#money", "type": "number"}, "n": {"$id": "n.json", "minimum": 1}},
        "properties": {"total": {"$ref": "#money"}, "n": {"$ref": "n.json"}, "l": {"$ref": "#/definitions/m"}},
        "dependencies": {"a": {"required": ["b"]}, "c": ["d"]},
        "items": [{"type": "string"}, True],
        "additionalItems": {"contains": {"const": 1}},
        "if": {"propertyNames": {"pattern": "^a"}},
        "then": {"enum": [1, "a", None, {"b": [1]}]},
    },
    {
        "$schema": D4,
        "id": "http://example.com/four.json",
        "definitions": {"m": {"id": "#money", "type": ["number", "null"]}},
        "properties": {"total": {"$ref": "#money"}, "any": True, "id": {"type": "string"}},
        "minimum": 1,
        "exclusiveMinimum": True,
        "not": {"anyOf": [{"required": ["x"]}, {"multipleOf": 0.01}]},
    },
    {
        "$schema": D2019,
        "$defs": {"t": {"$anchor": "t", "$recursiveAnchor": True, "items": {"$recursiveRef": "#"}}},
        "oneOf": [{"$ref": "#t"}, {"type": "object", "unevaluatedProperties": False}],
        "minItems": 1,
        "maxContains": 2,
        "contains": True,
    },
    {
        "$defs": {
            "$comment": "shared",
            "m": {"$anchor": "m", "type": "number", "maximum": 5},
            "d": {"$dynamicAnchor": "node", "properties": {"kids": {"items": {"$dynamicRef": "#node"}}}},
            "e": {"$id": "http://example.com/e", "$ref": "#/$defs/x", "$defs": {"x": {"maxLength": 3}}},
        },
        "properties": {"total": {"$ref": "#m"}, "d": {"$ref": "#/$defs/d"}, "e": {"$ref": "http://example.com/e"}},
        "patternProperties": {"^x-": {"format": "date"}},
        "additionalProperties": {"allOf": [{"prefixItems": [{"const": "a"}], "items": False}, {"minLength": 1}]},
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"a": {"uniqueItems": True}},
        "required": ["total"],
    },
]
"""Every kind of keyword, anchor, id and reference there is."""

WRONG: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e400, -1e400, float("nan"), 10**30, 10**5000, "", "string", "#", "#/", "#x", "##",
    "http://[", "http://[::1", "//", "%zz", "#/$defs/m/x", "#/maximum/x", "#/items/-1", "#/items/9", "urn:x",
    "https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-03/schema#", D4, D7, "^(", "(?P<a", "\\",
    "\ud800", [], [[]], [1], ["a"], [{}], [True, 5], {}, {"a": 1}, {"a": {"$ref": 5}}, {"$ref": "#"}, {"id": {}}, {"$id": 5},
    {"type": "strin"}, {"": {"": {}}},
]  # fmt: skip
KEYWORDS = [
    "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$ref", "$dynamicRef", "$recursiveRef", "$schema", "$defs",
    "definitions", "properties", "patternProperties", "additionalProperties", "items", "prefixItems", "additionalItems",
    "dependencies", "dependentSchemas", "dependentRequired", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
    "contains", "minContains", "maxContains", "type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum",
    "multipleOf", "minLength", "maxLength", "pattern", "format", "minItems", "uniqueItems", "maxProperties", "propertyNames",
    "unevaluatedProperties", "unevaluatedItems", "contentSchema", "$vocabulary",
]  # fmt: skip


def places(schema: Any) -> list[tuple[Any, Any]]:
    """Every container within, with every key of it."""
    found: list[tuple[Any, Any]] = []
    todo = [schema]
    while todo:
        one = todo.pop()
        parts = list(one.items()) if isinstance(one, dict) else list(enumerate(one))
        found += [(one, key) for key, _ in parts]
        todo += [part for _, part in parts if isinstance(part, (dict, list))]
    return found


def mutated(rng: random.Random) -> Any:
    """A seed with one to three slips."""
    schema = copy.deepcopy(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 3)):
        around, key = rng.choice(places(schema) or [({}, "")])
        kind = rng.randrange(5)
        if kind == 0:
            around[key] = copy.deepcopy(rng.choice(WRONG))
        elif kind == 1:
            del around[key]
        elif kind == 2 and isinstance(around, dict):
            around[rng.choice(KEYWORDS)] = copy.deepcopy(rng.choice(WRONG))
        elif kind == 3 and isinstance(around, dict):
            around[rng.choice(KEYWORDS)] = around.pop(key)
        else:
            other, place = rng.choice(places(schema))
            around[key] = copy.deepcopy(other[place])
    return schema


def outcome(schema: Any, **options: Any) -> str:
    """What comes of a schema; whatever is no `SchemaError` is raised."""
    try:
        made = compile_schema(schema, **options)
    except SchemaError as error:
        return "refused" if error.problems and all(p.pointer is not None for p in error.problems) else "without a place"
    prefix = made.prefix()
    prefix.feed('{"total": 1, "a": [1, {"kids": []}], "c": null}') or prefix.close()
    made.validate({"total": 1, "a": [1, {"kids": []}], "c": None})
    return "compiled"


def try_many(count: int, seed: int) -> dict[str, int]:
    """How many of so many schemas compiled, and how many were refused."""
    rng = random.Random(seed)
    found = {"compiled": 0, "refused": 0}
    for i in range(count):
        schema = mutated(rng)
        registry = {"urn:x": mutated(rng), "http://example.com/other": mutated(rng)} if i % 3 == 0 else None
        try:
            found[outcome(schema, registry=registry)] += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\nof {schema!r}\nregistry {registry!r}") from error
    return found


def test_slips_of_every_kind() -> None:
    """A sample; `python -m tests.viability.test_mutated_schemas 200000` tries as many as one likes."""
    found = try_many(1_500, seed=7)
    assert min(found.values()) > 200


def test_what_jsonschema_accepts_compiles() -> None:
    """Whatever passes the meta-schema, and refers to nothing that is not there, compiles."""
    rng = random.Random(11)
    accepted = 0
    for _ in range(600):
        schema = mutated(rng)
        cls = validator_for(schema) if isinstance(schema, dict) and isinstance(schema.get("$schema"), str) else None
        try:
            json.dumps(schema)
            (cls or validator_for({})).check_schema(schema)
        except (TheirSchemaError, Exception):  # their own slips: RecursionError, TypeError
            continue
        try:
            compile_schema(schema)
        except SchemaError as error:
            wrong = [p.problem for p in error.problems]
            assert all(
                "leads" in w or "refers" in w or "neither" in w or "not supported" in w or "compile" in w for w in wrong
            ), wrong
        accepted += 1
    assert accepted > 60


BAD = [*WRONG[:-1], SEEDS[0] | {"definitions": []}, {"$id": 5, "$defs": [], "items": "x"}, object()]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_one_bad_schema_in_a_registry_harms_no_other(bad: Any) -> None:
    """References to the good ones are followed as if the bad one were not there."""
    registry = {"urn:bad": bad, "urn:good": {"type": "string", "$defs": {"n": {"$anchor": "n", "type": "null"}}}}
    schema = {"anyOf": [{"$ref": "urn:good"}, {"$ref": "urn:good#n"}, {"$ref": "urn:good#/$defs/n"}]}
    made = compile_schema(schema, registry=registry)
    assert [made.validate(value) is None for value in ("a", None, 1)] == [True, True, False]


if __name__ == "__main__":
    import sys

    print(try_many(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 1))  # noqa: T201
