"""`viability.regexes`: what a beginning says about a pattern."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamguard.viability.patterns.python_regex import PatternError
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
    matches = re.search(source, text) is not None
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


ODD = st.sampled_from(
    [
        r"a",
        r"b",
        r"_",
        r".",
        r"é",
        r"²",
        r"̈",
        r"{",
        r"}",
        r"{s}",
        r"{e<=1}",
        r"{i,d}",
        r"{1}",
        r"{,2}",
        r"{2,}",
        r"{1,2}?",
        r"*",
        r"+",
        r"?",
        r"*?",
        r"++",
        r"?+",
        r"|",
        r"(",
        r")",
        r"(?:",
        r"(?=",
        r"(?!",
        r"(?<=",
        r"(?<!",
        r"(?>",
        r"(?P<n>",
        r"(?<m>",
        r"(?P=n)",
        r"\1",
        r"(?(1)a|b)",
        r"(?i:",
        r"(?a:",
        r"(?s:",
        r"(?m:",
        r"(?-i:",
        r"(?#x)",
        r"[",
        r"]",
        r"[^",
        r"[a-z]",
        r"[^a]",
        r"[^b]",
        r"[^a]|[^b]",
        r"[[:alpha:]]",
        r"[a--b]",
        r"[a&&b]",
        r"[a||b]",
        r"[a~~b]",
        r"[\w-]",
        r"[^\W_]",
        r"[^\W\d]",
        r"[\D\s]",
        r"\w",
        r"\W",
        r"\d",
        r"\D",
        r"\s",
        r"\S",
        r"\b",
        r"\B",
        r"\A",
        r"\Z",
        r"\m",
        r"\M",
        r"\G",
        r"\R",
        r"\X",
        r"\K",
        r"\h",
        r"\L<a>",
        r"\N{DIGIT",
        r"ONE}",
        r"\x61",
        r"\u0061",
        r"\U00000061",
        r"\07",
        r"\0",
        r"\e",
        r"\z",
        r"\Q",
        r"\E",
        r"\n",
        r"\-",
        r"\{",
        r"^",
        r"$",
        r"K",
        r"s",
        r"i",
    ]
)
UNUSUAL = st.text(
    alphabet="ab_K\u212as\u017fiI\u0130\u0131 é\u00b2\u00bd\u0308\u0663\x1c\x85\n{e<=1}\u0378\u1c89:-[]\U0001f600",
    max_size=6,
)


@given(st.lists(ODD, max_size=6).map("".join), UNUSUAL)
@settings(max_examples=400, deadline=None)
@example("^[^a]|[^b]$", "a")
@example("^([^a]|[^b]){1,2}$", "ab")
@example("^user_{s}$", "userX")
@example(r"^\w\b", "\u0378")
@example("(?i)^[^k]$", "\u212a")
@example(r"^\B$", "")
def test_every_pattern_means_what_re_says(source: str, text: str) -> None:
    """Whatever `re` reads, it is read so, for every text; what `re` refuses is refused. But for names and properties."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = re.compile(source.replace("(?<m>", "(?P<m>"))
        except re.error:
            with pytest.raises(PatternError):
                compile_pattern(source)
            return
    try:
        pattern = compile_pattern(source)
    except PatternError:
        assert re.search(r"\(\?P=|\\1", source)  # back-references that ignore case
        return
    found = theirs.search(text) is not None
    assert pattern.matches(text) == found
    if pattern.automaton is not None:
        assert pattern.automaton.run(text).ends == found
    if found:
        assert all(pattern.alive(text[:i]) for i in range(len(text) + 1))
    if any(pattern.certain(text[:i]) for i in range(len(text) + 1)):
        assert found


@pytest.mark.parametrize(
    "source", [r"\w", r"\W", r"\d", r"\s", r"\S", r"(?i)k", r"(?i)[^s]", r"(?i)\u0130", r"(?a)\w", r"[\w\s]", r"[^\D_]"]
)
def test_sets_hold_what_they_hold_for_re(source: str) -> None:
    """Every character there is, the ones that only a newer Unicode knows too."""
    pattern = compile_pattern(source)
    theirs = re.compile(source)
    every = list(map(chr, [*range(0x3000), *range(0xD7F0, 0x10000, 3), *range(0x10000, 0x20000, 7), 0x323AF, 0xE0100]))
    assert [c for c in every if pattern.matches(c) != (theirs.search(c) is not None)] == []


@pytest.mark.parametrize("source", [r"^\p{Lu}+$", r"[\p{Lu}1]", r"^[^\P{L}x]$"])
def test_properties(source: str) -> None:
    """What `re` refuses and schemas hold all the same."""
    pattern = compile_pattern(source)
    found = [text for text in ("É", "A", "é", "1", "x", "\u0378") if pattern.matches(text)]
    wanted = {"^": ["É", "A"], "[": ["É", "A", "1"]}[source[0]] if "^[^" not in source else ["É", "A", "é"]
    assert found == wanted


@pytest.mark.parametrize(
    "source",
    [r"\p{Nonsense}", r"[a-\p{L}]", "(", "a**", r"(?i)(a)\1", "(?<=a+)b", r"\q", "(?P<a", "x" * 10 + "{2}" * 3],
)
def test_what_is_refused(source: str) -> None:
    """With a reason."""
    with pytest.raises(PatternError, match=r"."):
        compile_pattern(source)
