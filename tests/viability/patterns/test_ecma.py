"""`viability.patterns.ecma`: patterns in the dialect of ECMA-262. The answers are those of V8, with the flag `u` where it takes it."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.errors import SchemaError
from streamguard.viability import compile_schema
from streamguard.viability.patterns.python_regex import PatternError
from streamguard.viability.patterns.regexes import compile_pattern


@pytest.mark.parametrize(
    ("source", "matching", "others"),
    [
        (r"^\d+$", ["12"], ["١٢", "12\n", ""]),
        (r"^\w$", ["a", "_", "9"], ["é", "²", "\u0308"]),
        (r"^\W$", ["é", "\u212a", "😀"], ["a"]),
        (r"^\s$", ["\ufeff", "\u2028", "\v", "\xa0"], ["\x1c", "\x85", "\u200b"]),
        (r"^\S$", ["\x85", "😀"], ["\ufeff"]),
        (r"^.$", ["a", "😀", "\x85"], ["\n", "\r", "\u2028"]),
        ("^a$", ["a"], ["a\n"]),
        ("^[^]$", ["\n", "😀"], ["", "ab"]),
        ("^[]", [], ["", "a"]),
        (r"^\u{1F600}$", ["😀"], ["u"]),
        (r"^\ud83d\ude00$", ["😀"], ["\ud83d"]),
        (r"^[\ud83d\ude00-\ud83d\ude02]$", ["😁"], ["\ude00"]),
        (r"^\cJ\0\x41\u0041$", ["\n\0AA"], ["J"]),
        (r"^[\b]\/\-$", ["\b/-"], ["b/-"]),
        (r"^[\w-.]+$", ["a-.b"], ["a b"]),
        (r"^[\d-x]$", ["-", "x", "5"], ["a"]),
        (r"^[^\D5]$", ["4"], ["5", "a"]),
        ("^a{,2}$", ["a{,2}"], ["aa", ""]),
        ("^{s}{2}$", ["{s}}"], ["{s}{s}"]),
        (r"^(?<year>\d{4})(?:-(?<m>\d\d))?$", ["2024", "2024-12"], ["2024-1"]),
        (r"(?<=a)b(?!c)", ["ab", "abd"], ["b", "abc"]),
        (r"^\B$", [""], ["a"]),
        (r"\bé", ["aé"], ["é", " é"]),
        (r"^\p{Lu}\P{L}[\p{Nd}_]$", ["A12", "É!_"], ["a12", "AB2"]),
        (r"^\$\.\*\(\[\{\|\}\]\)\?\+\^\\$", [r"$.*([{|}])?+^\\"[:-1]], []),
    ],
)
def test_what_a_pattern_matches(source: str, matching: list[str], others: list[str]) -> None:
    """As V8 has it; the same for the automaton, where there is one, and no beginning of a match is dead."""
    pattern = compile_pattern(source, "ecma")
    assert [pattern.matches(text) for text in matching] == [True] * len(matching)
    assert [pattern.matches(text) for text in others] == [False] * len(others)
    if pattern.automaton is not None:
        assert [pattern.automaton.run(text).ends for text in matching + others] == [True] * len(matching) + [
            False
        ] * len(others)
    assert all(pattern.alive(text[:i]) for text in matching for i in range(len(text) + 1))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (r"(a)\1", r"back-reference \\1 is not supported"),
        (r"(?<n>a)\k<n>", r"back-reference \\k is not supported"),
        (r"^a\Z", r"\\Z is no escape"),
        (r"(?i:a)", "group at position 0 is not supported"),
        (r"(?P<n>a)", "group at position 0 is not supported"),
        (r"a++", "nothing to repeat"),
        (r"\b+", "nothing to repeat"),
        ("[b-a]", "out of order"),
        ("[a", "without an end"),
        (r"\u{110000}", "no character"),
        ("a\\", "no escape"),
        ("(", "unterminated"),
    ],
)
def test_what_is_refused(source: str, why: str) -> None:
    """By name."""
    with pytest.raises(PatternError, match=why):
        compile_pattern(source, "ecma")


def test_a_schema_in_the_dialect() -> None:
    """Prefix and judge read patterns as told, wherever one stands: as value, as name, below `unevaluatedProperties`."""
    schema: dict[str, Any] = {
        "patternProperties": {r"^\d$": {"pattern": r"^\w+$"}, "^[^]$": {"pattern": "^[^]$"}},
        "unevaluatedProperties": False,
    }
    made = compile_schema(schema, patterns="ecma")
    texts = ['{"1": "a"}', '{"1": "é"}', '{"1": "a\\n"}', '{"é": "\\n"}', '{"ab": 1}']
    alive = [made.prefix().feed(text) is None for text in texts]
    assert alive == [True, False, False, True, False]
    values = [{"1": "a"}, {"1": "é"}, {"1": "a\n"}, {"é": "\n"}, {"ab": 1}]
    assert [made.validate(value) is None for value in values] == alive
    with pytest.raises(SchemaError, match=r"\^\[\^\]\$"):
        compile_schema(schema)
