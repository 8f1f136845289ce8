"""The accepts schema, construct by construct: what it says, and that it says no more than Pydantic checks."""

from __future__ import annotations

import json
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, get_args

import jsonschema
import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic_core import core_schema

from streamguard.models.accepts import AcceptsSchema, is_shared_pattern
from streamguard.models.core import Definitions
from streamguard.models.model import OutputType
from tests.models.nearly import ODD
from tests.models.zoo import ZOO, Cat, Lenient, Tree

STRING: dict[str, Any] = {"type": "string"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
NUMBER: dict[str, Any] = {"type": "number"}


class Number(IntEnum):
    ONE = 1


class Word(Enum):
    A = "a"


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = Field(validation_alias=AliasChoices("x", "y"), strict=True)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (int, {"anyOf": [{"type": "integer"}, STRING, BOOLEAN]}),
        (Annotated[int, Field(ge=0, lt=9)], {"anyOf": [
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 9}, STRING, BOOLEAN]}),
        (Annotated[int, Field(strict=True)], {"type": "integer"}),
        (Annotated[float, Field(le=2.0**60)], {"anyOf": [NUMBER, STRING, BOOLEAN]}),
        (bool, {"anyOf": [BOOLEAN, {"type": "number", "minimum": 0, "maximum": 1}, STRING]}),
        (Annotated[str, Field(max_length=3)], {"type": "string", "maxLength": 3}),
        (Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=3)],
         {"type": "string", "minLength": 1}),
        (Annotated[str, Field(pattern="^[a-z&&[^b]]$")], STRING),
        (Annotated[str, Field(pattern="^[a-z]$")], {"type": "string", "pattern": "^[a-z]$"}),
        (Annotated[bytes, Field(min_length=5, max_length=9)], {"type": "string", "minLength": 2, "maxLength": 9}),
        (Number, {"anyOf": [{"enum": [1]}, STRING, BOOLEAN]}),
        (Word, {"enum": ["a"]}),
        (Lenient, {}),
        (Literal["a", None], {"enum": ["a", None]}),  # noqa: PYI061  one literal that holds both
        (Literal[1], {"anyOf": [{"enum": [1]}, BOOLEAN, NUMBER]}),
        (Annotated[set[str], Field(min_length=1, max_length=2)],
         {"type": "array", "items": STRING, "minItems": 1}),
        (tuple[str, ...], {"type": "array", "items": STRING}),
        (tuple[str, bool | None], {
            "type": "array",
            "prefixItems": [STRING, {"anyOf": [
                {"anyOf": [BOOLEAN, {"type": "number", "minimum": 0, "maximum": 1}, STRING]}, {"type": "null"}]}],
            "minItems": 2,
            "maxItems": 2,
        }),
        (dict[str, str], {"type": "object", "additionalProperties": STRING}),
        (Annotated[dict[int, str], Field(max_length=1)], {"type": "object", "additionalProperties": STRING}),
        (Aliased, {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {}},
            "allOf": [{"anyOf": [{"required": ["x"]}, {"required": ["y"]}]}],
            "additionalProperties": False,
        }),
        (Cat | None, {"anyOf": [{
            "type": "object",
            "properties": {
                "kind": {"enum": ["cat"]},
                "lives": {"anyOf": [{"type": "integer", "maximum": 9}, STRING, BOOLEAN]},
            },
            "required": ["kind", "lives"],
        }, {"type": "null"}]}),
        (Tree, {
            "$ref": "#/$defs/d0",
            "$defs": {"d0": {
                "type": "object",
                "properties": {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/d0"}}},
                "required": ["name"],
            }},
        }),
    ],
)  # fmt: skip
def test_the_schema_of_a_construct(kind: Any, schema: dict[str, Any]) -> None:
    """Each construct is written as what Pydantic takes for it in JSON, and no narrower."""
    assert OutputType.of(kind).plan().accepts == schema


@pytest.mark.parametrize("name", ZOO)
def test_no_single_value_is_refused_that_pydantic_takes(name: str) -> None:
    """Whatever odd value stands where a document has another one: if Pydantic takes it, the schema does."""
    plan = OutputType.of(ZOO[name][0]).plan()
    validator = jsonschema.Draft202012Validator(plan.accepts)
    accepted = 0
    for document in ZOO[name][1]:
        for odd in ODD:
            candidates: list[Any] = [odd, document]
            if isinstance(document, dict):
                candidates += [document | {key: odd} for key in document]
            for candidate in candidates:
                text = json.dumps(candidate)
                try:
                    plan.adapter.validate_json(text)
                except Exception:  # a validator may raise anything
                    continue
                accepted += 1
                assert validator.is_valid(json.loads(text)), text
    assert accepted > 0


def test_every_core_type_is_known_or_open() -> None:
    """A core type without an entry is open, with a reason, so that a new one of Pydantic's can kill nothing."""
    kinds = [kind for kind in get_args(core_schema.CoreSchemaType) if kind not in AcceptsSchema._WRITERS]
    for kind in kinds:
        if kind in ("definitions", "definition-ref"):
            continue
        writer = AcceptsSchema(Definitions())
        assert writer.write({"type": kind}) == {}
        assert len(writer.open) == 1


@pytest.mark.parametrize(
    ("pattern", "shared"),
    [
        (r"^\d+$", True),
        ("(?i)^a", True),
        ("[[:alpha:]]", True),
        ("(?P<x>a)", True),
        ("[a-z&&[^b]]", False),
        ("[a[bc]]", False),
        (r"\x{41}", False),
        ("(?x) a b", False),
        ("a++", False),
        ("(", False),
    ],
)
def test_only_patterns_that_both_read_alike_are_used(pattern: str, shared: bool) -> None:
    """A pattern in a dialect of Rust's own is left to Pydantic."""
    assert is_shared_pattern(pattern) is shared


def test_what_is_open_is_said_with_the_reason() -> None:
    """`open` names the field and why nothing can be told about it before it closes."""
    assert OutputType.of(ZOO["before"][0]).plan().open == (
        "Before.i is open: a before validator may change anything",
        "Before.w is open: a wrap validator may change anything",
        "Before.p is open: a plain validator takes anything",
    )


def test_the_contract_is_narrower() -> None:
    """Pydantic's own schema, which a model is told, refuses what the type takes: it must not kill by default."""
    plan = OutputType.of(Annotated[int, Field(ge=0)]).plan()
    assert plan.wire == {"type": "integer", "minimum": 0}
    assert TypeAdapter(int).validate_json('"12"') == 12
