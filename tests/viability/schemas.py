"""Hypothesis strategies for schemas and instances that meet: few names, few values, every keyword."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

STRINGS = ("", "a", "b", "ab", "abc", "ba", "é", "a\n", "1", "x", "😀")
NUMBERS = (0, 1, 2, 3, 5, 10, 12, -1, 1.5, 2.5, 0.5, 100, -2.5, 15)
NAMES = ("a", "b", "ab", "c", "é")
PATTERNS = (
    "^a", "b$", "^[ab]+$", "a", "^a?b$", "^(?!a)", "^x-", "^.{2}$", "^(a|b)$", "^[a-b]*.$", "^(?:a|bc)*$", "^\\d+$",
    "^(?=a)", "^((a|b)c?)+$", "^é|^b", "^$", "\\w{2}",
)  # fmt: skip
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
        "multipleOf": st.sampled_from((1, 2, 5, 0.5, 10, 3, 0.1, 7, 1.5)),
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


DRAFTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}


def _for(draft: int, inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """The keywords that a draft knows, with values as it knows them."""
    found = _over(inner)
    names = st.sampled_from(NAMES)
    several = st.lists(inner, min_size=1, max_size=3)
    if draft < 2020:
        del found["prefixItems"]
        found |= {"items": inner | several, "additionalItems": st.just(False) | inner}
    if draft < 2019:
        for name in ("unevaluatedItems", "unevaluatedProperties", "dependentRequired", "dependentSchemas"):
            del found[name]
        needs = st.lists(names, min_size=1, max_size=2, unique=True)
        found["dependencies"] = st.dictionaries(names, needs | inner, min_size=1, max_size=2)
    if draft < 7:
        for name in ("if", "then", "else"):
            del found[name]
    if draft < 6:
        for name in ("const", "contains", "minContains", "maxContains", "propertyNames"):
            del found[name]
        found |= {"exclusiveMinimum": st.booleans(), "exclusiveMaximum": st.booleans()}
    return found


def _schema(draft: int, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = _for(draft, inner)
    chosen = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: keywords[name] for name in names}))


_leaves = st.sampled_from(({}, True, False, {"type": "integer"}, {"type": "string"}, {"enum": ["a"]}, {"enum": [1]}))


def _whole(draft: int) -> st.SearchStrategy[Any]:
    inner = st.recursive(
        _leaves if draft > 4 else _leaves.filter(lambda leaf: not isinstance(leaf, bool)),
        lambda below: _schema(draft, below),
        max_leaves=5,
    )
    return st.builds(
        lambda schema, shared: {"$schema": DRAFTS[draft]} | schema | {"$defs": {"d": shared}},
        _schema(draft, inner),
        inner,
    )


schemas = _whole(2020)
older_schemas = st.sampled_from((4, 6, 7, 2019)).flatmap(_whole)
