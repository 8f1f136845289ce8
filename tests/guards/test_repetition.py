"""Loops and blanks: found within a step, the same for every cut, and rarely where none is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.events import Delta, DeltaKind
from streamguard.guards.base import AttemptContext, Watch
from streamguard.guards.repetition import SHORTEST, STEP, Repetition
from streamguard.verdict import Trip, Where
from tests.data import path
from tests.recorded import recorded

PROSE = "The quick brown fox jumps over the lazy dog while 17 zebras, 4 yaks and a gnu look on. "


def found(text: str, *, cut: int = 4, kind: DeltaKind = "text", **knobs: Any) -> Trip | None:
    """The trip of a text that comes in pieces."""
    watch = Repetition(**knobs).watch(AttemptContext(), 0.0)
    assert isinstance(watch, Watch)
    for at in range(0, len(text), cut):
        trip = watch.feed(Delta(0, kind, text[at : at + cut]), 0.0)
        if trip is not None:
            return trip
    return None


def reason(text: str, **options: Any) -> str | None:
    trip = found(text, **options)
    return None if trip is None else trip.reason


def test_a_loop_trips() -> None:
    """The trip names length, count and knob, and quotes nothing of the answer."""
    assert found(PROSE[:64] + '"secret-value",\n  ' * 40) == Trip(
        reason="repetition.loop",
        message="text repeats the same 18 characters 14 times in a row"
        " (repetition.min_repeats is 8, and at least 256 characters)",
        knob="repetition.min_repeats",
        limit=8,
        observed=14,
        where=Where(block=0, char=320),
        guard="repetition",
    )


def test_blanks_trip() -> None:
    """A whitespace loop is told apart from others."""
    assert found('{"a":1' + "\n" * 200) == Trip(
        reason="repetition.whitespace",
        message="more than 64 whitespace characters in a row in text (repetition.max_whitespace is 64)",
        knob="repetition.max_whitespace",
        limit=64,
        observed=65,
        where=Where(block=0, char=128),
        guard="repetition",
    )


@settings(max_examples=120, deadline=None)
@given(st.text('abc {}":,1\n', min_size=1, max_size=200), st.integers(3, 12), st.text("xyz ", max_size=300))
def test_every_exact_loop_is_found(unit: str, repeats: int, before: str) -> None:
    """Any unit up to `max_period`, after any text: found within a step of what a loop must last; blanks sooner."""
    needed = max(repeats * len(unit), SHORTEST)
    text = before + unit * (-(-(needed + STEP) // len(unit)) + 1)
    assert reason(text, min_repeats=repeats) in ("repetition.loop", "repetition.whitespace")


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 30), st.integers(0, 200), st.integers(1, 500))
def test_a_verdict_does_not_depend_on_the_cut(cut: int, period: int, before: int, length: int) -> None:
    """Where and why a stream trips is a matter of its text alone."""
    text = (PROSE * 4)[:before] + ("abcdefghijklmnopqrstuvwxyz    "[:period] * length)[:length] + PROSE * 2
    assert found(text, cut=cut) == found(text, cut=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-" * 120, None),
        ("# Title\n" + "=" * 200 + "\n" + PROSE, None),
        ("0x" + "0" * 128, None),
        ("|" + "---|" * 40 + "\n", None),
        ("| a | b | c |\n| --- | --- | --- |\n" + "".join(f"| {i} | {i * i} | x |\n" for i in range(200)), None),
        (json.dumps([[0] * 20] * 4), None),
        ("".join(f"item {i}\n" for i in range(500)), None),
        ("".join(f"    value_{i} = {i}\n" for i in range(300)), None),
        (" " * 64 + "x", None),
        ((" " * 64 + "x") * 2, None),
        (" " * 65, None),  # seen with the next step
        (" " * 65 + "x" * STEP, "repetition.whitespace"),
        ("\u3000\n\t " * 32, "repetition.whitespace"),
        ("-" * 400, "repetition.loop"),
        (PROSE * 9, "repetition.loop"),
        (PROSE * 7, None),
        ((PROSE * 3)[:201] * 20, None),
        ((PROSE * 3)[:200] * 9, "repetition.loop"),
    ],
)
def test_what_is_a_loop(text: str, expected: str | None) -> None:
    """Rules, tables, counters and a few repeats are none."""
    assert reason(text) == expected


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        ("text", {"text"}),
        ("thinking", {"thinking"}),
        ("tool_input", {"tool_input"}),
        ("any", {"text", "thinking", "tool_input"}),
    ],
)
def test_where_it_looks(where: Any, kinds: set[str]) -> None:
    """Only the kinds asked for are watched."""
    every: tuple[DeltaKind, ...] = ("text", "thinking", "tool_input")
    assert {kind for kind in every if found("ab" * 300, kind=kind, where=where)} == kinds


def test_each_sign_can_be_off() -> None:
    """`None` turns one sign off and leaves the other."""
    assert reason(" " * 200, max_whitespace=None) is None
    assert reason(" " * 400, max_whitespace=None) == "repetition.loop"
    assert reason("ab" * 400, max_period=None) is None
    assert reason(" " * 400, max_period=None) == "repetition.whitespace"


def test_one_large_piece_is_seen_through() -> None:
    """A loop in the middle of a huge delta is found, and memory stays with the window."""
    watch = Repetition().watch(AttemptContext(), 0.0)
    assert watch.feed(Delta(0, "text", "".join(f"{i} " for i in range(20_000))), 0.0) is None
    text = watch._texts["text"]
    assert len(text._tail) == 1600
    assert sum(map(len, text.pieces)) < STEP
    trip = watch.feed(Delta(0, "text", PROSE * 20 + "".join(f"{i} " for i in range(1000))), 0.0)
    assert trip is not None


# -- published rates ---------------------------------------------------------------------------------------------------


def test_no_false_alarm_in_advisories() -> None:
    """400 texts in Markdown and their gold records in three layouts hold no loop."""
    rows = [json.loads(line) for line in path("advisories", "advisories.jsonl").read_text().splitlines()]
    layouts: tuple[dict[str, Any], ...] = ({}, {"indent": 1}, {"indent": 4})
    texts = [row["text"] for row in rows] + [json.dumps(row["gold"], **how) for row in rows for how in layouts]
    assert len(texts) == 1600
    assert [text for text in texts if found(text, cut=64)] == []


def test_recorded_streams() -> None:
    """None of the answers that ended by themselves trips; of those that ran into `max_tokens` the exact loops do."""
    tripped = {stop: [s.name[:3] for s in recorded() if s.stop_reason == stop and found(s.text)] for stop in STOPS}
    assert tripped == {"end_turn": [], "max_tokens": ["000", "016", "028", "054", "064", "088", "114"]}


STOPS = ("end_turn", "max_tokens")


# -- the spec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_whitespace": 0}, "max_whitespace must be a whole number, 1 or more, not 0"),
        ({"max_whitespace": 30_000}, "max_whitespace must be 20000 or less, not 30000"),
        ({"max_period": -1}, "max_period must be a whole number, 1 or more, not -1"),
        ({"min_repeats": 2}, "min_repeats must be 3 or more, not 2: saying something twice is no loop"),
        ({"max_period": 5000}, "max_period times min_repeats must be 20000 characters or less, not 5000 x 8"),
        ({"where": "json"}, "where"),
    ],
)
def test_bad_sections_are_refused_by_name(section: dict[str, Any], message: str) -> None:
    """Each message names the knob and the bound."""
    with pytest.raises(ValidationError, match=message):
        Repetition.model_validate(section)


def test_a_file_and_code_give_equal_hashable_specs() -> None:
    """The format's own example is the default."""
    read = Repetition.model_validate({"max_whitespace": 64, "max_period": 200, "min_repeats": 8})
    assert read == Repetition()
    assert len({read, Repetition()}) == 1
    assert (read.name, read.mode) == ("repetition", None)
