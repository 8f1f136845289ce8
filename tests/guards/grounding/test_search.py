"""`guards.grounding.search`: an unfinished value dies where, and only where, the naive check says so."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.guards.grounding.normal_form import NormalForm, NormalText, in_word, joins, normal_form
from streamguard.guards.grounding.search import Edges, Search

USUAL = ("case", "dashes", "quotes", "space")
SETS = ((), ("case",), ("case", "space"), USUAL, (*USUAL, "markup"))
ALPHABET = "aAbße  \n-–'’\u0301\u0323éİiΣς\u00adﬁfi½12가각\u11a8*"


def stands(source: str, value: str, form: NormalForm, edges: Edges) -> bool:
    """The naive check, of whole texts: some occurrence begins and ends where it may."""
    text, wanted = form.whole(source), form.whole(value)
    if not wanted:
        return True
    for at in range(len(text) - len(wanted) + 1):
        if text[at : at + len(wanted)] != wanted:
            continue
        before, after = text[at - 1 : at] if at else "", text[at + len(wanted) : at + len(wanted) + 1]
        if after and joins(after):
            continue
        inside = (before and in_word(before) and in_word(wanted[0])) or (
            after and in_word(after) and in_word(wanted[-1])
        )
        if edges == "any" or not inside:
            return True
    return False


def looked_for(source: str, pieces: list[str], form: NormalForm, edges: Edges) -> tuple[bool, int | None]:
    """Whether a value in pieces stands, and the character with which it died before its end."""
    search, fed = Search(form.whole(source), form, edges=edges), 0
    for piece in pieces:
        dead = search.feed(piece)
        if dead is not None:
            return False, fed + dead
        fed += len(piece)
    return search.finish(), None


def first_dead(source: str, value: str, form: NormalForm) -> int | None:
    """The naive place: the first prefix whose certain part occurs nowhere."""
    text = form.whole(source)
    for end in range(1, len(value) + 1):
        if NormalText(form).feed(value[:end]) not in text:
            return end - 1
    return None


def compare(source: str, value: str, form: NormalForm, edges: Edges, cuts: list[list[int]]) -> int:
    """Hold every way of cutting a value against the naive check; how many were compared."""
    expected = stands(source, value, form, edges)
    place = first_dead(source, value, form)
    for cut in cuts:
        pieces = [value[begin:end] for begin, end in zip([0, *cut], [*cut, len(value)], strict=True)]
        found = looked_for(source, pieces, form, edges)
        assert found == (expected, place), (source, value, form.ignore, edges, cut)
    assert place is None or not expected
    return len(cuts)


def pair(rng: random.Random) -> tuple[str, str]:
    """A source, and a value that often stands in it, in another spelling or nearly."""
    source = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 24)))
    if rng.random() < 0.3:
        return source, "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 6)))
    begin = rng.randint(0, len(source))
    value = list(source[begin : begin + rng.randint(0, 10)])
    for _ in range(rng.choice((0, 0, 1, 2))):
        value.insert(rng.randint(0, len(value)), rng.choice(ALPHABET))
    return source, "".join(value)


def every_cut(value: str) -> list[list[int]]:
    """The value whole, in two at every place, and character by character."""
    return [[], *([cut] for cut in range(1, len(value))), list(range(1, len(value)))]


@pytest.mark.parametrize("seed", range(5))
def test_the_verdict_and_its_place_are_the_naive_ones_at_every_split(seed: int) -> None:
    """Random pairs with marks, ligatures, `ß`, `İ`, `Σ`, syllables, fractions and soft hyphens."""
    rng = random.Random(seed)
    for _ in range(300):
        source, value = pair(rng)
        compare(source, value, normal_form(SETS[seed]), rng.choice(("any", "word")), every_cut(value))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_many_times() -> None:
    """Every set of options, every split; as many pairs as `STREAMGUARD_PAIRS` says."""
    pairs = int(os.environ.get("STREAMGUARD_PAIRS", "10000"))
    rng, compared = random.Random(7), 0
    for turn in range(pairs):
        source, value = pair(rng)
        compared += compare(source, value, normal_form(SETS[turn % 5]), rng.choice(("any", "word")), every_cut(value))
    assert compared > 4 * pairs


@given(st.text(ALPHABET, max_size=20), st.text(ALPHABET, max_size=8), st.text(ALPHABET, max_size=8))
@settings(max_examples=300)
def test_more_source_never_kills(source: str, value: str, more: str) -> None:
    """What stands in a source stands in a longer one, if the two are kept apart."""
    form = normal_form(USUAL)
    if stands(source, value, form, "word"):
        assert looked_for(f"{source} | {more}", [value], form, "word") == (True, None)
        assert looked_for(f"{more} | {source}", [value], form, "word") == (True, None)


@given(
    st.text(ALPHABET, max_size=20),
    st.text(ALPHABET, max_size=8),
    st.integers(0, 20),
    st.sampled_from("\u00ad\u200b\ufeff"),
)
@settings(max_examples=300)
def test_what_shows_nothing_changes_nothing(source: str, value: str, at: int, invisible: str) -> None:
    """Soft hyphens and the like may be put anywhere in either."""
    form = normal_form(USUAL)
    plain = looked_for(source, [value], form, "any")[0]
    assert looked_for(source[:at] + invisible + source[at:], [value], form, "any")[0] == plain
    assert looked_for(source, [value[:at] + invisible + value[at:]], form, "any")[0] == plain


@given(st.text("ab fi", max_size=20), st.text("ab fi", max_size=8))
@settings(max_examples=300)
def test_spellings_of_the_same_change_nothing(source: str, value: str) -> None:
    """Ligatures, capitals, and blanks of other kinds may stand for theirs in either."""
    form = normal_form(USUAL)
    plain = looked_for(source, [value], form, "any")[0]
    other = str.maketrans({" ": "\u00a0\n", "a": "A"})
    assert looked_for(source.replace("fi", "ﬁ").translate(other), [value], form, "any")[0] == plain
    assert looked_for(source, [value.replace("fi", "ﬁ").translate(other)], form, "any")[0] == plain


@pytest.mark.parametrize(
    ("source", "value", "edges", "expected"),
    [
        ("version 0.4.10 of it", "0.4.1", "any", True),
        ("version 0.4.10 of it", "0.4.1", "word", False),
        ("0.4.10 and 0.4.1", "0.4.1", "word", True),
        ("(Acme)", "Acme", "word", True),
        ("Acmes", "Acme", "word", False),
        ("café", "cafe", "any", False),
        ("café", "caf", "any", True),
        ("각", "가", "any", False),
        ("北京市有限公司", "有限公司", "word", True),
        ("anything", "", "word", True),
        ("", "x", "any", False),
    ],
)
def test_edges(source: str, value: str, edges: Edges, expected: bool) -> None:
    """A value may not end inside a character, and with `word` not inside a word."""
    assert looked_for(source, [value], normal_form(USUAL), edges)[0] is expected


def test_the_longest_part_that_was_found_is_known() -> None:
    """After a death the place and the length are those of what stood."""
    form = normal_form(USUAL)
    search = Search(form.whole("one two, one three"), form)
    assert search.feed("one throne") == 7
    assert (search.at, search.length) == (9, 7)
