"""`viability.render` and `viability.expected_next`: what a person is told of a text."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.terminal import printable
from streamguard.viability import compile_schema
from streamguard.viability.explain.render import _columns, render, tell
from streamguard.viability.syntax.protocol import Open

RECORD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "tags"],
    "properties": {
        "kind": {"enum": ["unsound", "unmaintained", "notice"]},
        "tags": {"type": "array", "items": {"enum": ["a", "ab", "b"]}, "uniqueItems": True},
        "note": {"type": ["string", "null"]},
    },
}


def shown(text: str, schema: Any = RECORD) -> str:
    told = tell(text, compile_schema(schema))
    return "\n".join(render("x.json", text, told, printable))


def test_a_dead_text_is_shown_up_to_its_dead_character() -> None:
    """The last lines, a caret below the character, what was seen, where, and what was expected."""
    assert shown('{\n  "note": null,\n  "kind": "unsafe", "tags": []}') == (
        "x.json:3:15: dead at byte 32\n"
        "  1 | {\n"
        '  2 |   "note": null,\n'
        '  3 |   "kind": "unsa\n'
        '    |               ^ enum: "unsa", expected "unsound"\n'
        "  at        /kind\n"
        "  keyword   enum (/properties/kind/enum in the schema)\n"
        '  expected  "unsound"'
    )


def test_an_unfinished_text_is_told_what_is_open() -> None:
    """What has not closed, what must still come, and what can come next."""
    assert shown('{"tags":["a",') == (
        "x.json: incomplete, 13 bytes; as far as it goes, it can still become valid\n"
        '  1 | {"tags":["a",\n'
        "    |              ^\n"
        "  at        /tags/1\n"
        '  open      / (object, still needs "kind")\n'
        "            /tags (array)\n"
        '  expected  one of "ab", "b"'
    )


def test_a_valid_text() -> None:
    """One line."""
    assert shown('{"kind":"notice","tags":[]}') == "x.json: valid, 27 bytes"
    assert shown("5", {}) == "x.json: valid, 1 byte"


def test_what_could_still_be_repaired_is_not_dead() -> None:
    """A number at the end may get more digits; as it stands it is wrong, and that is said."""
    assert shown("5", {"minimum": 10}).splitlines()[-2:] == [
        "  if it ends here: minimum: 5, expected a number >= 10",
        "  expected  a number >= 10",
    ]


def test_foreign_text_moves_no_cursor() -> None:
    """Control characters are spelled out, wide characters are counted, and long lines are cut at their start."""
    lines = shown('{"kind":"\x1b[31m"}').splitlines()
    assert lines[1:3] == [
        '  1 | {"kind":"\\e',
        '    |          ^ "\\u001b", expected an escape for this control character',
    ]
    assert shown('["日本", 5x', {}).splitlines()[2].index("^") == shown('["abcd", 5x', {}).splitlines()[2].index("^")
    long = shown('["' + "a" * 500 + '", x', {}).splitlines()
    assert long[1].startswith("  1 | …aaa")
    assert max(map(len, long)) < 130


EXPECTED: list[tuple[Any, str, tuple[str, ...]]] = [
    (RECORD, "", ("an object",)),
    (RECORD, "{", ('"kind"', '"tags"', '"note"')),
    (RECORD, '{"kind":"notice",', ('"tags"', '"note"')),
    (RECORD, '{"kind":"un', ('"unmaintained"', '"unsound"')),
    (RECORD, '{"n', ('"note"',)),
    (RECORD, '{"kind"', ('a ":"',)),
    (RECORD, '{"note":', ("a string", "null")),
    (RECORD, '{"note":null', ('"," or "}"',)),
    ({"items": {"type": "integer"}}, "[1", ()),
    ({"items": {"type": "integer"}}, "[1,", ("an integer",)),
    ({"anyOf": [{"const": "x"}, {"type": "integer"}]}, "", ('"x"', "an integer")),
    ({"properties": {"a": {}}}, '{"b":[', ('a value or "]"',)),
    ({}, '{"a', ()),
]


@pytest.mark.parametrize(("schema", "text", "expected"), EXPECTED)
def test_what_can_come_next(schema: Any, text: str, expected: tuple[str, ...]) -> None:
    """As far as it can be listed; nothing where anything may come."""
    assert tell(text, compile_schema(schema)).expected == expected


def test_what_must_still_come() -> None:
    """Names that every alternative left requires."""
    schema = {
        "anyOf": [
            {"required": ["a", "b"], "properties": {"k": {"const": 1}}},
            {"required": ["a", "c"], "properties": {"k": {"const": 2}}},
        ]
    }
    compiled = compile_schema(schema)
    assert tell("{", compiled).open == (Open(pointer="", kind="object", missing=("a",)),)
    assert tell('{"k":2,', compiled).open == (Open(pointer="", kind="object", missing=("a", "c")),)
    assert tell('{"k":2,"a":[{', compiled).open[1:] == (
        Open(pointer="/a", kind="array"),
        Open(pointer="/a/0", kind="object"),
    )


DEAD: list[tuple[Any, str, tuple[str, ...]]] = [
    ({"anyOf": [{"const": "ax"}, {"const": "ay"}]}, '"az', ('"ax"', '"ay"')),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "1", ("a string", "null")),
    ({"type": "integer", "minimum": 1, "maximum": 5}, "6", ("a number >= 1 and <= 5",)),
    ({"maxItems": 1}, "[1,", ('the end of the array, "]" (at most 1 item)',)),
    ({"required": ["a", "b"]}, '{"a":1}', ('the name "b"',)),
    ({"required": ["a", "b"], "maxProperties": 2}, '{"a":1,"x', ('"b"',)),
    ({"patternProperties": {"^x-": {}}, "properties": {"a": {}}, "additionalProperties": False}, '{"b', (
        '"a"', 'a name that matches "^x-"',
    )),
    ({"propertyNames": {"enum": ["a", "b"]}}, '{"a":1,"c', ('"b"',)),
    ({"additionalProperties": False}, '{"', ('the end of the object, "}"',)),
    ({"dependentRequired": {"a": ["b"]}}, '{"a":1}', ('the name "b", which goes with "a"',)),
    ({"not": {"required": ["a"]}}, '{"a"', ("another name",)),
    ({"minLength": 3}, '"ab"', ("at least 3 characters",)),
    ({"contains": {"type": "null"}}, "[1]", ("at least 1 item that contains asks for",)),
    ({"items": {"enum": ["a", "b"]}, "uniqueItems": True}, '["a","a', ('"b"',)),
    ({}, "[1 2", ('"," or "]"',)),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "text", "expected"), DEAD)
def test_what_could_have_come_instead(schema: Any, text: str, expected: tuple[str, ...]) -> None:
    """What the alternatives that were left would have taken."""
    told = tell(text, compile_schema(schema))
    assert (told.status, told.expected) == ("dead", expected)


@pytest.mark.parametrize("width", [30, 60, 80])
def test_an_excerpt_fits_the_terminal(width: int) -> None:
    """The caret stands below the dead character, wide characters count twice; a note without room gets its own line."""
    text = '{"tags":[' + '"請求書",' * 20 + "x"
    lines = list(render("x.json", text, tell(text), printable, width))
    excerpt, caret, message = lines[1:4]
    assert (_columns(excerpt) <= width, excerpt[6], excerpt[-2:]) == (True, "…", ",x")
    assert caret == "    | " + " " * (_columns(excerpt) - 7) + "^"
    assert message.startswith("  message   ")
