"""`viability.scanner`: the syntax, exactly."""

from __future__ import annotations

import base64
import json
import lzma
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.viability import SyntaxPrefix
from tests.data import path
from tests.viability.feeding import SPLITS, Split, each, feed, offset, pieces, whole


def lenient() -> SyntaxPrefix:
    return SyntaxPrefix(duplicate_names="allow", max_depth=None, max_digits=None)


@pytest.mark.parametrize("split", SPLITS)
def test_json_test_suite(split: Split) -> None:
    """Every file of JSONTestSuite that is UTF-8 dies at exactly the byte of the reference, however it is split."""
    expected, got = {}, {}
    with lzma.open(path("json_test_suite.jsonl.xz"), "rt") as lines:
        for row in map(json.loads, lines):
            try:
                text = base64.b64decode(row["b64"]).decode() if "b64" in row else None
            except UnicodeDecodeError:
                continue
            if text is not None:
                expected[row["name"]] = row["dead_at"]
                got[row["name"]] = offset(feed(lenient(), text, split))
    assert len(expected) == 293
    assert got == expected


@pytest.mark.parametrize(
    ("text", "where", "keyword", "pointer"),
    [
        ("", "eof", "malformed", ""),
        ("  ", "eof", "malformed", ""),
        ('{"a":[1,', "eof", "malformed", "/a/1"),
        ('"abc', "eof", "malformed", ""),
        ("-", "eof", "malformed", ""),
        ("tru", "eof", "malformed", ""),
        ("\ufeff{}", 0, "malformed", ""),
        ('{"a" 1}', 5, "malformed", "/a"),
        ("[1,]", 3, "malformed", "/1"),
        ("[1}", 2, "malformed", "/0"),
        ("[NaN]", 1, "malformed", "/0"),
        ("[nax]", 2, "malformed", "/0"),
        ("[-Infinity]", 2, "malformed", "/0"),
        ("01", 1, "malformed", ""),
        ("12x", 2, "malformed", ""),
        ('["\\x"]', 3, "malformed", "/0"),
        ('["\\u00g0"]', 6, "malformed", "/0"),
        ('["\n"]', 2, "malformed", "/0"),
        ('{"a":1,"a":2}', 9, "duplicate_name", "/a"),
        ('{"a":1,"\\u0061":2}', 14, "duplicate_name", "/a"),
        ('{"é":[1 2]}', 8, "malformed", "/é/0"),
        ('{"a/b":{"c~":x}}', 13, "malformed", "/a~1b/c~0"),
        ("{} x", 3, "trailing", ""),
        ("[1]]", 3, "trailing", ""),
        ("12 13", 3, "trailing", ""),
    ],
)
def test_where_it_dies(text: str, where: int | str, keyword: str, pointer: str) -> None:
    """The verdict names the character, the kind of mistake and the value, however the text is split."""
    for split in SPLITS:
        dead = feed(SyntaxPrefix(), text, split)
        assert dead is not None
        assert (dead.char, dead.keyword, dead.pointer, dead.schema_pointer) == (where, keyword, pointer, None)


def test_offsets_count_bytes() -> None:
    """`offset` counts bytes of UTF-8, `char` counts characters."""
    dead = feed(SyntaxPrefix(), '["é日😀" x', each)
    assert dead is not None
    assert (dead.offset, dead.char) == (13, 7)


@pytest.mark.parametrize(
    ("options", "text", "where", "keyword"),
    [
        ({"max_depth": 2}, "[[[", 2, "depth"),
        ({"max_depth": 2}, '[{"a":[', 6, "depth"),
        ({"max_digits": 3}, "[1234]", 4, "number"),
        ({"max_digits": 3}, "[1.234]", 5, "number"),
        ({"max_digits": 3}, "[1.2e34]", 6, "number"),
        ({"expect": "object"}, " [", 1, "type"),
        ({"expect": "array"}, '{"a"', 0, "type"),
        ({"expect": "object"}, "H", 0, "malformed"),
    ],
)
def test_limits(options: dict[str, Any], text: str, where: int, keyword: str) -> None:
    """Depth, digits and the kind of the top value die at the first character beyond."""
    for split in SPLITS:
        dead = feed(SyntaxPrefix(**options), text, split)
        assert dead is not None
        assert (dead.char, dead.keyword) == (where, keyword)


@pytest.mark.parametrize(
    "text", ["[[[]]]", "[123]", "[1e-9]", '{"a":{"a":1},"b":{"a":2}}', '"\\udc00"', '"\\ud83d\\ude00"']
)
def test_what_stands_within_limits(text: str) -> None:
    """Limits are inclusive; equal names in different objects and lone surrogates are fine."""
    for split in SPLITS:
        assert feed(SyntaxPrefix(max_depth=3, max_digits=3), text, split) is None


def test_what_it_tells_on_the_way() -> None:
    """After each character: whether the top value is complete, where it ended, where an open token began, the depth."""
    prefix = SyntaxPrefix()
    told = []
    for char in '{"k": [tr':
        prefix.feed(char)
        told.append((prefix.token_start, prefix.depth, prefix.complete))
    assert told == [
        (None, 1, False), (1, 1, False), (1, 1, False), (None, 1, False), (None, 1, False), (None, 1, False),
        (None, 2, False), (7, 2, False), (7, 2, False),
    ]  # fmt: skip
    prefix.feed("ue]} \n")
    assert (prefix.complete, prefix.end, prefix.consumed, prefix.depth) == (True, 13, 15, 0)


def test_a_number_at_the_top_ends_late() -> None:
    """A top-level number is complete with the whitespace after it, or at the end of input."""
    prefix = SyntaxPrefix()
    prefix.feed("12")
    assert (prefix.complete, prefix.end, prefix.token_start) == (False, None, 0)
    assert prefix.close() is None
    assert (prefix.complete, prefix.end) == (True, 2)
    prefix = SyntaxPrefix()
    prefix.feed("12 ")
    assert (prefix.complete, prefix.end, prefix.token_start) == (True, 2, None)


def test_trailing_text_comes_after_a_complete_value() -> None:
    """Whoever cuts trailing text finds the value's end beside the verdict."""
    prefix = SyntaxPrefix()
    dead = prefix.feed('{"a":1}\n```')
    assert dead is not None
    assert (dead.keyword, dead.char, prefix.complete, prefix.end) == ("trailing", 8, True, 7)


@given(st.text(alphabet='{}[]:,"\\ue0159.-+tfnals \n', max_size=14))
@settings(max_examples=400)
def test_any_text_as_json_loads_has_it(text: str) -> None:
    """A text is accepted exactly where `json.loads` accepts it, and every split says the same."""
    try:
        json.loads(text, parse_constant=lambda word: json.loads("!" + word))
        valid = True
    except ValueError:
        valid = False
    verdicts = {str(feed(lenient(), text, split)) for split in (whole, each, pieces(3))}
    assert len(verdicts) == 1
    assert (verdicts == {"None"}) == valid


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.recursive(SCALARS, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=8), st.integers(0, 9))
@settings(max_examples=150)
def test_no_document_is_refused(value: Any, seed: int) -> None:
    """What `json.dumps` writes stands, and its end is found."""
    text = json.dumps(value, ensure_ascii=bool(seed % 2), indent=seed % 3 or None)
    prefix = SyntaxPrefix()
    assert feed(prefix, text + " ", pieces(seed)) is None
    assert (prefix.complete, prefix.end) == (True, len(text))
