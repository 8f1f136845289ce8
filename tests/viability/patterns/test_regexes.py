"""`viability.regexes`: what a beginning says about a pattern."""

from __future__ import annotations

import re

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.viability.patterns.regexes import Pattern, PatternTimeout, compile_pattern


@pytest.mark.parametrize(
    ("source", "early", "lasting"),
    [
        ("^abc$", True, False),
        ("^abc", True, True),
        ("abc", False, True),
        ("^a|b", False, True),
        ("^a|^b", True, True),
        ("^(a|b)$", True, False),
        ("(^a)", True, True),
        ("(^a|b)c", False, True),
        (r"\Aab", True, True),
        (r"^a\b", False, False),
        ("^(?=a)b", True, False),
        ("^(?!a)b", True, False),
        ("^(?!a$)b", False, False),
        ("^(?!a|b)c|^d", False, False),
        ("^(?!(no|nay)$)[a-z]+$", False, False),
        ("^a(?<!b)c", False, False),
        (r"^[$|(?!]x\|", True, True),
        ("^(?<name>a)(?:b)", True, True),
        ("^(?>a*)b", False, False),
        ("", False, True),
    ],
)
def test_what_a_pattern_can_answer(source: str, early: bool, lasting: bool) -> None:
    """Only anchored patterns without a look around can be dead early; only those that look at no end can be certain."""
    pattern = compile_pattern(source)
    assert (pattern.early, pattern.lasting) == (early, lasting)
    assert (pattern.late is None) == early


@pytest.mark.parametrize(
    ("source", "alive", "dead"),
    [
        ("^[A-Z]{3}$", ["", "A", "ABC", "ABC\n"], ["a", "ABCD", "ABC\n\n"]),
        ("^(?!foo)", ["f", "fo", "fx"], ["foo", "foobar"]),
        ("^(?!foo)[a-z]+$", ["f", "fo"], ["foo", "F", "foox"]),
        (r"^\d{4}-\d{2}$", ["2024-1"], ["2024-x"]),
        ("^(a|bc)*d", ["", "abca", "abcd", "abcdxx"], ["abx", "c"]),
        ("late", ["x", ""], []),
    ],
)
def test_alive(source: str, alive: list[str], dead: list[str]) -> None:
    """Beginnings that may still match, and such as may not."""
    pattern = compile_pattern(source)
    assert [text for text in alive if not pattern.alive(text)] == []
    assert [text for text in dead if pattern.alive(text)] == []


PIECES = st.sampled_from(
    r"a b . \w \d [ab] [^a] (a|b) (?:ab)+ a* b+ a? b{2} [a-c]{1,3} (?!b) (?=a) (?=.b) (?<=a) \b \B x".split()  # noqa: SIM905
)
SOURCES = st.builds(
    lambda begin, parts, end: begin + "".join(parts) + end,
    st.sampled_from(("^", "^", "^(?!ab)", "", "^a|^")),
    st.lists(PIECES, max_size=4),
    st.sampled_from(("$", "", r"\Z")),
)


@given(SOURCES, st.text(alphabet="abcx1\n", max_size=6))
@settings(max_examples=500)
def test_no_beginning_of_a_match_is_dead(source: str, text: str) -> None:
    """If a text matches, all its beginnings are alive; what is certain at a beginning holds at the end."""
    pattern = compile_pattern(source)
    matches = regex.search(source, text) is not None
    assert pattern.matches(text) == matches
    for i in range(len(text) + 1):
        if matches:
            assert pattern.alive(text[:i])
        if pattern.certain(text[:i]):
            assert matches


def test_a_pattern_that_blows_up() -> None:
    """Beyond its time a pattern takes beginnings for alive and refuses to say of finished strings."""
    pattern = Pattern("^(?!b)(a|aa)+$")
    text = "a" * 60 + "!"
    assert pattern.alive(text) is True
    with pytest.raises(PatternTimeout):
        pattern.matches(text)


def test_an_automaton_answers_where_a_search_takes_too_long() -> None:
    """A regular language is decided however its pattern is written."""
    pattern = Pattern("^(a|aa)+$")
    assert pattern.alive("a" * 60 + "!") is False
    assert pattern.matches("a" * 60 + "!") is False
    assert pattern.matches("a" * 60) is True


@pytest.mark.parametrize("text", ["a", "ab", "ba", "]"])
def test_a_no_gets_a_second_opinion(text: str) -> None:
    """`regex` merges alternatives that are single negated characters, wrongly; `re`, which jsonschema uses, does not."""
    source = "^([^a]|[^b]){1,2}$"
    assert re.search(source, text) is not None
    assert compile_pattern(source).matches(text)
