"""Hypothesis strategies for schemas and instances that meet: few names, few values, every keyword."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

STRINGS = ("", "a", "b", "ab", "abc", "ba", "é", "a\n", "1", "x", "😀")
NUMBERS = (0, 1, 2, 3, 5, 10, 12, -1, 1.5, 2.5, 0.5, 100, -2.5, 15)
NAMES = ("a", "b", "ab", "c", "é")
PATTERNS = ("^a", "b$", "^[ab]+$", "a", "^a?b$", "^(?!a)", "^x-", "^.{2}$", "^(a|b)$", "^[a-b]*.$")
TYPES = ("string", "integer", "number", "object", "array", "boolean", "null")

scalars = st.one_of(st.sampled_from(STRINGS), st.sampled_from(NUMBERS), st.sampled_from((True, False, None)))
instances = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
shallow = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(NAMES), scalars, max_size=2)
counts = st.integers(0, 3)


def _over(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    names = st.sampled_from(NAMES)
    several = st.lists(inner, min_size=1, max_size=3)
    return {
        "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True),
        "enum": st.lists(shallow, min_size=1, max_size=4),
        "const": shallow,
        "minLength": counts,
        "maxLength": counts,
        "pattern": st.sampled_from(PATTERNS),
        "minimum": st.sampled_from(NUMBERS),
        "maximum": st.sampled_from(NUMBERS),
        "exclusiveMinimum": st.sampled_from(NUMBERS),
        "exclusiveMaximum": st.sampled_from(NUMBERS),
        "multipleOf": st.sampled_from((1, 2, 5, 0.5, 10, 3)),
        "properties": st.dictionaries(names, inner, min_size=1, max_size=3),
        "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), inner, min_size=1, max_size=2),
        "additionalProperties": st.just(False) | inner,
        "propertyNames": inner,
        "required": st.lists(names, min_size=1, max_size=2, unique=True),
        "minProperties": counts,
        "maxProperties": counts,
        "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), min_size=1, max_size=2),
        "dependentSchemas": st.dictionaries(names, inner, min_size=1, max_size=2),
        "unevaluatedProperties": st.just(False) | inner,
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "contains": inner,
        "minContains": counts,
        "maxContains": counts,
        "minItems": counts,
        "maxItems": counts,
        "uniqueItems": st.just(True),
        "unevaluatedItems": st.just(False) | inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": st.just("#/$defs/d"),
    }


def _schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = _over(inner)
    chosen = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: keywords[name] for name in names}))


_leaves = st.sampled_from(({}, True, False, {"type": "integer"}, {"type": "string"}, {"const": "a"}, {"const": 1}))
_inner = st.recursive(_leaves, _schema, max_leaves=5)
schemas = st.builds(lambda schema, shared: schema | {"$defs": {"d": shared}}, _schema(_inner), _inner)
