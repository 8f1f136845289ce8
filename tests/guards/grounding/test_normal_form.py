"""`guards.grounding.normal_form`: what counts as the same, and that pieces of a text give the form of the whole."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.guards.grounding.normal_form import NormalText, in_word, joins, normal_form

USUAL = ("case", "dashes", "quotes", "space")
ALL = (*USUAL, "markup")

ALPHABET = (
    "aAeEi  \n\t-'\"“”’«»–—‐−\u0301\u0327\u0323\u0345éßẞİΣσςﬁﬀ½①가각\u11a8\u00ad\u200bŉǰ\u00b4¨*_`#\\&;<>/x1am\u00a0\u3000"
    "ΐᾳﾞガ\U0001d15e"
)


@pytest.mark.parametrize(
    ("ignore", "one", "other"),
    [
        ((), "Müller", "Mu\u0308ller"),
        ((), "eﬃcient", "efficient"),
        ((), "１２３", "123"),
        ((), "soft\u00adhyphen", "softhyphen"),
        ((), "zero\u200bwidth\ufeff", "zerowidth"),
        ((), "가", "\u1100\u1161"),
        ((), "non\u00a0breaking", "non breaking"),
        (("case",), "STRASSE", "straße"),
        (("case",), "ΟΔΟΣ", "οδος"),
        (("case",), "İstanbul", "i\u0307stanbul"),
        (("space",), " a \n\t b ", "a b"),
        (("dashes",), "A–17", "A17"),
        (("dashes",), "well-\nknown", "well-known"),
        (("dashes", "space"), "Vor- und Nachname", "Vor-\n  und Nachname"),
        (("dashes", "space"), "a — b", "a b"),
        (("quotes",), "„Acme’s“", '"Acme\'s"'),
        (("quotes",), "l\u00b4eau", "l'eau"),
        (("markup",), "**bold** _name_", "bold name"),
        (("markup",), "A<b>c</b>me &amp; Sons", "Acme & Sons"),
        (("markup", "space"), "<td>a</td><td>b</td>", "a b"),
        (("markup",), "&#x41;&shy;&nbsp;1", "A 1"),
    ],
)
def test_what_counts_as_the_same(ignore: tuple[str, ...], one: str, other: str) -> None:
    """Two spellings have one form."""
    form = normal_form(ignore)
    assert form.whole(one) == form.whole(other)


@pytest.mark.parametrize(
    ("ignore", "one", "other"),
    [
        ((), "Acme", "acme"),
        ((), "a  b", "a b"),
        ((), "A-17", "A–17"),
        (USUAL, "Muller", "Müller"),
        (USUAL, "ab", "a b"),
        (USUAL, "*a*", "a"),
        (USUAL, "a < b", "a b"),
        (("markup",), "a < b & c", "a b c"),
    ],
)
def test_what_does_not(ignore: tuple[str, ...], one: str, other: str) -> None:
    """Two spellings differ, unless that is ignored."""
    form = normal_form(ignore)
    assert form.whole(one) != form.whole(other)


@given(
    st.text(ALPHABET, max_size=16) | st.text(max_size=8),
    st.sets(st.sampled_from(ALL)),
    st.lists(st.integers(0, 16), max_size=4),
)
@settings(max_examples=1_000)
def test_pieces_give_the_form_of_the_whole(text: str, ignore: set[str], cuts: list[int]) -> None:
    """Wherever a text is cut, what is given of it is a prefix of the form of the whole, and in the end all of it."""
    form = normal_form(tuple(sorted(ignore)))
    whole = form.whole(text)
    for places in (sorted(cuts), range(1, len(text))):
        pieces = [text[begin:end] for begin, end in zip((0, *places), (*places, len(text)), strict=True)]
        normal, given_so_far = NormalText(form), ""
        for piece in pieces:
            given_so_far += normal.feed(piece)
            assert whole.startswith(given_so_far)
        assert given_so_far + normal.finish() == whole


@pytest.mark.parametrize(
    "text",
    [
        "A<b>c</b>me &amp; Sons",
        "<td class='x &lt; y'>a</td><td>b</td>",
        "5 < 6 and a<b & c &amp c; &nosuch; <",
        "&#x41;&#769;e&#x301;<br/>&",
        "<a " + "x" * 205 + "&amp;>",
        "-<i>-</i> &shy; - &nbsp; x",
    ],
)
def test_pieces_of_markup(text: str) -> None:
    """A tag or an entity that a piece ends in waits for the next one, and what turns out to be none is text."""
    form = normal_form(ALL)
    whole = form.whole(text)
    for cut in range(len(text) + 1):
        normal = NormalText(form)
        begun = normal.feed(text[:cut])
        assert whole.startswith(begun)
        assert begun + normal.feed(text[cut:]) + normal.finish() == whole


def test_what_is_given_is_certain_whatever_follows() -> None:
    """A mark that follows changes nothing that was given: the reason why marks wait."""
    form, wrong = normal_form(USUAL), []
    for base in ("e", "é", "\u1eb9", "ᾳ", "가", "ǰ", "İ"):
        for marks in ("\u0323", "\u0301\u0323", "\u0345\u0301", "\u11a8"):
            if not form.whole(base + marks + "x").startswith(NormalText(form).feed(base)):
                wrong.append(base + marks)
    assert wrong == []


def test_no_folded_character_begins_or_ends_with_a_mark() -> None:
    """What the form rests on: folded characters can be put side by side without a change of order."""
    wrong = []
    for code in range(0x110000):
        for part in unicodedata.normalize("NFKD", chr(code)):
            folded = unicodedata.normalize("NFKD", part.casefold())
            if not unicodedata.combining(part) and folded and any(map(unicodedata.combining, (folded[0], folded[-1]))):
                wrong.append(chr(code))
    assert wrong == []


@pytest.mark.parametrize(
    ("char", "expected"),
    [("a", True), ("é", True), ("_", True), ("7", True), ("-", False), (" ", False), ("金", False), ("ก", False)],
)
def test_words(char: str, expected: bool) -> None:
    """Scripts that write words without blanks have no edges of words."""
    assert in_word(char) is expected


def test_what_belongs_to_the_character_before() -> None:
    """Marks do, and the later parts of a Korean syllable."""
    assert [joins(char) for char in ("\u0301", "\u11a8", "\u1161", "a", "\u1100")] == [True, True, True, False, False]
