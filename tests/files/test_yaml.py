"""What the reader of YAML takes, where it says things stand, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.errors import JobError, PolicyError
from streamguard.files.json_pointer import pointer
from streamguard.files.yaml import MAX_BYTES, MAX_DEPTH, MAX_PROBLEMS, Position, Span, load


def span(*numbers: int, written: str = "") -> Span:
    """A span of file f: line and column of the value, then of the key (the same if left out); a text as written."""
    value, key = numbers[:2], numbers[2:] or numbers[:2]
    return Span(Position("f", *value), Position("f", *key), written=written)


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load(text, "f")
    return [str(problem) for problem in raised.value.problems]


def test_positions_of_keys_and_values() -> None:
    """Every key and value has its 1-based line and column, in block and flow style, nested and not."""
    data, positions = load("version: 1\n# é\ncaps: {tokens: 5, 'a/b~': ~}\nlist:\n- x\n-   - 1.5\n", "f")
    assert data == {"version": 1, "caps": {"tokens": 5, "a/b~": None}, "list": ["x", [1.5]]}
    assert positions == {
        (): span(1, 1),
        ("version",): span(1, 10, 1, 1),
        ("caps",): span(3, 7, 3, 1),
        ("caps", "tokens"): span(3, 16, 3, 8),
        ("caps", "a/b~"): span(3, 27, 3, 19),
        ("list",): span(5, 1, 4, 1),
        ("list", 0): span(5, 3, written="x"),
        ("list", 1): span(6, 5),
        ("list", 1, 0): span(6, 7),
    }
    assert [pointer(path) for path in positions] == [
        "", "/version", "/caps", "/caps/tokens", "/caps/a~1b~0", "/list", "/list/0", "/list/1", "/list/1/0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("+7", 7), ("012", 12), ("0o14", 12), ("0x1F", 31), ("1_000", "1_000"), ("1:30", "1:30"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-1", -0.25), ("1e", "1e"), ("1.2.3", "1.2.3"),
        ("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"), ("yes", "yes"), ("no", "no"), ("on", "on"),
        ("off", "off"), ("y", "y"), ("null", None), ("~", None), ("", None), ("'~'", "~"), ('"1"', "1"), ("''", ""),
        ("2026-11-21", "2026-11-21"), ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"), ("=", "="), ("<<", "<<"),
        ("|\n   x\n   y", "x\ny\n"), (">-\n   1\n", "1"), ("a # b", "a"), ("a#b", "a#b"), ("10s", "10s"),
        ('"\\u00e9"', "é"), ("'it''s'", "it's"), ("[]", []), ("{}", {}), ("{a: }", {"a": None}), ("{on: 1}", {"on": 1}),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    """A plain scalar is what YAML 1.2's core schema says, with the type it says; quoted ones are text."""
    data, _ = load(f"k: {text}\n")
    assert data == {"k": value}
    assert type(data["k"]) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["f:1:1: empty; there have to be lines of `key: value`"]),
        ("# a comment\n", ["f:1:1: empty; there have to be lines of `key: value`"]),
        ("- a\n", ["f:1:1: a list; the top of the file has to be a mapping, lines of `key: value`"]),
        ("\n  hello\n", ["f:2:3: no mapping; the top of the file has to be lines of `key: value`"]),
        ("~\n", ["f:1:1: no mapping; the top of the file has to be lines of `key: value`"]),
        ("a: 1\n---\nb: 2\n", ["f:2:1: a second document; one file holds one"]),
        ("a: 1\n...\nb: 2\n", ["f:3:1: a second document; one file holds one"]),
        ("%YAML 1.1\n---\na: 1\n", ["f:2:1: a % directive; leave it out, files are YAML 1.2"]),
        ("%TAG !e! tag:e,2000:\n---\na: 1\n", ["f:2:1: a % directive; leave it out, files are YAML 1.2"]),
        ("a: !!str 1\n", ["f:1:4: a tag (!!str); plain values need none, and quotes make text of anything"]),
        (
            "a: !!python/object/apply:os.system [x]\n",
            ["f:1:4: a tag (!!python/object/apply:os.system); plain values need none, and quotes make text of anything"],
        ),
        ("!x a: 1\n", ["f:1:1: a tag (!x); plain values need none, and quotes make text of anything"]),
        ("a: ! x\n", ["f:1:4: a tag (!); plain values need none, and quotes make text of anything"]),
        ("a: !e!x y\n", ["f:1:4: not YAML: a tag (!); plain values need none, and quotes make text of anything"]),
        (
            "a: &x 1\nb: *x\n",
            [
                "f:1:4: an anchor (&x); write values out where they are used",
                "f:2:4: an alias (*x); write the value out",
            ],
        ),
        (
            "a: &x [*x]\n",
            [
                "f:1:4: an anchor (&x); write values out where they are used",
                "f:1:8: an alias (*x); write the value out",
            ],
        ),
        (
            "a:\n  <<: {b: 1}\n  c: 2\n",
            ["f:2:3: /a: a merge key (<<); use `extends:`, or write the values out"],
        ),
        (
            "a: {b: 1,\n  b: 2}\na: {b: 1}\n",
            [
                'f:2:3: /a/b: the key "b" stands twice, first in line 1',
                'f:3:1: /a: the key "a" stands twice, first in line 1',
            ],
        ),
        ("a: {1: x}\n", ["f:1:5: /a: the key 1 is no text; write it in quotes"]),
        ("true: x\n", ["f:1:1: the key true is no text; write it in quotes"]),
        ("null: x\n", ["f:1:1: the key null is no text; write it in quotes"]),
        (": x\n", ["f:1:1: a key without a name"]),
        ("? [a]\n: x\nb: 1\n", ["f:1:3: a list as a key; keys are text"]),
        ("{{a: 1, a: 2}: 1}\n", ["f:1:2: a mapping as a key; keys are text", 'f:1:9: /a: the key "a" stands twice, first in line 1']),
        ("a:\n\tb: 1\n", ["f:2:1: not YAML: a tab; indent with spaces"]),
        ("a: b: c\n", ["f:1:5: not YAML: a colon where no key can be: wrong indentation, or a value that has to be in quotes"]),
        ("a: 1\n  b: 2\n", ["f:2:4: not YAML: a colon where no key can be: wrong indentation, or a value that has to be in quotes"]),
        ("a:\n    b: 1\n  c: 2\n", ["f:3:3: not YAML: indented differently from the lines before"]),
        ("a: 1\nb\n", ["f:3:1: not YAML: a line that is no `key: value`: the colon, or the space after it, is missing"]),
        ("a:1\nb: 2\n", ["f:1:1: a space is missing after the colon; the top of the file has to be lines of `key: value`"]),
        ("a: 'x\n", ["f:2:1: not YAML: the file ends inside quotes; the closing quote is missing"]),
        ("a: {b: 1\n", ["f:2:1: not YAML: a comma or the closing } is missing"]),
        ("a: [1\nb: 2\n", ["f:2:2: not YAML: a comma or the closing ] is missing"]),
        ("a: @x\n", ["f:1:4: not YAML: @ cannot begin a value; put it in quotes"]),
        ("a: `x`\n", ["f:1:4: not YAML: ` cannot begin a value; put it in quotes"]),
        ("a: %x\n", ["f:1:4: not YAML: % cannot begin a value; put it in quotes"]),
        ("a: *\n", ["f:1:5: not YAML: an alias (*) or text that begins with *; write the value out, or in quotes"]),
        ('a: "\\d+"\n', ["f:1:6: not YAML: an unknown escape after \\; use 'single quotes' to keep backslashes as they are"]),
        ('a: "\\x1"\n', ["f:1:7: not YAML: an escape such as \\x41 or \\u0041 lacks digits; use 'single quotes' to keep backslashes as they are"]),
        ('a: "\\U00110000"\n', ["f:1:2: not YAML: an escape beyond the last character, \\U0010ffff"]),
        ('a: "\\UFFFFFFFF"\n', ["f:1:2: not YAML: an escape beyond the last character, \\U0010ffff"]),
        ('a: "\\ud800"\n', ["f:1:4: an escape that is half a character (\\ud800 to \\udfff)"]),
        ("a: .inf\nb: [.nan, -.Inf, 1e999]\n", [
            "f:1:4: .inf is no finite number", "f:2:5: .nan is no finite number", "f:2:11: -.Inf is no finite number",
            "f:2:18: 1e999 is no finite number",
        ]),
        (f"a: {'9' * 5000}\n", ["f:1:4: an integer of 5,000 characters; at most 400 are read"]),
        ("a: \0\n", ["f:1:4: a NUL byte; remove it"]),
        ("a: 1\nb: x\x07\n", ["f:2:5: the invisible character U+0007; remove it"]),
        (b"a: \xff\n", ["f:1:4: not UTF-8; save the file as UTF-8"]),
        ("a: é\nbé: \udc00\n", ["f:2:5: not UTF-8; save the file as UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["f:1:1: not UTF-8; save the file as UTF-8"]),
    ],
)  # fmt: skip
def test_refused(text: str | bytes, expected: list[str]) -> None:
    """What is refused is refused with file, line, column and one plain sentence."""
    assert mistakes(text) == expected


