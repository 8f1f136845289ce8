"""Input lines: shapes, ids, strictness, and mistakes with their places."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.errors import Problem
from streamguard.jobs.input import rows
from streamguard.jobs.input.rows import Line, Row, content_key, lines, parse


def read(raw: bytes, number: int = 2) -> Row | str:
    found = parse(Line(number, 0, raw), "in.jsonl")
    return str(found) if isinstance(found, Problem) else found


def test_shapes_are_told_apart_by_their_names() -> None:
    """A batch line has `custom_id` and `params` and nothing else; any other object is data with an id."""
    assert read(b'{"custom_id": "a", "params": {"model": "m"}}\n') == Row(
        custom_id="a", line=2, data={"custom_id": "a", "params": {"model": "m"}}, params={"model": "m"}
    )
    assert read(b'{"id": 7, "text": "x"}') == Row(custom_id="7", line=2, data={"id": 7, "text": "x"})
    both = {"id": 1, "custom_id": "c", "params": {}}
    assert read(json.dumps(both).encode()) == Row(custom_id="c", line=2, data=both)


def test_a_row_without_an_id_is_known_by_what_is_in_it() -> None:
    """Whatever the order of its fields and the spelling of its characters; another value is another key."""
    found = [read(raw) for raw in (b'{"a": 1, "b": "\xc3\xa4"}', b'{"b":"\\u00e4","a":1}', b'{"a": 2, "b": "x"}')]
    assert [one.custom_id for one in found] == [None, None, None]
    keys = [content_key(one.data) for one in found]
    assert keys[0] == keys[1] == "row-1c46bbb6dc18e032951e"
    assert keys[2] != keys[0]


MISTAKES = [
    (b'{"id": "a" "b": 1}\n', "in.jsonl:2:12: not JSON: expecting ',' delimiter"),
    ('{"ä": nope}\n'.encode(), "in.jsonl:2:7: not JSON: expecting value"),
    (b'{"id": 1} {"id": 2}\n', "in.jsonl:2:11: not JSON: extra data"),
    (b"[1, 2]\n", "in.jsonl:2: must be a JSON object, got an array"),
    (b"null", "in.jsonl:2: must be a JSON object, got null"),
    (b'"text"\r\n', "in.jsonl:2: must be a JSON object, got a string"),
    (b"12345678901234567890123\n", "in.jsonl:2: must be a JSON object, got the number 12345678901234567890"),
    (b'{"id": "\xff"}', "in.jsonl:2:9: not UTF-8"),
    ('{"id": "ä'.encode() + b"\x80", "in.jsonl:2:10: not UTF-8"),
    (b'{"id": 1, "id": 2}', 'in.jsonl:2: the name "id" stands twice in one object'),
    (b'{"id": 1, "x": {"y": 1, "y": 1}}', 'in.jsonl:2: the name "y" stands twice in one object'),
    (b'{"id": NaN}', "in.jsonl:2: NaN is no JSON number"),
    (b'{"id": 1, "x": 1e999}', "in.jsonl:2: 1e999 is too large for a number"),
    (b'{"id": ' + b"1" * 5000 + b"}", "in.jsonl:2: a number with too many digits"),
    (b'{"id": ""}', "in.jsonl:2: /id: must not be empty"),
    (b'{"id": null}', "in.jsonl:2: /id: must be a string or an integer, got null"),
    (b'{"id": true}', "in.jsonl:2: /id: must be a string or an integer, got a boolean"),
    (b'{"id": 1.5}', "in.jsonl:2: /id: must be a string or an integer, got the number 1.5"),
    (b'{"custom_id": 1, "params": {}}', "in.jsonl:2: /custom_id: must be a string, got the number 1"),
    (b'{"id": "' + b"x" * 513 + b'"}', "in.jsonl:2: /id: at most 512 characters, got 513"),
    (
        b'{"id": 1, "x": "\\ud83d"}',
        "in.jsonl:2: half of a surrogate pair (an escape such as \\ud83d alone): no character, and cannot be sent",
    ),
    (b'{"id": 1, "x": ' + b"[" * 101 + b"]" * 101 + b"}", "in.jsonl:2: nested more than 100 deep"),
    (b'{"id": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "in.jsonl:2: nested more than 100 deep"),
    (
        b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}',
        (
            "in.jsonl:2: a line of an OpenAI batch; make it a line of a Message Batch, "
            '{"custom_id": …, "params": {"model": …, "max_tokens": …, "messages": […]}}: '
            "a system message becomes params.system, and url and method go"
        ),
    ),
]


@pytest.mark.parametrize(("raw", "said"), MISTAKES)
def test_mistakes_name_their_place(raw: bytes, said: str) -> None:
    """What is wrong with a line, where, and in one sentence."""
    found = read(raw)
    assert found == said


def test_pairs_of_surrogates_are_characters() -> None:
    """An escaped pair is one character, and an escaped backslash before `ud83d` is text."""
    assert read(b'{"id": 1, "x": "\\ud83d\\ude00 \\\\ud83d"}') == Row(
        custom_id="1", line=2, data={"id": 1, "x": "😀 \\ud83d"}
    )


def test_a_bom_is_tolerated_on_the_first_line_only() -> None:
    """Windows editors write one; anywhere else it is a mistake."""
    assert read(b'\xef\xbb\xbf{"id": "a"}', number=1) == Row(custom_id="a", line=1, data={"id": "a"})
    assert str(read(b'\xef\xbb\xbf{"id": "a"}', number=2)).startswith("in.jsonl:2:1: not JSON: ")
    assert read('{"id": "a"}'.encode("utf-16"), number=1) == "in.jsonl:1:1: not UTF-8; it looks like UTF-16"


@pytest.mark.parametrize("first", [b"[\n", b"{\n"])
def test_json_that_is_not_lines_is_recognised(first: bytes) -> None:
    """Whoever passes an array, or pretty-printed objects, is told how to make lines."""
    assert "jq -c '.[]' makes lines of an array" in str(read(first, number=1))


def test_long_lines_are_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line above the limit is skipped to its end, and the next one is read as ever."""
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 16)
    found = list(lines(io.BytesIO(b'{"id": "' + b"x" * 50 + b'"}\n{"id": 1}\n')))
    assert [(line.number, line.offset, len(line.raw), line.too_long) for line in found] == [
        (1, 0, 17, True),
        (2, 61, 10, False),
    ]
    assert str(parse(found[0], "in.jsonl")).startswith("in.jsonl:1: longer than ")


def test_only_a_newline_ends_a_line() -> None:
    """U+2028 and form feeds inside of strings are text, and blank lines count in line numbers only."""
    raw = '{"id": "a\u2028b"}\n\n \r\n{"id": "c"}'.encode()
    found = list(lines(io.BytesIO(raw)))
    assert [(line.number, line.blank) for line in found] == [(1, False), (2, True), (3, True), (4, False)]
    assert parse(found[0], "f") == Row(custom_id="a\u2028b", line=1, data={"id": "a\u2028b"})


@settings(max_examples=100)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4))
def test_whatever_json_writes_is_read(data: dict) -> None:
    """Any object with an id comes out as it went in, escaped or not."""
    data = {**data, "id": "x"}
    data.pop("custom_id", None)
    for ascii_only in (True, False):
        raw = json.dumps(data, ensure_ascii=ascii_only).encode("utf-8", "replace")
        assert read(raw) == Row(custom_id="x", line=2, data=data)
