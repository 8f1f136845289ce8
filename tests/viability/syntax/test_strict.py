"""`viability.strict`: the parse that acceptance rests on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streamguard.viability.syntax.strict import Refused, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": [1, 2.5, null]}\n', {"a": [1, 2.5, None]}),
        ('"\\udc00"', "\udc00"),
        ("1e999", math.inf),
        ('{"a": {"a": 1}}', {"a": {"a": 1}}),
    ],
)
def test_what_is_json(text: str, value: Any) -> None:
    """Everything that RFC 8259 allows is read as `json.loads` reads it."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "keyword", "char", "offset", "message"),
    [
        ('{"ä": x}', "malformed", 6, 7, "the document is no JSON: Expecting value"),
        ('{"a": 1', "malformed", "eof", "eof", "the document is no JSON: Expecting ',' delimiter"),
        ("{} {}", "malformed", 3, 3, "the document is no JSON: Extra data"),
        ("\ufeff{}", "malformed", 0, 0, "the document is no JSON: Unexpected UTF-8 BOM (decode using utf-8-sig)"),
        ('{"a": 1, "b": 2, "a": 3}', "duplicate_name", "eof", "eof", 'the name "a" stands twice in one object'),
        ("[NaN]", "number", "eof", "eof", "the document holds a number that cannot be read: NaN is no JSON number"),
        (
            "[-Infinity]",
            "number",
            "eof",
            "eof",
            "the document holds a number that cannot be read: -Infinity is no JSON number",
        ),
        ("[" * 100_000, "malformed", "eof", "eof", "the document is no JSON: Expecting value"),
    ],
)
def test_what_is_none(text: str, keyword: str, char: Any, offset: Any, message: str) -> None:
    """Everything else is refused, with the place where there is one."""
    with pytest.raises(Refused) as refused:
        parse(text)
    dead = refused.value.dead
    assert (dead.keyword, dead.char, dead.offset, dead.message) == (keyword, char, offset, message)


def test_an_integer_that_python_does_not_convert() -> None:
    """It is refused, not raised through."""
    with pytest.raises(Refused, match="cannot be read: Exceeds the limit"):
        parse("9" * 5000)


def test_repeated_names_where_they_are_allowed() -> None:
    """The last one counts."""
    assert parse('{"a": 1, "a": 2}', duplicate_names="allow") == {"a": 2}
