"""The bound of a text's tokens, against a reconstruction of the tokenizer where it can be installed."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from streamguard.pricing.text_upper import text_upper

ALPHABET = "aAbZ 1,._-'\"\n\t(é"
POOLS = (
    "aAbZ 1,._-'\"\n\t(",
    "éÉǄßİẞ中国あア한글",
    "\u0301\u0308\u0e33\u0e4d\u0711\u0730\ufe0f\u200d",
    "٠١²½①Ⅷⓐ",
    "—»«•—。、\uff08\uff09\uff01",
    "😀👩\u200d🇩🇪",
    "\u00a0\u3000\u2028\u200b\ufeff",
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("the quick brown fox", 19),
        ("The", 4),
        ("x", 2),
        ("ZQ_" * 2000, 6 * 2000),
        ("a, b", 4 + 2 + 1),
        ("é", 2 + 3),
        ("中国", 6 + 3),
        ("\ud83d", 3 + 2),
    ],
)
def test_bytes_and_the_marks_that_are_left_over(text: str, tokens: int) -> None:
    """Small words take their marks in; capitals, single letters, blanks at punctuation and others do not."""
    assert text_upper(text) == tokens


def test_long_texts_are_counted_in_slices() -> None:
    """A slice more costs a few marks, never fewer tokens."""
    assert text_upper("ZQ_" * 100_000) >= 6 * 100_000


def patterns() -> list[str]:
    """All short patterns of one alphabet, and patterns of many scripts by chance, repeated."""
    chance = random.Random(17)
    found = ["".join(chars) * (48 // size) for size in (1, 2, 3) for chars in itertools.product(ALPHABET, repeat=size)]
    for _ in range(4000):
        pools = chance.sample(POOLS, chance.choice((1, 1, 2, 3)))
        unit = "".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(1, 6)))
        found.append(unit * (48 // len(unit)))
    return found


@pytest.mark.parametrize("version", ["3.0", "4.7", "4.8"])
def test_no_pattern_has_more_tokens_in_the_reconstruction(version: str) -> None:
    """0 under-counts, as the text is and as JSON has it."""
    ctok = pytest.importorskip("ctok", reason="ctok needs Python 3.12")
    framing = ctok.token_count("", version)
    under = [
        text
        for text in patterns()
        if ctok.token_count(text, version) - framing > min(text_upper(text), text_upper(json.dumps(text)) + 2)
    ]
    assert under == []
