"""Records with one defect each, whose dead character is known from how they were made."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from streamguard.viability import Schema, compile_schema
from tests.viability.feeding import Split, each, feed, pieces, whole
from tests.viability.spelling import spelled

NAMES = ("id", "name", "kind", "title", "items", "tags", "total", "date", "unit", "price", "note", "line")
COLOURS = ("red", "green", "grey", "blue", "black", "brown")
MATCHES = {
    "^[a-z]{2,5}$": "abc",
    r"^\d{4}-\d{2}$": "2024-05",
    "^(ab|cd)+$": "abcd",
    "^[A-Z][a-z]*( [A-Z][a-z]*)*$": "Big",
}
WRONG = {'"zzz"': "string", "12": "number", "true": "boolean", "null": "null", "{}": "object", "[]": "array"}

Path = tuple[str | int, ...]
Place = tuple[Path, dict[str, Any], Any]


def make_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A schema as people write them for extraction."""
    if depth == 0 or rng.random() < 0.35:
        return rng.choice(
            (
                {"enum": rng.sample(COLOURS, rng.randint(2, 4))},
                {"type": "string", "maxLength": rng.randint(5, 12)},
                {"type": "string", "pattern": rng.choice(list(MATCHES))},
                {"type": "integer", "minimum": 0, "maximum": rng.choice((10, 150))},
                {"type": "boolean"},
                {"type": ["integer", "null"]},
                {"type": "number", "exclusiveMinimum": 0},
                {"anyOf": [{"type": "string", "maxLength": 20}, {"type": "null"}]},
            )
        )
    if rng.random() < 0.3:
        return {"type": "array", "items": make_schema(rng, depth - 1), "maxItems": rng.randint(2, 4)}
    return make_record(rng, depth)


def make_record(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randint(2, 5))
    return {
        "type": "object",
        "properties": {name: make_schema(rng, depth - 1) for name in names},
        "required": rng.sample(names, rng.randint(1, len(names))),
        "additionalProperties": False,
    }


def make_value(rng: random.Random, schema: dict[str, Any]) -> Any:
    """A valid value."""
    if "anyOf" in schema:
        return make_value(rng, rng.choice(schema["anyOf"]))
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"] if isinstance(schema["type"], str) else rng.choice(schema["type"])
    match kind:
        case "string":
            return MATCHES.get(schema.get("pattern", ""), "ab é"[: schema.get("maxLength")])
        case "integer":
            return rng.randint(schema.get("minimum", -5), schema.get("maximum", 500))
        case "number":
            return rng.choice((1, 2.5, 0.1, 100))
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case "array":
            return [make_value(rng, schema["items"]) for _ in range(rng.randint(0, schema["maxItems"]))]
    return {
        name: make_value(rng, inner)
        for name, inner in schema["properties"].items()
        if name in schema["required"] or rng.random() < 0.6
    }


def places(schema: dict[str, Any], value: Any, path: Path = ()) -> Iterator[Place]:
    """Every value within a value, with its schema."""
    yield path, schema, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(schema["properties"][name], inner, (*path, name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(schema["items"], inner, (*path, i))


def kinds(schema: dict[str, Any]) -> set[str]:
    if "anyOf" in schema:
        return set().union(*map(kinds, schema["anyOf"]))
    if "enum" in schema:
        return {"string"}
    named = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return {"number" if kind == "integer" else kind for kind in named}


def write(value: Any, path: Path, raw: str) -> tuple[str, int]:
    """The document with `raw` in place of one value, and where that begins."""
    mark = "\x00"

    def put(value: Any, path: Path) -> Any:
        if not path:
            return mark
        if isinstance(value, dict):
            return {name: put(inner, path[1:]) if name == path[0] else inner for name, inner in value.items()}
        return [put(inner, path[1:]) if i == path[0] else inner for i, inner in enumerate(value)]

    before, after = json.dumps(put(value, path), ensure_ascii=False, separators=(",", ":")).split(json.dumps(mark))
    return before + raw + after, len(before)


def shared(word: str, words: Any) -> int:
    """Characters of the word that some of the words begin with."""
    return next(n for n in range(len(word), -1, -1) if any(one.startswith(word[:n]) for one in words))


def defects(rng: random.Random, place: Place) -> Iterator[tuple[str, int]]:
    """What to write instead of a value, and which character of it is dead."""
    _, schema, value = place
    for raw, kind in WRONG.items():
        if kind not in kinds(schema):
            yield raw, 0
    if "enum" in schema:
        for word in {"gold", "bluish", "redd", "gre", "x", "blac"} - set(schema["enum"]):
            yield json.dumps(word), 1 + shared(word, schema["enum"])
    if isinstance(value, dict):
        members = list(value.items())
        rng.shuffle(members)
        for name in schema["required"]:
            raw = json.dumps({n: v for n, v in members if n != name})
            yield raw, len(raw) - 1
        at = rng.randint(0, len(members))
        left = set(schema["properties"]) - {name for name, _ in members[:at]}
        for name in {"idx", "nam", "kinds", "zz", "tot", "unit2"} - set(schema["properties"]):
            before = json.dumps(dict(members[:at]))[:-1]
            raw = json.dumps(dict([*members[:at], (name, 1), *members[at:]]))
            comma = 2 if at else 0
            yield raw, len(before) + comma + 1 + shared(name, left) if left else len(before)


def dead_char(schema: Schema, text: str, seed: int) -> int | str | None:
    dead = feed(schema.prefix(), text, pieces(seed))
    return None if dead is None else dead.char


@pytest.mark.parametrize("seed", range(5))
def test_one_defect(seed: int) -> None:
    """A wrong type, an unlisted value, a name too many or too few: dead at exactly its character; without it, alive."""
    rng = random.Random(seed)
    wrong, tried = [], 0
    for _ in range(10):
        schema = make_record(rng, 3)
        compiled = compile_schema(schema)
        value = make_value(rng, schema)
        assert feed(compiled.prefix(), spelled(value, rng), pieces(seed)) is None
        for place in places(schema, value):
            for raw, at in defects(rng, place):
                text, begin = write(value, place[0], raw)
                tried += 1
                if dead_char(compiled, text, seed) != begin + at:
                    wrong.append((schema, text, begin + at))
    assert tried > 200
    assert wrong == []


@pytest.mark.parametrize("split", [whole, each])
def test_what_dies_last_is_to_blame_however_the_text_is_cut(split: Split) -> None:
    """An alternative that died within the same piece, but before the character that killed the last, is not named."""
    schema = compile_schema({"anyOf": [{"enum": ["a"]}, {"maxLength": 0}]})
    dead = feed(schema.prefix(), '"\\u0062"', split)
    assert dead is not None
    assert (dead.char, dead.keyword, dead.message) == (6, "enum", 'enum: "b", expected "a"')
