"""Pydantic's errors in words for people, for any model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from streamguard.files.mistakes import Mistake, known_keys, mistakes, shown


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Dog(Part):
    kind: Literal["dog"]
    barks: int = 0


class Cat(Part):
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0, lt=10)] = 9


class Home(Part):
    pet: Annotated[Dog | Cat, Field(discriminator="kind")] | None = None
    either: Dog | Cat | Literal["none"] | float = "none"
    by_name: dict[str, Part] = {}
    words: list[Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]+$")]] = []
    few: Annotated[list[int], Field(max_length=2)] = []
    step: Annotated[int, Field(multiple_of=5)] = 0
    ratio: Annotated[float, Field(gt=0, le=1.5, allow_inf_nan=False)] = 1.0
    size: Literal[1, 2] = 1
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"even must be a whole number that two divides, not {value}")
        return value


def found(data: Any) -> list[Mistake]:
    with pytest.raises(ValidationError) as raised:
        Home.model_validate(data)
    return mistakes(raised.value.errors(), data, Home.model_json_schema())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"pet": {"kind": "dog", "bark": 1}}, [Mistake(("pet", "bark"), 'unknown key; did you mean "barks"?', True)]),
        ({"pet": {"kind": "cat", "lives": 0}}, [Mistake(("pet", "lives"), "must be more than 0, got 0")]),
        ({"pet": {"kind": "cat", "lives": 10}}, [Mistake(("pet", "lives"), "must be less than 10, got 10")]),
        ({"pet": {"kind": "cow"}}, [Mistake(("pet",), '"kind" must be one of "dog", "cat", got the text "cow"')]),
        ({"pet": {"barks": 1}}, [Mistake(("pet",), 'the key "kind" is missing')]),
        ({"either": {"kind": "cat", "lives": "9"}}, [Mistake(("either", "lives"), "must be a whole number, got the text \"9\"; leave the quotes out: write 9")]),
        ({"either": "non"}, [Mistake(("either",), 'must be "none", a mapping or a number, got the text "non"; did you mean "none"?')]),
        ({"either": "1.5 min"}, [Mistake(("either",), 'must be "none", a mapping or a number, got the text "1.5 min"; times are in seconds, without a unit: write 90')]),
        ({"by_name": {"x": {"y": 1}}}, [Mistake(("by_name", "x", "y"), "unknown key", True)]),
        ({"words": ["a"]}, [Mistake(("words", 0), 'must have at least 2 characters, got the text "a"')]),
        ({"words": ["abcd"]}, [Mistake(("words", 0), 'must have at most 3 characters, got the text "abcd"')]),
        ({"words": ["AB"]}, [Mistake(("words", 0), 'must match ^[a-z]+$, got the text "AB"')]),
        ({"words": "ab"}, [Mistake(("words",), 'must be a list, got the text "ab"; write [ab]')]),
        ({"words": [True]}, [Mistake(("words", 0), 'must be text, got true; write "true" in quotes')]),
        ({"few": [1, 2, 3]}, [Mistake(("few",), "must have at most 2 items, got a list of 3")]),
        ({"few": 3}, [Mistake(("few",), "must be a list, got 3; write [3]")]),
        ({"step": 7}, [Mistake(("step",), "must be a multiple of 5, got 7")]),
        ({"ratio": 2}, [Mistake(("ratio",), "must be at most 1.5, got 2")]),
        ({"ratio": float("inf")}, [Mistake(("ratio",), "must be finite, got Infinity")]),
        ({"ratio": None}, [Mistake(("ratio",), "must be a number, got nothing (null); write a value or leave the line out")]),
        ({"size": 3}, [Mistake(("size",), "must be 1 or 2, got 3")]),
        ({"even": 3}, [Mistake(("even",), "must be a whole number that two divides, not 3")]),
        ([], [Mistake((), "must be a mapping, got an empty list")]),
    ],
)  # fmt: skip
def test_words(data: Any, expected: list[Mistake]) -> None:
    """Each error says what would be right and what stands there, at the value's own path."""
    assert found(data) == expected


def test_known_keys() -> None:
    """Names are found through references, lists, mappings by name and unions."""
    schema = Home.model_json_schema()
    assert known_keys(schema, ("pet",)) == ["kind", "barks", "lives"]
    assert known_keys(schema, ("by_name", "x")) == []
    assert known_keys(schema, ("words", 0)) == []
    assert known_keys(schema, ())[:3] == ["pet", "either", "by_name"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing (null)"),
        (True, "true"),
        (1.50, "1.5"),
        (10**50, "1" + "0" * 38 + "…"),
        ("a\n\x1b[31m", 'the text "a\\n\\u001b[31m"'),
        ("x" * 100, 'the text "' + "x" * 59 + '…"'),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
        ([], "an empty list"),
        ([1, 2], "a list of 2"),
    ],
)
def test_shown(value: Any, expected: str) -> None:
    """A value is shown as a file has it, short, and with nothing that a terminal would obey."""
    assert shown(value) == expected
