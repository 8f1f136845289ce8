"""`viability.judge_quick`: what is said to hold plainly does hold, and what matters most is said."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

from streamguard.viability import compile_schema
from streamguard.viability.judge.applying import RUN, Run
from streamguard.viability.judge.judge import PASSES
from streamguard.viability.judge.judge_keywords import IN_STEPS, OWN
from streamguard.viability.syntax.trampoline import run
from streamguard.viability.syntax.values_equal import Listed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab1\u00e9", max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["null", "boolean", "integer", "number", "string", "array", "object"]
KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(NAMES) | st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
    "enum": st.lists(VALUES, min_size=1, max_size=4).map(Listed),
    "pattern": st.sampled_from(["^a", "b$", "^[a-z]+$", "1|é", ""]),
    "additionalProperties": st.booleans() | st.just({"type": "string"}),
    "required": st.lists(st.sampled_from("abc"), unique=True),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), st.integers(0, 3)),
}


@pytest.mark.parametrize("keyword", KEYWORDS)
@given(data=st.data())
def test_what_plainly_holds_holds(keyword: str, data: st.DataObject) -> None:
    """Where a keyword is not asked, it would have found nothing wrong."""
    check: Any = OWN.get(keyword) or Draft202012Validator.VALIDATORS[keyword]
    wanted = data.draw(KEYWORDS[keyword])
    instance = data.draw(VALUES)
    schema = {keyword: wanted, "properties": data.draw(st.sampled_from([{}, {"a": True}, {"a": True, "b": False}]))}
    if PASSES["python"][check](wanted, instance, schema):
        judge = compile_schema(True)._judge
        validator = judge._validator.evolve(schema=schema)
        RUN.set(Run(instance))
        found = check(validator, wanted, instance, schema) or ()
        assert (run(found) if isinstance(found, Generator) and check in IN_STEPS else list(found)) == []


@pytest.mark.parametrize(
    ("keyword", "wanted", "instance"),
    [
        ("type", "string", "a"),
        ("type", ["string", "null"], None),
        ("type", "integer", 3),
        ("enum", Listed(["a", 1]), "a"),
        ("pattern", "^a", "ab"),
        ("pattern", "^a", None),
        ("additionalProperties", False, {"a": 1}),
        ("required", ["a"], {"a": 1, "b": 2}),
        ("minLength", 1, "a"),
        ("maxLength", 1, "a"),
        ("minItems", 1, [1]),
        ("maxItems", 1, [1]),
        ("maxItems", 1, "no array"),
    ],
)
def test_the_likely_case_is_said(keyword: str, wanted: Any, instance: Any) -> None:
    """What valid documents are made of is not asked about."""
    check: Any = OWN.get(keyword) or Draft202012Validator.VALIDATORS[keyword]
    assert PASSES["python"][check](wanted, instance, {keyword: wanted, "properties": {"a": True}})


def test_a_draft_that_means_something_else_is_asked() -> None:
    """Draft 4 has a `minimum` of its own, and none of its keywords is taken for another's."""
    assert Draft4Validator.VALIDATORS["minimum"] not in PASSES["python"]
    assert all(check in [*OWN.values(), *Draft202012Validator.VALIDATORS.values()] for check in PASSES["python"])
