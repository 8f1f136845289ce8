"""Samples satisfy the schemas that they were made for."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from streamguard.demo.documents import SCHEMA
from streamguard.demo.sample import sample

SCHEMAS: list[Any] = [
    {},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "string", "minLength": 7}, "minItems": 2},
    {"anyOf": [{"type": "number", "exclusiveMinimum": 4}, {"type": "null"}]},
    {"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["u", "v"]}}},
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                },
            }
        },
    },
    {"type": "object", "properties": {"d": {"type": "string", "format": "date"}, "f": {"const": True}}},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_samples_are_valid(schema: Any) -> None:
    """As `jsonschema` judges them."""
    jsonschema.validate(sample(schema), schema)


def test_patterns_are_not_followed() -> None:
    """The one usual keyword that is left out: the value has all members all the same."""
    assert set(sample(SCHEMA)) == set(SCHEMA["properties"])
