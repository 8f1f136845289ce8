"""`viability.judge`: the final word."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streamguard.viability import compile_schema
from streamguard.viability.judge import judge_keywords
from streamguard.viability.judge.applying import RUN, Run, applied
from streamguard.viability.syntax.trampoline import run as run_steps


@pytest.mark.parametrize(
    ("schema", "value", "pointer", "keyword", "schema_pointer"),
    [
        ({"properties": {"a": {"type": "string"}}}, {"a": 1}, "/a", "type", "/properties/a/type"),
        ({"required": ["b"]}, {}, "", "required", "/required"),
        ({"items": {"pattern": "^a"}}, ["a", "b"], "/1", "pattern", "/items/pattern"),
        ({"additionalProperties": False}, {"x/y": 1}, "/x~1y", "additionalProperties", "/additionalProperties"),
        ({"unevaluatedProperties": False}, {"x": 1}, "/x", "unevaluatedProperties", "/unevaluatedProperties"),
        ({"unevaluatedItems": False}, [1], "/0", "unevaluatedItems", "/unevaluatedItems"),
    ],
)
def test_what_is_wrong(schema: Any, value: Any, pointer: str, keyword: str, schema_pointer: str) -> None:
    """The judge names the value, the keyword and its place."""
    dead = compile_schema(schema).validate(value)
    assert dead is not None
    assert (dead.pointer, dead.keyword, dead.schema_pointer) == (pointer, keyword, schema_pointer)
    assert (dead.offset, dead.char) == ("eof", "eof")


def test_nothing_wrong() -> None:
    """A valid value has no verdict."""
    assert compile_schema({"type": "object"}).validate({"a": [1]}) is None


D2020 = "https://json-schema.org/draft/2020-12/schema"
SLOW = "^(a|a)*$"


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a|aa)+$"},
        {"$schema": D2020, "$ref": "#/$defs/p", "$defs": {"p": {"$schema": D2020, "pattern": SLOW}}},
    ],
)
def test_patterns_that_blow_up_are_stopped(schema: Any) -> None:
    """A pattern that backtracks without end fails within its time, also behind a reference with its own `$schema`."""
    dead = compile_schema(schema).validate("a" * 60 + "!")
    assert dead is not None
    assert dead.keyword == "pattern"


def test_patterns_of_regex_not_re() -> None:
    """Property classes work wherever a pattern may stand."""
    schema = compile_schema(
        {
            "patternProperties": {r"^\p{L}+$": {"type": "integer"}},
            "unevaluatedProperties": False,
            "additionalProperties": {"pattern": r"^\p{Lu}"},
        }
    )
    assert schema.validate({"é": 1}) is None
    assert schema.validate({"é": "x"}) is not None
    assert schema.validate({"1": "x"}) is not None
    assert schema.validate({"1": "X"}) is None


def test_a_meta_schema_without_the_validation_vocabulary() -> None:
    """Keywords that a meta-schema leaves out assert nothing, for prefix and judge alike."""
    meta = {
        "$id": "https://x.org/meta",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$vocabulary": {"https://json-schema.org/draft/2020-12/vocab/applicator": True},
    }
    schema = compile_schema(
        {"$schema": "https://x.org/meta", "properties": {"a": {"minimum": 10}, "b": False}},
        registry={"https://x.org/meta": meta},
    )
    assert schema.validate({"a": 1}) is None
    assert schema.prefix().feed('{"a":1}') is None
    assert schema.validate({"b": 1}) is not None


def test_2019_items_true_under_unevaluated_items() -> None:
    """A boolean schema as `items` evaluates every item."""
    schema = compile_schema(
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "allOf": [{"items": True}],
            "unevaluatedItems": False,
        }
    )
    assert schema.validate([1, 2]) is None
    assert schema.prefix().feed("[1,2]") is None


def test_numbers_too_large_to_divide() -> None:
    """Integers of any size are divided exactly; what is read as infinite is a multiple of nothing."""
    halves = compile_schema({"multipleOf": 0.5})
    assert halves.validate(float("inf")) is not None
    assert halves.validate(10**400) is None
    assert compile_schema({"multipleOf": 0.3}).validate(10**4000) is not None


def test_equal_items_and_listed_values_in_linear_time() -> None:
    """Many items are compared by their hash: JSON's equality, where 1 is 1.0 and not true."""
    unique = compile_schema({"uniqueItems": True})
    many = [{"n": i, "deep": [i, {"x": None}]} for i in range(20_000)]
    assert unique.validate(many) is None
    assert unique.validate([*many, {"deep": [7.0, {"x": None}], "n": 7}]) is not None
    assert unique.validate([1, True, "1", [1], [True], None, 0, False]) is None
    listed = compile_schema({"items": {"enum": [*range(20_000), {"a": [1]}]}})
    assert listed.validate([19_999, 3.0, {"a": [1.0]}] * 5_000) is None
    assert listed.validate([{"a": [True]}]) is not None


def test_one_schema_in_several_threads() -> None:
    """A compiled schema may judge in several threads at once: nothing of one judgement is seen by another."""
    schema = compile_schema({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"properties": {"n": {"maximum": 9}}}}})
    values = [[{"n": i % 10}] * 2_000 + [{"n": 9 + (i % 2)}] for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(schema.validate, values))
    assert [verdict is None for verdict in verdicts] == [i % 2 == 0 for i in range(12)]


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_alternatives_are_not_asked_for_their_mistakes(keyword: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one accepts the value; of a value that none accepts the most telling mistake is still named."""
    refused: list[Any] = []
    real = judge_keywords.ValidationError

    def counted(*args: Any, **kwargs: Any) -> Any:
        refused.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(judge_keywords, "ValidationError", counted)
    option = {"properties": {"k": {"enum": [1]}, "n": {keyword: [{"type": "null"}]}}, "required": ["a"]}
    schema = compile_schema({"items": {keyword: [option, {"properties": {"k": {"enum": [2]}}}]}})
    assert schema._judge.validate([{"k": 2, "n": 5}] * 10) is None
    assert len(refused) == 10  # one for each, at the first thing wrong
    dead = schema._judge.validate([{"k": 2}, {"k": 3}])
    assert dead is not None
    assert (dead.pointer, dead.keyword) == ("/1/k", "enum")


def test_alternatives_that_fail_at_every_level_take_linear_steps() -> None:
    """Being asked twice, for a yes and then for the mistakes, does not multiply with the depth."""
    schema: Any = {"type": "null"}
    for _ in range(14):
        schema = {"anyOf": [{"type": "string"}, {"items": schema, "minItems": 1}]}
    value: Any = 5
    for _ in range(14):
        value = [value]
    run = Run(value)
    judge = compile_schema(schema)._judge
    token = RUN.set(run)
    assert len(run_steps(applied(judge._validator, judge._checks, value))) == 1
    RUN.reset(token)
    assert run.steps < 14 * 14 * 4
