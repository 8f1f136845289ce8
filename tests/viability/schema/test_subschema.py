"""`viability.subschema`: where the schema of a value stands."""

from __future__ import annotations

import pytest

from streamguard.viability.schema.subschema import subschema

SCHEMA = {
    "type": "object",
    "properties": {
        "total": {"$ref": "#/$defs/money"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "pair": {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "null"}},
        "old": {"items": [{"type": "string"}]},
        "a/b~": {"type": "string"},
        "any": True,
        "either": {"anyOf": [{"properties": {"x": {}}}]},
        "loop": {"$ref": "#/properties/loop"},
        "away": {"$ref": "https://example.org/schema"},
    },
    "$defs": {"money": {"type": "number"}, "line": {"properties": {"price": {"$ref": "#/$defs/money"}}}},
}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("total",), "/properties/total"),
        (("lines",), "/properties/lines"),
        (("lines", "7"), "/properties/lines/items"),
        (("lines", "0", "price"), "/$defs/line/properties/price"),
        (("pair", "1"), "/properties/pair/prefixItems/1"),
        (("pair", "2"), "/properties/pair/items"),
        (("old", "0"), "/properties/old/items/0"),
        (("a/b~",), "/properties/a~1b~0"),
        ((), None),
        (("any",), None),
        (("none",), None),
        (("lines", "x"), None),
        (("old", "1"), None),
        (("either", "x"), None),
        (("loop", "x"), None),
        (("away", "x"), None),
        (("total", "x"), None),
    ],
)
def test_where_keywords_lead(path: tuple[str, ...], place: str | None) -> None:
    """Without a choice, keywords lead to one place or to none."""
    assert subschema(SCHEMA, path) == place
