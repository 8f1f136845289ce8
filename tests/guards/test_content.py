"""Forbidden patterns: found wherever they stand, however the text is cut, at a cost that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.events import BlockStopped, Delta, DeltaKind, Event, Stopped
from streamguard.guards import content
from streamguard.guards.base import AttemptContext, Watch
from streamguard.guards.content import BATCH, Content
from streamguard.verdict import Trip, Where


def spec(pattern: str, **options: Any) -> Content:
    return Content(reason="content.test", pattern=pattern, **options)


def deltas(*pieces: str, kind: DeltaKind = "text", index: int = 0) -> list[Event]:
    return [Delta(index, kind, piece) for piece in pieces]


def found(guard: Content, *events: Event, over: bool = True) -> Trip | None:
    """The first trip of the events, and of the message's end."""
    watch = guard.watch(AttemptContext(), 0.0)
    assert isinstance(watch, Watch)
    for event in (*events, *([Stopped("end_turn")] if over else [])):
        trip = watch.feed(event, 0.0)
        if trip is not None:
            return trip
    return None


def at(trip: Trip | None) -> int | None:
    """The character at which a match starts."""
    return None if trip is None or trip.where is None else trip.where.char


def test_a_match_trips_with_its_own_reason() -> None:
    """The trip names reason, pattern and place, and quotes nothing of the answer."""
    guard = Content(reason="content.apology", pattern="^I('m| am) sorry")
    assert found(guard, *deltas("I'm so", "rry, but secret"), over=False) == Trip(
        reason="content.apology",
        message="""text matches "^I('m| am) sorry" at character 0""",
        knob="content",
        limit="^I('m| am) sorry",
        where=Where(block=0, char=0),
        guard="content.apology",
    )


LONG = "x" * 2000


@pytest.mark.parametrize(
    ("pattern", "options", "text", "place"),
    [
        ("sorry", {}, "I am sorry", 5),
        ("sorry", {}, LONG + "sorry" + LONG, 2000),
        ("^sorry", {}, LONG + "sorry", None),
        ("^sorry", {}, "so sorry", None),
        (r"\Asorry", {}, LONG + "sorry", None),
        ("^sorry", {"flags": ["multiline"]}, LONG + "\nsorry", 2001),
        ("SORRY", {"flags": ("ignore_case",)}, LONG + "sorry", 2000),
        ("(?i)SORRY", {}, "sorry", 0),
        ("a.b", {"flags": ["dot_all"]}, "a\nb", 0),
        ("sorry$", {}, "sorry to say", None),
        ("sorry$", {}, "so sorry", 3),
        (r"\bsor\b", {}, "sorry", None),
        (r"\bsor\b", {}, "a sor y", 2),
        (r"(?<=x)sorry", {}, LONG + "sorry", 2000),
        (r"sorry(?!ly)", {}, "sorryly", None),
        (r"sorry.*", {}, LONG + "sorry and so on", 2000),
        ("a{100}", {"window": 100}, LONG + "a" * 100, 2000),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 50, 10_000])
def test_a_pattern_means_the_same_however_the_text_is_cut(
    pattern: str, options: dict[str, Any], text: str, place: int | None, cut: int
) -> None:
    """Anchors are the whole text's, and what the next character may undo waits for it."""
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    guard = Content.model_validate({"reason": "content.test", "pattern": pattern, **options})
    assert at(found(guard, *deltas(*pieces))) == place


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab \n", max_size=30), max_size=12),
    st.sampled_from(["ab", "^ab", r"\bab\b", "ba$", "a{3,5}b", "(?<=b )a", r"\n\n", "b+ a", "(?m)^b$"]),
)
def test_it_finds_what_a_search_of_the_whole_finds(pieces: list[str], pattern: str) -> None:
    """A stream trips just if the finished text holds a match (for matches within the window)."""
    whole = content._compiled(spec(pattern)).search("".join(pieces))
    assert (found(spec(pattern), *deltas(*pieces)) is not None) == (whole is not None)


@pytest.mark.parametrize("before", [0, 30, 1000])
def test_a_match_is_found_within_a_batch(before: int) -> None:
    """At the beginning even sooner: apologies stand there."""
    watch = spec("sorry").watch(AttemptContext(), 0.0)
    for character in "." * before + "sorry":
        assert watch.feed(Delta(0, "text", character), 0.0) is None or character == "y"
    late = next(i for i in range(BATCH + 1) if watch.feed(Delta(0, "text", "."), 0.0) is not None)
    assert late < (8 if before == 0 else BATCH)


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
    """Only the kinds asked for are searched, each as a text of its own."""
    every: tuple[DeltaKind, ...] = ("text", "thinking", "tool_input")
    assert {kind for kind in every if found(spec("^sorry", where=where), *deltas("sorry", kind=kind))} == kinds
    assert found(spec("sorry", where=where), *deltas("so"), *deltas("rry", kind="thinking")) is None


def test_blocks_of_a_kind_are_one_text() -> None:
    """The document is the concatenation of the text blocks, and a block's end has what waits searched."""
    assert at(found(spec("sorry"), *deltas("so"), BlockStopped(0), *deltas("rry", index=1), over=False)) is None
    trip = found(spec("sorry"), *deltas("so"), BlockStopped(0), *deltas("rry", index=1), BlockStopped(1), over=False)
    assert trip is not None
    assert trip.where == Where(block=1, char=0)


def test_a_search_that_does_not_end_is_a_failed_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested repetition is cut short by the timeout, and a check that did not run has not passed."""
    monkeypatch.setattr(content, "TIMEOUT", 0.005)
    trip = found(spec(r"^(([a-z])+.)+[A-Z]([a-z])+$"), *deltas("a" * 512))
    assert trip is not None
    assert (trip.reason, trip.guard) == ("guard.failed", "content.test")
    assert "write it without nested repetition" in trip.message


def test_work_per_search_is_bounded() -> None:
    """Whatever is fed, one search sees at most two windows and a character."""
    sizes: list[int] = []
    watch = spec("sorry", window=100).watch(AttemptContext(), 0.0)

    class Counting:
        def search(self, text: str, position: int, **_: Any) -> None:
            sizes.append(len(text))

    watch._texts["text"]._pattern = Counting()
    watch.feed(Delta(0, "text", "x" * 100_000), 0.0)
    for _ in range(200):
        watch.feed(Delta(0, "text", "abcd"), 0.0)
    assert len(sizes) > 1000
    assert max(sizes) <= 201


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"reason": "apology"}, "reason must be a name under 'content.', such as 'content.apology', not 'apology'"),
        ({"reason": "json.x"}, "reason must be a name under"),
        ({"pattern": "a(b"}, r"pattern 'a\(b': missing \) at position 3"),
        ({"pattern": "a*"}, r"pattern 'a\*' matches the empty text, so every answer would trip"),
        ({"where": "json"}, "where"),
        ({"flags": ["x"]}, "flags"),
        ({"window": 0}, "window must be a whole number"),
    ],
)
def test_bad_sections_are_refused(section: dict[str, Any], message: str) -> None:
    """A pattern that cannot work is told when the policy is read, with its place."""
    with pytest.raises(ValidationError, match=message):
        Content.model_validate({"reason": "content.x", "pattern": "x", **section})


def test_a_file_and_code_give_equal_hashable_specs() -> None:
    """Lists of flags are tuples."""
    read = Content.model_validate({"reason": "content.x", "pattern": "x", "flags": ["ignore_case"]})
    made = Content(reason="content.x", pattern="x", flags=("ignore_case",))
    assert read == made
    assert len({read, made}) == 1
    assert read.name == "content.x"
