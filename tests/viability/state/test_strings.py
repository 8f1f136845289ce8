"""`viability.strings`: strings cut anywhere, in escapes and between surrogates."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.viability import compile_schema
from streamguard.viability.state.strings import Text, units
from tests.viability.feeding import each, feed, pieces


@given(st.text(max_size=6), st.booleans(), st.integers(0, 99))
def test_any_split_of_any_spelling(text: str, escaped: bool, seed: int) -> None:
    """The text, its length and its units come out the same however it is written and cut."""
    raw = (
        "".join(f"\\u{ord(unit):04x}" for unit in units(text))
        if escaped
        else json.dumps(text, ensure_ascii=False)[1:-1]
    )
    so_far = Text()
    for piece in pieces(seed, (1, 2, 3))(raw):
        so_far.feed(piece)
        assert so_far.exact <= so_far.least <= len(text)
        assert text.startswith(so_far.head)
        assert so_far.extends([units(text)]) == [units(text)]
    assert so_far.finish() == text


@pytest.mark.parametrize(
    ("raw", "least", "candidates", "left"),
    [
        ("a\\", 2, ["a", "ab", 'a"'], ["ab", 'a"']),
        ("\\u00", 1, ["a", "é", "日"], ["a", "é"]),
        ("\\u006", 1, ["a", "g", "q"], ["a", "g"]),
        ("\\ud83d", 1, ["😀", "a", "\U0001f4a9"], ["😀", "\U0001f4a9"]),
        ("\\ud83d\\ude0", 1, ["😀", "\U0001f4a9"], ["😀"]),
        ("\\ud83d\\u00", 2, ["😀"], []),
        ("\\\\u00", 4, ["\\u00e9", "é"], ["\\u00e9"]),
        ("日", 1, ["日本", "本"], ["日本"]),
    ],
)
def test_what_a_cut_escape_commits_to(raw: str, least: int, candidates: list[str], left: list[str]) -> None:
    """A backslash is one more character, unless it may still be the other half of a surrogate pair."""
    text = Text()
    text.feed(raw)
    assert text.least == least
    assert text.extends(list(map(units, candidates))) == list(map(units, left))


@pytest.mark.parametrize(
    ("schema", "text", "where"),
    [
        ({"maxLength": 1}, '"\\ud83d\\ude00"', None),
        ({"maxLength": 1}, '"\\ud83d\\u0041"', 9),
        ({"maxLength": 2}, '"ab\\', 3),
        ({"pattern": "^[a-f]+$"}, '"\\u006', "eof"),
        ({"pattern": "^[a-f]+$"}, '"\\u0071', 5),
        ({"pattern": "^[a-f]\\Z"}, '"a\\u0030', 2),
        ({"pattern": "^[a-f]$"}, '"a\\u0030', 6),
        ({"pattern": "^[a-z]$"}, '"\\ud83d', 3),
        ({"pattern": "^\\w$"}, '"\\ud83d\\ude00', 6),
        ({"pattern": "^\\w$"}, '"\\ud835\\udc00"', None),
        ({"pattern": "^[\ud83d]$"}, '"\\ud83d"', None),
        ({"pattern": "^\ud83db$"}, '"\\ud83d\\u0062"', None),
        ({"pattern": "^(x|ab)c$", "maxLength": 2}, '"a', 1),
        ({"pattern": "^x.$", "maxLength": 1}, '"x', 0),
        ({"pattern": "^([a-z]+ ?)+$"}, '"' + "ab " * 5000 + "B", 15001),
        ({"not": {"pattern": "ab"}}, '"' + "b" * 5000 + "ab", 5002),
        ({"enum": ["value-" + str(i) for i in range(5000)]}, '"value-49999', 11),
        ({"enum": ["a" * 3000, "a" * 2999 + "b"]}, '"' + "a" * 3000 + "a", 3001),
        ({"minLength": 2}, '"😀"', 2),
    ],
)
def test_characters(schema: dict[str, object], text: str, where: int | str | None) -> None:
    """Lengths, patterns and candidates go by characters, not by how they are written."""
    dead = feed(compile_schema(schema).prefix(), text, each)
    assert (None if dead is None else dead.char) == where
