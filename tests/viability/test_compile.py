"""`viability.compile`: which schemas are taken, which are refused and with what words, and what is known of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from referencing import Registry, Resource

from streamguard.errors import SchemaError
from streamguard.viability import Dead, LateKeyword, compile_schema
from tests.viability.feeding import each, feed

D4 = "http://json-schema.org/draft-04/schema#"
D6 = "http://json-schema.org/draft-06/schema#"
D7 = "http://json-schema.org/draft-07/schema"
D2019 = "https://json-schema.org/draft/2019-09/schema"


def dies(schema: Any, text: str, **options: Any) -> int | str | None:
    dead = feed(compile_schema(schema, **options).prefix(), text, each)
    return None if dead is None else dead.char


@pytest.mark.parametrize(
    ("schema", "pointer", "problem"),
    [
        ([], "", "a schema is an object, true or false"),
        ({"type": "strin"}, "/type", "one of object, array, string"),
        ({"properties": {"a": {"minLength": "3"}}}, "/properties/a/minLength", '"3" is not an integer, 0 or more'),
        ({"properties": {"a/b": {"maximum": None}}}, "/properties/a~1b/maximum", "null is not a number"),
        ({"required": "a"}, "/required", "a list of names"),
        ({"pattern": "("}, "/pattern", "does not compile"),
        ({"patternProperties": {"[": {}}}, "/patternProperties/[", "does not compile"),
        ({"$ref": "#/$defs/a"}, "/$ref", '"#/$defs/a" leads nowhere'),
        ({"$ref": "https://example.org/a.json"}, "/$ref", "is neither in the schema nor in the registry"),
        ({"$ref": "#"}, "/", "without end"),
        ({"allOf": [{"anyOf": [{"$ref": "#/allOf/0"}]}]}, "/allOf/0", "without end"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "/$schema", "draft-03 is not supported"),
        ({"multipleOf": 0}, "/multipleOf", "a number above 0"),
        ({"items": 3}, "/items", "3 is not a schema"),
        ({"const": {1, 2}}, "", "not JSON"),
    ],
)
def test_mistakes(schema: Any, pointer: str, problem: str) -> None:
    """A schema that cannot be used says where and why."""
    with pytest.raises(SchemaError) as raised:
        compile_schema(schema)
    assert raised.value.pointer == pointer
    assert problem in raised.value.problem


def test_all_mistakes_at_once() -> None:
    """Every mistake is named, not only the first."""
    with pytest.raises(SchemaError) as raised:
        compile_schema({"type": "x", "properties": {"a": {"minimum": "1"}}, "allOf": [{"$ref": "#/nowhere"}]})
    pointers = {problem.pointer for problem in raised.value.problems}
    assert pointers == {"/type", "/properties/a/minimum", "/allOf/0/$ref"}


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"enum": []},
        {"not": {}},
        {"type": "string", "enum": [1]},
        {"minLength": 3, "maxLength": 2, "type": "string"},
        {"type": "integer", "minimum": 1.2, "maximum": 1.8},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
        {"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#"}}},
    ],
)
def test_unsatisfiable(schema: Any) -> None:
    """A schema without instances is known as such, and every document is dead at its first character."""
    made = compile_schema(schema)
    assert made.satisfiable is False
    dead = made.prefix().feed(" 1")
    assert isinstance(dead, Dead)
    assert (dead.char, dead.keyword) == (0, "schema")


def test_recursion_that_ends() -> None:
    """A recursive schema with finite instances is satisfiable."""
    tree = {"type": "object", "required": ["v"], "properties": {"v": {}, "kids": {"items": {"$ref": "#"}}}}
    assert compile_schema(tree).satisfiable is True
    assert dies(tree, '{"v":1,"kids":[{"kids":[]}]}') == 25


@pytest.mark.parametrize(
    ("schema", "text", "where"),
    [
        ({"$schema": D4, "maximum": 5, "exclusiveMaximum": True}, "[5]", None),
        ({"$schema": D4, "items": {"maximum": 5, "exclusiveMaximum": True}}, "[5]", 2),
        ({"$schema": D4, "items": {"type": "integer"}}, "[1.0]", 2),
        ({"$schema": D6, "items": {"type": "integer"}}, "[1.0]", None),
        ({"$schema": D4, "const": 1}, "2", None),
        ({"$schema": D6, "const": 1}, "2", 0),
        ({"$schema": D6, "if": {}, "then": False}, "2", None),
        ({"$schema": D7, "if": {}, "then": False}, "2", 0),
        ({"$schema": D7, "definitions": {"s": {}}, "$ref": "#/definitions/s", "maxLength": 1}, '"ab"', None),
        ({"$schema": D2019, "$defs": {"s": {}}, "$ref": "#/$defs/s", "maxLength": 1}, '"ab"', 2),
        ({"$schema": D7, "items": [{}], "additionalItems": False}, "[1,2]", 2),
        ({"items": {}, "additionalItems": False}, "[1,2]", None),
        ({"$schema": D7, "dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, '{"a":1}', 6),
        ({"$schema": D7, "dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, '{"c":1}', 6),
        ({"$schema": D4, "id": "http://x.org/a", "items": {"$ref": "#/d"}, "d": {"type": "null"}}, "[1", 1),
        ({"$schema": D2019, "$recursiveAnchor": True, "type": "array", "items": {"$recursiveRef": "#"}}, "[[1", 2),
        ({"$schema": D2019, "properties": {"a": {}}, "unevaluatedProperties": False}, '{"b', 2),
        ({"$schema": D7, "unevaluatedProperties": False}, '{"b":1}', None),
        ({"prefixItems": [{"type": "null"}]}, "[1", 1),
        ({"$schema": D2019, "prefixItems": [{"type": "null"}]}, "[1]", None),
        ({"$anchor": "r", "properties": {"a": {"$ref": "#r"}}, "type": "object"}, '{"a":1', 5),
        ({"$id": "https://x.org/", "$defs": {"n": {"$id": "n", "type": "null"}}, "items": {"$ref": "n"}}, "[1", 1),
        ({"$dynamicAnchor": "n", "type": "object", "properties": {"a": {"$dynamicRef": "#n"}}}, '{"a":1', 5),
    ],
)  # fmt: skip
def test_drafts(schema: Any, text: str, where: int | None) -> None:
    """`$schema` decides how keywords are read; 2020-12 without one."""
    assert dies(schema, text) == where


def test_a_registry() -> None:
    """A `$ref` leads to what the registry holds, as schemas by URI or as a `referencing.Registry`."""
    schema = {"items": {"$ref": "https://x.org/item"}}
    assert dies(schema, "[1]", registry={"https://x.org/item": {"type": "null"}}) == 1
    resource = Resource.from_contents({"$schema": D7, "items": [{"type": "null"}]})
    registry = Registry().with_resource("https://x.org/item", resource)
    assert dies(schema, "[[1]]", registry=registry) == 2


def test_formats_only_where_asserted() -> None:
    """`format` is an annotation unless asked for."""
    schema = {"format": "date"}
    assert dies(schema, '"2024-13"') is None
    assert dies(schema, '"2024-13"', assert_formats=True) == 7
    assert dies(schema, '"2023-02-29"', assert_formats=True) == 10
    assert dies({"format": "uuid"}, '"123e4567-e', assert_formats=True) == "eof"
    assert dies({"format": "uuid"}, '"123e45678', assert_formats=True) == 9
    assert dies({"format": "date-time"}, '"2024-01-01T25', assert_formats=True) == 13
    assert dies({"format": "ipv4"}, '"1.2.3.4.', assert_formats=True) == 8
    assert dies({"format": "email"}, '"nobody"', assert_formats=True) == 7
    assert dies({"format": "nobody-knows"}, '"x"', assert_formats=True) is None


def test_late_keywords() -> None:
    """What a beginning cannot answer is told, with the reason."""
    schema = {
        "properties": {
            "a": {"pattern": "^ok$"},
            "b": {"pattern": "late"},
            "c": {"pattern": "^(?=x)y(?<!z)"},
            "d": {"multipleOf": 0.1},
            "e": {"format": "email"},
        }
    }
    assert [(late.pointer, late.keyword) for late in compile_schema(schema, assert_formats=True).late_keywords] == [
        ("/properties/b/pattern", "pattern"),
        ("/properties/c/pattern", "pattern"),
        ("/properties/e/format", "format"),
    ]
    late = compile_schema({"pattern": "x"}).late_keywords
    assert late == (LateKeyword("/pattern", "pattern", 'it does not begin with "^", so that a match may still come'),)


def test_a_schema_is_shared_and_never_changes() -> None:
    """Documents do not disturb each other, and the caller's schema is copied."""
    given = {"properties": {"a": {"enum": ["xy", "xz"]}}}
    schema = compile_schema(given)
    given["properties"]["a"]["enum"].clear()
    one, other = schema.prefix(), schema.prefix()
    for char in '{"a":"x':
        assert one.feed(char) is None
        assert other.feed(char) is None
    assert one.feed("q") is not None
    assert other.feed('y"}') is None
    assert {schema: 1}[schema] == 1


def test_syntax_and_limits_come_first_in_a_schema_prefix_too() -> None:
    """The schema prefix knows everything the syntax prefix does."""
    schema = compile_schema({"type": "object"}, max_depth=2, max_digits=3)
    assert feed(schema.prefix(), '{"a":[[', each).keyword == "depth"  # type: ignore[union-attr]
    assert feed(schema.prefix(), '{"a":1234', each).keyword == "number"  # type: ignore[union-attr]
    assert feed(schema.prefix(), '{"a":1,"a"', each).keyword == "duplicate_name"  # type: ignore[union-attr]
    assert feed(schema.prefix(), "{} {", each).keyword == "trailing"  # type: ignore[union-attr]
    assert feed(schema.prefix(), "{", each).keyword == "malformed"  # type: ignore[union-attr]


def test_the_scanner_alone_imports_no_jsonschema() -> None:
    """Policies without a schema do not pay for one."""
    code = "import streamguard.viability, sys; assert 'jsonschema' not in sys.modules and 'regex' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