def test_bomb_is_refused_before_anything_is_copied() -> None:
    """Nine levels of aliases are eighty mistakes at the most, and no memory."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    found = mistakes("\n".join(levels))
    assert len(found) == 9 + 8 * 9
    assert found[:2] == [
        "f:1:5: an anchor (&a0); write values out where they are used",
        "f:2:5: an anchor (&a1); write values out where they are used",
    ]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 5000])
def test_depth(opening: str, depth: int) -> None:
    """The first level too deep is refused where it opens, however many follow."""
    found = mistakes("a:\n" + (" " if opening != "- " else "") + opening * depth)
    assert found[-1].endswith(f": nested more than {MAX_DEPTH} deep")


def test_depth_that_is_still_read() -> None:
    """The document counts as one level, and as many as allowed are read."""
    data, _ = load("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    for _ in range(MAX_DEPTH - 1):
        data = data["a"] if isinstance(data, dict) else data[0]
    assert data == []


@pytest.mark.parametrize("filler", ["# x\n", "é\n"])
def test_size(filler: str) -> None:
    """Size is measured in bytes, and before anything is parsed."""
    text = filler * (300 * 1024 // len(filler.encode()))
    assert mistakes(text) == [f"f:1:1: more than {MAX_BYTES:,} bytes"]
    assert mistakes(text.encode()) == mistakes(text)


def test_flood_of_mistakes_ends() -> None:
    """After enough mistakes the rest of the file is not read."""
    found = mistakes("a: 1\n" * 40_000)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"f:{MAX_PROBLEMS + 1}:1: more than {MAX_PROBLEMS} mistakes; the rest of the file was not read"


def test_long_names_are_shortened() -> None:
    """A message shows the beginning of what it found, not a page of it."""
    assert mistakes(f"a: &{'x' * 500} 1\n") == [
        f"f:1:4: an anchor (&{'x' * 39}…); write values out where they are used",
    ]


def test_byte_order_mark_and_line_ends() -> None:
    """A byte-order mark is skipped, Windows' line ends are line ends."""
    data, positions = load(b"\xef\xbb\xbfa: 1\r\nb: x\r\n", "f")
    assert data == {"a": 1, "b": "x"}
    assert positions[("b",)] == span(2, 4, 2, 1, written="x")


