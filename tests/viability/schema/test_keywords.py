"""`viability.schema.keywords`: what a schema of another dialect is told."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.errors import SchemaError
from streamguard.viability import compile_schema

D4 = "http://json-schema.org/draft-04/schema#"
D7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "pointer", "said"),
    [
        ({"properties": {"a": {"type": "string", "nullable": True}}}, "/properties/a/nullable", "OpenAPI"),
        ({"$schema": D7, "nullable": True}, "/nullable", "OpenAPI"),
        ({"dependencies": {"a": ["b"]}}, "/dependencies", "dependentRequired"),
        ({"items": {"additionalItems": False}}, "/items/additionalItems", "prefixItems"),
    ],
)
def test_what_says_nothing(schema: Any, pointer: str, said: str) -> None:
    """A keyword of another dialect is ignored, and it is told what to write."""
    [hint] = compile_schema(schema).hints
    assert hint.pointer == pointer
    assert said in hint.problem


@pytest.mark.parametrize(
    "schema",
    [
        {"nullable": False},
        {"properties": {"nullable": {"type": "boolean"}, "dependencies": True}},
        {"$schema": D7, "dependencies": {"a": ["b"]}, "additionalItems": False},
        {"const": {"nullable": True}},
        {"x-anything": True, "title": "t"},
    ],
)
def test_what_needs_no_hint(schema: Any) -> None:
    """Names of members, and keywords of the schema's own dialect."""
    assert compile_schema(schema).hints == ()


@pytest.mark.parametrize(
    ("schema", "pointer", "said"),
    [
        ({"properties": {"t": {"items": [{"type": "string"}]}}}, "/properties/t/items", "prefixItems"),
        ({"minimum": 1, "exclusiveMinimum": True}, "/exclusiveMinimum", "instead of in minimum"),
        ({"$schema": D7, "exclusiveMaximum": False}, "/exclusiveMaximum", "draft-04"),
        ({"properties": {"a": {"required": True}}}, "/properties/a/required", "beside properties"),
        ({"type": "any"}, "/type", "leave type out"),
        ({"minLength": 1e400}, "/minLength", "not an integer"),
        ({"$id": 5}, "/$id", "a URI"),
        ({"$id": "http://[::1"}, "/$id", "a URI"),
        ({"$schema": D4, "items": {"id": {"type": "string"}}}, "/items/id", "a URI"),
    ],
)
def test_what_is_refused(schema: Any, pointer: str, said: str) -> None:
    """With what to write, where another dialect allows it."""
    with pytest.raises(SchemaError) as raised:
        compile_schema(schema)
    assert raised.value.problems[0].pointer == pointer
    assert said in raised.value.problems[0].problem
