"""Objects and arrays that a piece has whole: taken in one step, and to no other verdict than character by character."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from streamguard.viability import Prefix, compile_schema
from streamguard.viability.schema.accepts import Acceptance
from streamguard.viability.syntax import scanner
from streamguard.viability.syntax.scanner import SyntaxPrefix
from tests.viability.feeding import Split, each, feed, whole

LONG = "x" * 30
RECORD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "size": {"type": ["integer", "null"], "maximum": 9},
        "kind": {"enum": ["a", "b", 1, None, True]},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True, "maxItems": 2},
        "pair": {"prefixItems": [{"type": "string"}, {"type": "number"}], "items": False},
        "\U0001f600": {"const": "😀"},
        "ok": {"type": "boolean"},
        "free": True,
    },
}
SCHEMA = {"type": "array", "items": RECORD, "maxItems": 3}
OPEN = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "patternProperties": {"^n": {"type": "number"}},
    },
}

SYNTAX: list[tuple[dict[str, Any], str]] = [
    # options, and a text with a mark before its dead character
    ({}, f'[{{"a": "{LONG}", "b": [1, 2.5e3, null]}}]'),
    ({"max_depth": 3}, f'[[["{LONG}"]]]'),
    ({"max_depth": 3}, f'[[[¦["{LONG}"]]]]'),
    ({"max_depth": 3}, f'[["{LONG}[[{{"]]'),
    ({"max_digits": 5}, f'[["{LONG}", 12345, 1.2345, -12345]]'),
    ({"max_digits": 5}, f'[["{LONG}", 12345¦6]]'),
    ({"max_digits": 5}, f'[["{LONG}", 1234e5¦6]]'),
    ({"max_digits": 5}, f'[["{LONG}1234567"]]'),
    ({}, f'[{{"a": "{LONG}", "a¦": 1}}]'),
    ({}, f'[{{"a": "{LONG}", "\\u0061¦": 1}}]'),
    ({"duplicate_names": "allow"}, f'[{{"a": "{LONG}", "a": 1}}]'),
    ({}, f'[["{LONG}", ¦NaN]]'),
    ({}, f'[["{LONG}", -¦Infinity]]'),
    ({}, f'[["{LONG}", 0¦1]]'),
    ({}, f'[["{LONG}",¦]]'),
    ({}, f'[["{LONG}¦\n"]]'),
    ({}, f'[["{LONG}\\ud83d"]]'),
    ({}, f'[["{LONG}", 1e999]]'),
    ({}, f'[["{LONG}" ¦1]]'),
]
BY_SCHEMA: list[tuple[Any, str]] = [
    (SCHEMA, '[{"name": "ab", "size": 9, "kind": 1, "tags": ["y", "x"], "ok": true}, {"name": "cd"}]'),
    (SCHEMA, '[{"name": "ab", "😀": "😀", "pair": ["a", 2], "free": {"a": [1]}}]'),
    (SCHEMA, '[{"name": "ab", "😀": "¦x", "pair": ["a", 2], "free": {"a": [1]}}]'),
    (SCHEMA, '[{"size": 9, "kind": 1, "tags": ["y", "x"]¦}]'),
    (SCHEMA, '[{"name": "ab", "size": 9.¦5, "free": 123456789}]'),
    (SCHEMA, '[{"name": "ab", "size": null, "kind": "¦c"}]'),
    (SCHEMA, '[{"name": "ab", "kind": ¦2, "free": 1234567}]'),
    (SCHEMA, '[{"name": "ab", "kind": ¦false, "free": 1234567}]'),
    (SCHEMA, '[{"name": "ab", "tags": ["x", "¦x"], "size": 1}]'),
    (SCHEMA, '[{"name": "ab", "tags": ["x", "y"¦, "z"], "size": 1}]'),
    (SCHEMA, '[{"name": "ab", "pair": ["a", 2¦, 3], "free": 1}]'),
    (SCHEMA, '[{"name": "ab", "o¦ther": 1, "free": 1234567}]'),
    (SCHEMA, '[{"name": "a¦", "size": 1, "free": 12345678}]'),
    (
        SCHEMA,
        '[{"name": "ab", "size": 3}, {"name": "ab", "size": 3}, {"name": "ab", "size": 3}¦, {"name": "ab", "size": 3}]',
    ),
    (OPEN, '[{"a": "x", "new": 1.5, "other": [1, 2, 3]}]'),
    (OPEN, '[{"a": "x", "other": [1, 2, 3], "new": ¦"y"}]'),
]


def judged(make: Callable[[], Prefix], marked: str) -> None:
    """Whole and character by character there is the same verdict, at the marked character."""
    text = marked.replace("¦", "")
    verdicts = [feed(make(), text, split) for split in (whole, each)]
    assert verdicts[0] == verdicts[1]
    assert (verdicts[0] and verdicts[0].char) == (marked.index("¦") if "¦" in marked else None)


@pytest.mark.parametrize(("options", "marked"), SYNTAX)
def test_syntax(options: dict[str, Any], marked: str) -> None:
    """A text that is dead by its syntax, or by the bounds on it, dies where it does without a step over anything."""
    judged(lambda: SyntaxPrefix(**options), marked)


@pytest.mark.parametrize(("schema", "marked"), BY_SCHEMA)
def test_by_schema(schema: Any, marked: str) -> None:
    """The same by a schema."""
    judged(compile_schema(schema).prefix, marked)


@pytest.mark.parametrize(("schema", "marked"), BY_SCHEMA)
def test_a_yes_is_the_judges(schema: Any, marked: str) -> None:
    """What surely fits is valid, and every valid record here does fit."""
    made = compile_schema(schema)
    value = json.loads(marked.replace("¦", ""))
    fits: Acceptance = made._root.fits  # of what is asked of the whole
    assert fits[list](value) == (made.validate(value) is None) == ("¦" not in marked)


def test_a_record_costs_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a piece that has many records whole, no name, string or number is looked at one by one."""
    text = json.dumps([{"name": "ab", "size": 3, "tags": ["x"]}] * 50)
    made = compile_schema({"type": "array", "items": RECORD})
    steps = dict.fromkeys(SyntaxPrefix._STEPS, 0)

    def counted(state: int, step: Any) -> Any:
        def run(self: SyntaxPrefix, text: str, i: int, n: int) -> int:
            steps[state] += 1
            return step(self, text, i, n)

        return run

    monkeypatch.setattr(
        SyntaxPrefix, "_STEPS", {state: counted(state, step) for state, step in SyntaxPrefix._STEPS.items()}
    )
    assert feed(made.prefix(), text, whole) is None
    assert {state: count for state, count in steps.items() if count} == {
        scanner.AT_VALUE: 50,
        scanner.AT_FIRST_VALUE: 1,
        scanner.AFTER_VALUE: 50,
    }


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200 + '"' + "x" * 10_000,
        '{"a":' * 200 + '"' + "x" * 10_000,
        "[" + "[1], [" * 2_000,
        json.dumps([[[[["x" * 20, 5] * 20] * 5] * 5] * 5]),
    ],
)
def test_reading_in_vain_is_bounded(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However containers nest that do not end in the piece, or that the schema says no to, looking for their ends takes
    a few times as many characters as there are."""
    seen = 0
    real = scanner.parse_at

    def counted(text: str, begin: int) -> Any:
        nonlocal seen
        found = real(text, begin)
        seen += (len(text) if found is None else found[1]) - begin
        return found

    monkeypatch.setattr(scanner, "parse_at", counted)
    made = compile_schema(
        {"anyOf": [{"minItems": 1}, {"required": ["b"]}, {"items": {"type": "string"}}]}, max_depth=None
    )
    made.prefix().feed(text)
    SyntaxPrefix(max_depth=None).feed(text)
    assert seen < 8 * len(text)


@pytest.mark.parametrize("text", ["[[15e-1, 1, 1, 1, 1, 1, 1, 1, 1]]", '[{"a": 150.5e-3, "b": 1234567890}]'])
def test_plain_numbers(text: str) -> None:
    """Where no exponent is expected, one that comes all the same is dead at the same character in any split."""
    limits = {"maximum": 10}
    made = compile_schema({"items": {"items": limits, "properties": {"a": limits}}}, numbers="plain")
    verdicts = [feed(made.prefix(), text, split) for split in (whole, each)]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0] is not None


def test_alternatives_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alternatives within alternatives are asked once each about a value, however deep they nest."""
    operators = ["and", "or", "xor", "not"]
    expression = {"$ref": "#/$defs/e"}
    member = {
        operator: {
            "type": "object",
            "required": ["of", "op"],
            "properties": {"of": {"type": "array", "items": expression}, "op": {"const": operator}},
        }
        for operator in operators
    }
    made = compile_schema({"$defs": {"e": {"anyOf": [*member.values(), {"type": "string"}]}}, **expression})
    text = '"leaf"'
    for _ in range(20):
        text = f'{{"of": [{text}], "op": "not"}}'
    fits = made._root.fits
    value = json.loads(text)
    asked = 0
    real = Acceptance.__missing__

    def counted(self: Acceptance, kind: type) -> Any:
        fit = real(self, kind)
        del self[kind]  # so that every question comes by

        def count(value: Any) -> bool:
            nonlocal asked
            asked += 1
            assert asked < 2_000
            return fit(value)

        return count

    monkeypatch.setattr(Acceptance, "__missing__", counted)
    assert fits[dict](value)
    assert asked > 20


def test_what_nests_too_deeply_to_be_said_at_once() -> None:
    """A value that would take more of Python's stack than there is goes its usual way."""
    one = {"type": "array", "items": {"$ref": "#/$defs/s"}, "uniqueItems": True}
    another = {"type": "array", "minItems": 7}
    made = compile_schema({"$ref": "#/$defs/s", "$defs": {"s": {"anyOf": [one, another, {"const": 1}]}}}, max_depth=256)
    text = "[" * 250 + "1" + "]" * 250
    assert feed(made.prefix(), text, whole) is None
    assert feed(made.prefix(), text, each) is None


@pytest.mark.parametrize("split", [whole, each])
def test_reasons_do_not_multiply(split: Split) -> None:
    """What kills a value under alternatives within alternatives is told once, however deep they nest."""
    lists = [{"type": "array", "items": {"$ref": "#/$defs/s"}, "maxItems": most} for most in (5, 6)]
    made = compile_schema({"$ref": "#/$defs/s", "$defs": {"s": {"anyOf": [*lists, {"type": "string"}]}}})
    dead = feed(made.prefix(), "[" * 60 + "1.5", split)
    assert dead is not None
    assert (dead.char, dead.keyword, dead.expected) == (60, "type", ("an array", "a string"))
