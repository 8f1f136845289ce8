"""`viability.automaton` and `viability.regex_tree`: a pattern followed character by character says what `re` says."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamguard.viability.patterns.automaton import MOST_AT_ONCE, Automaton
from streamguard.viability.patterns.python_regex import read
from streamguard.viability.patterns.regex_tree import NotRegular

CLASSES = st.sampled_from(
    [
        "a",
        "b",
        "1",
        "é",
        ".",
        r"\w",
        r"\d",
        r"\s",
        r"\W",
        "[ab]",
        "[^a]",
        "[a-c1]",
        r"[\w-]",
        "[]a]",
        r"\.",
        r"\x61",
        "}",
    ]
)
TREES = st.recursive(
    CLASSES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.builds(
            lambda part, sign: f"(?:{part}){sign}",
            inner,
            st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "{0}"]),
        ),
    ),
    max_leaves=6,
)
SOURCES = st.builds(
    lambda begin, tree, end: begin + tree + end,
    st.sampled_from(["^", "^", r"\A", "", "^x|^"]),
    TREES,
    st.sampled_from(["", "$", r"\Z"]),
)
TEXTS = st.text(alphabet="abcx1é \n.]}", max_size=8)


@given(SOURCES, TEXTS)
@settings(max_examples=400, deadline=None)
def test_it_says_what_re_says(source: str, text: str) -> None:
    """It matches the same strings; no beginning of a match is dead, and what is sure at a beginning holds at the end."""
    try:
        automaton = Automaton(read(source))
    except NotRegular:
        assume(False)
    matches = re.search(source, text) is not None
    assert automaton.run(text).ends == matches
    state = automaton.start
    for i, char in enumerate(text):
        if matches:
            assert state.alive
            assert state.lacking <= len(text) - i
            assert automaton.takes(state, ord(char), ord(char))
        assert not state.sure or matches
        after = automaton.run(char, state)
        assert automaton.takes(state, ord(char), ord(char)) == after.alive
        state = after
    if matches:
        assert automaton.shortest <= len(text) <= automaton.longest


@pytest.mark.parametrize(
    "source",
    [
        "^(?=a)b",
        "^(?!a)b",
        "^a(?<!b)c",
        r"^(a)\1",
        r"^a\b",
        r"^a\Zb",
        "^a$b",
        "a^b",
        "(^a)?b",
        "(a$)?b",
        "^a*+",
        "^(?>a)b",
        "^a|b",
        "^(?:a{1000}){1000}",
    ],
)
def test_what_it_cannot_follow(source: str) -> None:
    """Patterns that look around or back, that are not understood, or too large, are refused."""
    with pytest.raises(NotRegular):
        Automaton(read(source))


@pytest.mark.parametrize(
    ("source", "shortest", "longest"),
    [
        ("^[A-Z]{3}$", 3, 4),  # a newline may follow
        (r"^[A-Z]{3}\Z", 3, 3),
        ("^a", 1, math.inf),
        (r"^(a|bc)*\Z", 0, math.inf),
        ("b$", 1, math.inf),
        (r"^\d{4}-\d{2}(-\d{2})?\Z", 7, 10),
    ],
)
def test_lengths(source: str, shortest: int, longest: float) -> None:
    """It knows how long a match is."""
    automaton = Automaton(read(source))
    assert (automaton.shortest, automaton.longest) == (shortest, longest)


def test_one_state_for_one_place() -> None:
    """States are shared: a long string of one kind stays in few of them."""
    automaton = Automaton(read("^([a-z]+ ?)+$"))
    places = {id(automaton.run("ab cde " * i)) for i in range(1, 200)}
    assert len(places) <= 2


def test_too_many_places_at_once() -> None:
    """A pattern that could be in very many places is followed no further, and stays alive."""
    automaton = Automaton(read("^(a{0,40}){40}$"))
    state = automaton.run("a" * 100)
    assert len(state.parts) > MOST_AT_ONCE
    assert (state.alive, state.known, state.sure, state.ends) == (True, False, False, False)
    assert automaton.run("zzz", state) is state
    assert automaton.takes(state, 0, 10)
