"""`viability.syntax.escapes`: a string's text is the same wherever its pieces end."""

from __future__ import annotations

import json

import pytest

from streamguard.viability.syntax.escapes import StringText, spelled, unfinished

TEXTS = [
    "plain",
    r"a\nb\\\"c\/",
    r"\u00e9\u0301x",
    r"\ud83d\ude00!",
    r"\ud83d\ud83d\ude00",
    r"\ud83dx\ude00",
    r"\\u00e9\\\u00e9",
    r"\ud83d\n\ud83d",
    "é😀\\u0041",
]


@pytest.mark.parametrize("raw", TEXTS)
def test_pieces_give_the_text_that_json_reads(raw: str) -> None:
    """Every split in two, and every character by itself, decodes to the same."""
    whole = json.loads(f'"{raw}"')
    for cut in range(len(raw) + 1):
        text = StringText()
        assert text.feed(raw[:cut]) + text.feed(raw[cut:]) + text.finish() == whole
    text = StringText()
    assert "".join(map(text.feed, raw)) + text.finish() == whole


@pytest.mark.parametrize("raw", TEXTS)
def test_only_what_is_certain_is_given(raw: str) -> None:
    """What is given of a prefix is a prefix of the text."""
    whole = json.loads(f'"{raw}"')
    for cut in range(len(raw)):
        given = StringText().feed(raw[:cut])
        assert whole.startswith(given)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("ab\\", "\\"), ("ab\\\\", ""), ("\\\\\\", "\\"), ("\\ud83d", "\\ud83d"), ("\\\\ud83d", ""), ("x\\u12", "\\u12")],
)
def test_what_is_no_finished_character(raw: str, expected: str) -> None:
    """A backslash that is escaped itself begins nothing."""
    assert unfinished(raw) == expected


@pytest.mark.parametrize("raw", TEXTS)
def test_the_spelling_of_the_first_characters(raw: str) -> None:
    """The raw text of the first characters decodes to these, and none of the raw text is left for all."""
    whole = json.loads(f'"{raw}"')
    assert [json.loads(f'"{raw[: spelled(raw, count)]}"') for count in range(len(whole) + 1)] == [
        whole[:count] for count in range(len(whole) + 1)
    ]
    assert spelled(raw, len(whole)) == len(raw)
