"""Depth: of documents, of schemas, and of whoever calls. None of it may be refused for want of Python's stack."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from jsonschema import Draft202012Validator

from streamguard.viability import compile_schema
from streamguard.viability.syntax.strict import Refused, parse
from streamguard.viability.syntax.values_equal import canonical

T = TypeVar("T")


def deeper(frames: int, call: Callable[[], T]) -> T:
    """Call from so many frames further down."""
    return call() if frames == 0 else deeper(frames - 1, call)


def with_a_large_stack(call: Callable[[], T]) -> T:
    """For jsonschema, which stands on the caller's stack."""
    found: list[T] = []
    limit, size = sys.getrecursionlimit(), threading.stack_size(512 * 1024 * 1024)
    sys.setrecursionlimit(200_000)
    try:
        thread = threading.Thread(target=lambda: found.append(call()))
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)
    return found[0]


EXPRESSION: dict[str, Any] = {
    "$ref": "#/$defs/E",
    "$defs": {
        "E": {"anyOf": [{"$ref": "#/$defs/U"}, {"$ref": "#/$defs/L"}]},
        "U": {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]},
        "A": {"allOf": [{"$ref": "#/$defs/base"}, {"$ref": "#/$defs/not"}]},
        "B": {"allOf": [{"$ref": "#/$defs/base"}, {"$ref": "#/$defs/neg"}]},
        "not": {"properties": {"op": {"const": "not"}, "x": {"$ref": "#/$defs/E"}}, "required": ["op", "x"]},
        "neg": {"properties": {"op": {"const": "neg"}, "x": {"$ref": "#/$defs/E"}}, "required": ["op", "x"]},
        "base": {"type": "object", "unevaluatedProperties": True},
        "L": {"type": "integer"},
    },
}
LINKS: dict[str, Any] = {
    "$ref": "#/$defs/N",
    "$defs": {
        "N": {
            "type": "object",
            "properties": {"c": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}},
            "additionalProperties": False,
        }
    },
}
UNIQUE: dict[str, Any] = {
    "type": "array",
    "uniqueItems": True,
    "items": {"anyOf": [{"$ref": "#"}, {"not": {"type": ["array", "string"]}}]},
}
CHOICE: dict[str, Any] = {
    "if": {"type": "array"},
    "then": {"contains": {"$ref": "#"}, "minItems": 1},
    "else": {"oneOf": [{"type": "integer"}, {"type": "object", "patternProperties": {"^a": {"$ref": "#"}}}]},
}


def nest(depth: int, leaf: Any, around: Callable[[Any], Any]) -> Any:
    """A leaf with so many containers around it."""
    for _ in range(depth):
        leaf = around(leaf)
    return leaf


DOCUMENTS: list[tuple[dict[str, Any], Any, Callable[[Any], Any], bool]] = [
    (EXPRESSION, 1, lambda inner: {"op": "not", "x": inner}, True),
    (EXPRESSION, "1", lambda inner: {"op": "neg", "x": inner}, False),
    (LINKS, {"c": None}, lambda inner: {"c": inner}, True),
    (LINKS, {"d": None}, lambda inner: {"c": inner}, False),
    (UNIQUE, 1, lambda inner: [inner, None], True),
    (UNIQUE, "", lambda inner: [inner, 1], False),
    (CHOICE, 3, lambda inner: [None, inner], True),
    (CHOICE, None, lambda inner: {"a": inner}, False),
]


@pytest.mark.parametrize(("schema", "leaf", "around", "valid"), DOCUMENTS)
@pytest.mark.parametrize("frames", [0, 333, 700, 820])
@pytest.mark.parametrize("depth", [33, 63, 255])
def test_deep_documents(schema: Any, leaf: Any, around: Any, valid: bool, frames: int, depth: int) -> None:
    """Prefix, strict parse and judge say of any depth, from any depth of the caller's stack, what they say of few."""
    value = nest(depth, leaf, around)
    text = with_a_large_stack(lambda: json.dumps(value))
    assert Draft202012Validator(schema).is_valid(nest(6, leaf, around)) is valid

    def judged() -> tuple[bool, bool, bool]:
        made = compile_schema(schema, max_depth=256)
        by_piece, at_once = made.prefix(), made.prefix()
        pieces = [by_piece.feed(text[i : i + 7]) for i in range(0, len(text), 7)]
        alive = not any(pieces) and by_piece.close() is None
        whole = at_once.feed(text) is None and at_once.close() is None
        return alive, whole, made.validate(parse(text)) is None

    assert deeper(frames, judged) == (valid, valid, valid)


@pytest.mark.parametrize("frames", [0, 600, 820])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(n)} | {str(n): {}},
        },
        lambda n: {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"properties": {"a": {"$ref": f"#/$defs/{(i + 1) % n}"}}} for i in range(n)},
        },
        lambda n: {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"required": ["a"], "properties": {"a": {"$ref": f"#/$defs/{i + 1}"}}} for i in range(n)}
            | {str(n): {"type": "integer"}},
        },
        lambda n: nest(n, {"type": "string"}, lambda inner: {"not": inner}),
        lambda n: nest(n, {"type": "string"}, lambda inner: {"anyOf": [{"items": inner}, {"type": "null"}]}),
        lambda n: {"enum": [nest(n, 1, lambda inner: [inner])]},
        lambda n: {"const": nest(n, 1, lambda inner: {"a": inner})},
    ],
)
def test_deep_schemas(make: Any, frames: int) -> None:
    """However far references lead and however deep parts stand, a schema compiles, and judges."""
    schema = make(1_050)
    made = deeper(frames, lambda: compile_schema(schema))
    assert made.satisfiable
    assert deeper(frames, lambda: made.validate("x")) == made.validate("x")
    assert deeper(frames, lambda: made.prefix().feed('"x"')) == made.prefix().feed('"x"')


def test_a_long_way_to_nowhere() -> None:
    """A chain of required members that comes back to itself is unsatisfiable, however long."""
    definitions = {
        str(i): {"type": "object", "required": ["a"], "properties": {"a": {"$ref": f"#/$defs/{(i + 1) % 700}"}}}
        for i in range(700)
    }
    assert not compile_schema({"$ref": "#/$defs/0", "$defs": definitions}).satisfiable


def texts(rng: random.Random, depth: int) -> str:
    """A JSON text of that depth, or nearly one."""
    text = rng.choice(["1", "-1.5e3", '"a\\u00e9"', "true", "null", "[]", "{}", " { } "])
    for _ in range(depth):
        text = rng.choice(
            ["[{}]", '{{"a": {}}}', "[1, {} ,2]", '{{"b":[],"a":{}, "c":null}}', '{{"a":1,"\\u0061" : {}}}']
        ).format(text)
    if rng.random() < 0.5:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", ",", "]", "}", '"', "NaN", " ", "x", "[", ":"]) + text[at + 1 :]
    return text


def test_the_parse_with_and_without_room() -> None:
    """A text that the stack has no room for is read as it would be with room; so is one that is refused."""
    rng = random.Random(1)
    for _ in range(400):
        text = texts(rng, rng.randrange(100, 180))

        def read(text: str = text) -> Any:
            try:
                return canonical(parse(text))
            except Refused as refused:
                return refused.dead

        assert deeper(850, read) == read()
