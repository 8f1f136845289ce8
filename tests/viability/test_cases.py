"""The schema prefix against rows worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.viability import compile_schema
from tests.data import path
from tests.viability.feeding import SPLITS, feed, offset

MODES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dead_at", {}),
    ("dead_at_dup", {"duplicate_names": "allow"}),
    ("dead_at_plain", {"numbers": "plain"}),
)


@pytest.mark.parametrize(("key", "options"), MODES)
def test_dead_prefix_cases(key: str, options: dict[str, Any]) -> None:
    """Every row dies at exactly its byte, in every mode and split."""
    expected, got = {}, {}
    for line in path("dead_prefix_cases.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if key != "dead_at" and key not in row:
            continue
        schema = compile_schema(row["schema"], assert_formats=bool(row.get("format_assertion")), **options)
        expected[row["id"]] = {str(row[key])}
        got[row["id"]] = {str(offset(feed(schema.prefix(), row["text"], split))) for split in SPLITS}
    assert got == expected


OWN: tuple[tuple[Any, str, int | str | None, str | None], ...] = (
    ({"type": "object"}, '"abc"', 0, "type"),
    ({"enum": ["red", "green"]}, '"gr\\u0065y"', 9, "enum"),
    ({"enum": [[1, 2], [1, 3]]}, "[1,4]", 3, "enum"),
    ({"const": 1.5}, "[", 0, "const"),
    ({"const": 1.5}, "15 ", 2, "const"),
    ({"type": "string", "minLength": 2, "maxLength": 2}, '"ab\\', 3, "maxLength"),
    ({"properties": {"a": {"enum": ["x", "y"]}}}, '{"a":"xz', 7, "enum"),
    ({"additionalProperties": False, "properties": {"a": {}, "b": {}}}, '{"a":1,"b":2,', 12, "additionalProperties"),
    ({"additionalProperties": False, "properties": {"a": {}, "b": False}}, '{"b', 2, "additionalProperties"),
    ({"maxProperties": 2, "required": ["x"]}, '{"a":1,"b', 8, "maxProperties"),
    ({"propertyNames": {"pattern": "^[a-z]+$"}}, '{"ab1', 4, "propertyNames"),
    ({"propertyNames": {"enum": ["a"]}}, '{"a":1,', 6, "propertyNames"),
    ({"minProperties": 3, "properties": {"a": {}, "b": {}}, "additionalProperties": False}, "{", 0, None),
    ({"items": {"type": "boolean"}, "uniqueItems": True}, "[true,false,", 11, "uniqueItems"),
    ({"items": {"enum": ["ab", "ac"]}, "uniqueItems": True}, '["ab","ab', 8, None),
    ({"uniqueItems": True}, "[null,n", 6, "uniqueItems"),
    ({"contains": {"type": "integer"}, "maxItems": 2}, '["a","', 5, None),
    ({"contains": True, "maxContains": 1}, "[1,", 2, "contains"),
    ({"type": "integer", "minimum": 10, "maximum": 19}, "2", 0, None),
    ({"type": "integer"}, "1e-", None, None),
    ({"type": "integer"}, "[", 0, "type"),
    ({"maximum": 9, "type": "integer", "minimum": 8}, "-", 0, None),
    ({"not": {"enum": [1, 2]}}, "1 ", 1, "enum"),
    ({"not": {"required": ["a"]}}, '{"a"', 3, "required"),
    ({"not": {"items": {"type": "integer"}}, "maxItems": 1}, "[1]", 2, "items"),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, '{"a":1,"b"', 9, "required"),
    ({"anyOf": [{"type": "string", "maxLength": 2}, {"type": "string", "pattern": "^x"}]}, '"abc', 3, None),
    ({"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"type": "null"}}, "1", 0, None),
    ({"dependentRequired": {"a": ["b"]}, "properties": {"b": False}}, '{"a"', 3, "dependentRequired"),
    ({"dependentRequired": {"b": ["a"], "a": ["b"]}}, '{"b":1,"a":2}', None, None),
    ({"dependentRequired": {"b": ["a"], "a": ["b"]}}, '{"b":1,"c":2}', 12, "dependentRequired"),
    ({"maximum": 0}, "50e-1", 0, "maximum"),
    ({"not": {"properties": {"a": {"type": "string"}}}}, '{"a":"', 5, "properties"),
    ({"enum": [{"k": ["x", "y"]}]}, '{"k":["x","z', 11, "enum"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "type": "array"}}}, "[[[1", 3, "type"),
    ({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, '{"b', 2, "unevaluatedProperties"),
    ({"prefixItems": [{}], "unevaluatedItems": False}, "[1,", 2, "unevaluatedItems"),
    (
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "contains": {},
            "minContains": 0,
            "unevaluatedItems": False,
        },
        "[1,2]",
        None,
        None,
    ),
    (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "oneOf": [{"type": "integer", "minimum": -2}, {"type": "integer", "minimum": -1}],
        },
        "15",
        0,
        None,
    ),
    (
        {"$schema": "http://json-schema.org/draft-04/schema#", "items": True, "additionalItems": False},
        "[1,{}]",
        None,
        None,
    ),
    ({"pattern": "^[ab]+$"}, '"b\\u0020"', 6, "pattern"),
    ({"patternProperties": {"^[ab]+$": {}}, "additionalProperties": False}, '{"b\\u0020"', 7, "additionalProperties"),
    ({"format": "date"}, '"2024-13', None, None),
    ({"multipleOf": 0.01, "maximum": 1}, "1.5e0", 4, "maximum"),
    ({"multipleOf": 0.5, "minimum": 1, "maximum": 1.4}, "12", 1, None),
    ({"maximum": 1000000.0}, "1e+19", 4, "maximum"),
    ({"type": "integer", "minimum": 0}, "140891", None, None),
    ({"maxLength": 1, "pattern": "b$"}, '"\u00e9', 1, "maxLength"),
    ({"minLength": 5, "pattern": "^[A-Z]{3}\\Z"}, "5", None, None),
    ({"type": "string", "minLength": 5, "pattern": "^[A-Z]{3}\\Z"}, '"', 0, None),
    (False, "1", 0, None),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, " ", 0, None),
)


@pytest.mark.parametrize(("schema", "text", "char", "keyword"), OWN)
def test_own_cases(schema: Any, text: str, char: int | None, keyword: str | None) -> None:
    """One case for each rule: the character, and where it is plain the keyword to blame."""
    for split in SPLITS:
        prefix = compile_schema(schema).prefix()
        dead = None
        for piece in split(text):
            dead = dead or prefix.feed(piece)
        assert (None if dead is None else dead.char) == char
        if keyword is not None:
            assert dead is not None
            assert dead.keyword == keyword


def test_what_a_verdict_says() -> None:
    """A verdict names the place in the document, the place in the schema, what was seen and what would be right."""
    schema = compile_schema({"properties": {"a": {"items": {"enum": ["red", "blue"]}}}})
    dead = schema.prefix().feed('{"a":["red","rosé"]}')
    assert dead is not None
    assert (dead.pointer, dead.keyword, dead.schema_pointer, dead.offset, dead.char) == (
        "/a/1", "enum", "/properties/a/items/enum", 14, 14,
    )  # fmt: skip
    assert dead.message == 'enum: "ro", expected "red"'


def test_bytes_of_a_character() -> None:
    """Where the bytes of a character tell, the byte is named: é and è share their first."""
    dead = compile_schema({"const": "é"}).prefix().feed('"è')
    assert dead is not None
    assert (dead.char, dead.offset) == (1, 2)
    dead = compile_schema({"const": "é"}).prefix().feed('"日')
    assert dead is not None
    assert (dead.char, dead.offset) == (1, 1)
    dead = compile_schema({"pattern": "^[é]"}).prefix().feed('"è')
    assert dead is not None
    assert dead.offset == 2