def test_other_errors() -> None:
    """Other files than policies are read by the same rules, with an error of their own."""
    with pytest.raises(JobError, match="empty"):
        load("", error=JobError)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=4))
@settings(max_examples=60, deadline=None)
def test_json_is_read_as_json(data: dict[str, Any]) -> None:
    """What JSON can say is read from YAML as the same value: YAML 1.2 holds JSON."""
    import json

    text = json.dumps(data)
    loaded, positions = load(text)
    assert loaded == data
    assert len(positions) == _count(data)


def _count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


TOKENS = [
    "a",
    "b: ",
    "- ",
    "\n",
    "\n  ",
    " #c\n",
    "|\n",
    "'",
    '"',
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&x ",
    "*x",
    "!t ",
    "<<: ",
]
TOKENS += [
    "? ",
    "%YAML 1.1\n",
    "---\n",
    "...\n",
    "\t",
    "\\U00110000",
    "\r\n",
    "1",
    "é",
    "\x85",
    "\u2028",
    "~",
    "@",
    "\0",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join) | st.text(max_size=30) | st.binary(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text: str | bytes) -> None:
    """Whatever stands in a file, it is read or refused with a line and a column inside it."""
    try:
        loaded = load(text, "f")
    except PolicyError as refused:
        lines = (text.decode("utf-8", "replace") if isinstance(text, bytes) else text).count("\n") + 3
        for problem in refused.problems:
            assert problem.file == "f"
            assert problem.line is not None
            assert 1 <= problem.line <= lines + 10  # other line ends count as well
            assert problem.column is not None
            assert problem.column >= 1
    else:
        assert len(loaded.positions) == _count(loaded.data)
