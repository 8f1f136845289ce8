"""`guards.ahead`: reading many deltas at once shows nowhere but in what it costs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events import Delta, Event, Ping
from streamguard.files.frozen_json import FrozenJson
from streamguard.guards.base import AttemptContext, BaseWatch, Document, Mode, Spec
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.lookahead import Ahead
from streamguard.guards.panel import Panel
from streamguard.guards.repetition import Repetition
from streamguard.verdict import Enough, Trip
from tests.guards.documents import pieces, text_events, tool_events

RECORD: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "kind"],
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["a", "bb", "ccc"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "uniqueItems": True, "maxItems": 3},
        "deep": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "note": {"type": ["string", "null"], "pattern": "^[a-z ]*$"},
    },
}
SCHEMA = {"type": "object", "properties": {"records": {"type": "array", "items": RECORD, "maxItems": 12}}}
POLICIES: list[dict[str, Any]] = [
    {},
    {"schema": FrozenJson(SCHEMA)},
    {"schema": FrozenJson(SCHEMA), "trailing": "cut"},
    {"schema": FrozenJson(SCHEMA), "trailing": "allow", "preamble": "skip", "fence": "strip"},
    {"fence": "strip", "max_depth": 4},
    {"max_bytes": 300},
    {"schema": FrozenJson(SCHEMA), "enough_when": ["/records/1"]},
    {"duplicate_names": "allow", "max_digits": 5},
]


def record(rng: random.Random) -> dict[str, Any]:
    """A record that mostly meets the schema."""
    found: dict[str, Any] = {
        "id": rng.choice([0, 7, 123456, 5, 5, 5]),
        "kind": rng.choice(["a", "bb", "ccc"] * 9 + ["d"]),
    }
    if rng.random() < 0.5:
        found["tags"] = rng.sample(["x", "yy", "\u00e9\U0001f600", '"', "}", "[{"], rng.randrange(4))
    if rng.random() < 0.4:
        found["deep"] = [[1.5, -2e3], [], [0]] * rng.randrange(3)
    if rng.random() < 0.4:
        found["note"] = rng.choice([None, "all is well", "well\n", "x" * 90])
    return found


def document(rng: random.Random) -> str:
    """A document, sometimes broken, sometimes with something around it."""
    text = json.dumps(
        {"records": [record(rng) for _ in range(rng.randrange(15))]},
        ensure_ascii=rng.random() < 0.5,
        indent=rng.choice([None, None, 2]),
    )
    if rng.random() < 0.4:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", "}", ",", '"', "0", "\x00", "nul", '"id": 1, "id": 2,']) + text[at + 1 :]
    around = rng.choice(
        ["{}"] * 4 + ["{} and more {{", "```json\n{}\n```", "Here: {}", "{}\n\n", "```json\n{}\n``` x", " {}"]
    )
    return around.replace("{{", "[").replace("{}", text)


def batches(events: list[Event], rng: random.Random) -> Iterator[list[Event]]:
    """The events in reads of some sizes."""
    place = 0
    while place < len(events):
        size = rng.choice([1, 2, 3, 10, 1000])
        yield events[place : place + size]
        place += size


Step = tuple[Trip | Enough | None, Document | None]


def told(
    guards: list[Spec], reads: list[list[Event]], *, ahead: bool, mode: Mode = "enforce"
) -> tuple[list[Step], Any]:
    """What a panel says, and shows of the document, at each event; and what was only observed."""
    panel = Panel(guards, AttemptContext(request=None), 0.0, mode=mode)
    steps: list[Step] = []
    for batch in reads:
        assert not ahead or panel.ahead(batch, 0, 1.0) is None
        for place, event in enumerate(batch):
            verdict = panel.feed(event, 1.0)
            steps.append((verdict, panel.document()))
            if verdict is not None:
                return steps, panel.observed
            if ahead and type(event) is not Delta:
                assert panel.ahead(batch, place + 1, 1.0) is None
    return steps, panel.observed


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), options=st.sampled_from(POLICIES), tool=st.booleans(), observe=st.booleans())
def test_reading_ahead_shows_nowhere(seed: int, options: dict[str, Any], tool: bool, observe: bool) -> None:
    """At each event the same verdict and the same document, whatever came with it in one read."""
    rng = random.Random(seed)
    text = document(rng)
    parts = pieces(text, rng.choices(range(len(text) + 1), k=rng.choice([1, 20, 200])))
    if tool:
        options = {k: v for k, v in options.items() if k not in ("fence", "preamble")} | {
            "where": rng.choice(["tools", "tool:t"])
        }
        if "enough_when" in options:
            options["where"] = "tool:t"
        events = tool_events(("t", parts), ("u", ["{}"]), ("t", parts))
    else:
        events = text_events(parts)
    for _ in range(rng.randrange(3)):
        events.insert(rng.randrange(1, len(events)), Ping())
    guards: list[Spec] = [JsonDocument(**options), Repetition(max_whitespace=20)]
    reads = list(batches(events, rng))
    mode: Mode = "observe" if observe else "enforce"
    assert told(guards, reads, ahead=True, mode=mode) == told(guards, reads, ahead=False, mode=mode)


def test_many_deltas_are_scanned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of a hundred deltas costs the document's reader two pieces: the first one, and all the others."""
    fed: list[str] = []
    panel = Panel([JsonDocument()], AttemptContext(request=None), 0.0)
    reader = panel._watches[0]._reader  # type: ignore[attr-defined]
    feed = type(reader).feed
    monkeypatch.setattr(type(reader), "feed", lambda self, text: fed.append(text) or feed(self, text))
    text = json.dumps({"a": ["b"] * 100})
    events = text_events(list(text))
    assert panel.ahead(events, 2, 0.0) is None
    for event in events:
        assert panel.feed(event, 0.0) is None
    assert fed == ["{", text[1:]]


class _Broken(BaseWatch):
    def ahead(self, deltas: Any) -> None:
        raise ZeroDivisionError

    def feed(self, event: Event, now: float) -> None:
        return None


class _Breaks(Spec):
    mode: Mode | None = None

    @property
    def name(self) -> str:
        return "mine"

    def watch(self, ctx: AttemptContext, now: float) -> _Broken:
        return _Broken()


def test_a_check_that_breaks_while_it_reads_ahead_has_not_passed() -> None:
    """It is a trip of that guard, as if it had broken on the event itself."""
    panel = Panel([_Breaks()], AttemptContext(request=None), 0.0)
    trip = panel.ahead([Delta(0, "text", "a"), Delta(0, "text", "b")], 0, 2.0)
    assert trip is not None
    assert (trip.reason, trip.guard, trip.at) == ("guard.failed", "mine", 2.0)
    assert "ZeroDivisionError" in trip.message


def test_a_check_that_only_observes_and_breaks_while_it_reads_ahead() -> None:
    """It is recorded once, and nothing more is asked of it."""
    panel = Panel([_Breaks()], AttemptContext(request=None), 0.0, mode="observe")
    deltas = [Delta(0, "text", "a"), Delta(0, "text", "b")]
    assert panel.ahead(deltas, 0, 2.0) is None
    assert panel.ahead(deltas, 0, 3.0) is None
    assert [(one.trip.reason, one.trip.guard, one.trip.at) for one in panel.observed] == [("guard.failed", "mine", 2.0)]


@pytest.mark.parametrize("text", ["12 x", "12\n", "1.5e3 ,", '"ab" x', "[1] x", "true x", "12 3"])
@pytest.mark.parametrize("schema", [None, FrozenJson({"enum": [0]})])
def test_the_end_of_any_value_is_told_with_its_event(text: str, schema: FrozenJson | None) -> None:
    """A number's end is the character after it, and that of another value its own last."""
    guards: list[Spec] = [JsonDocument(expect="any", trailing="cut", schema=schema)]
    reads = [text_events(list(text))]
    steps = told(guards, reads, ahead=True)
    assert steps == told(guards, reads, ahead=False)
    assert steps[0][-1][0] is not None


def test_a_fresh_reader_has_nothing_ahead() -> None:
    """The document of a watch that has not read ahead is the reader's."""
    panel = Panel([JsonDocument()], AttemptContext(request=None), 0.0)
    assert isinstance(panel._watches[0]._ahead, Ahead)  # type: ignore[attr-defined]
    assert panel.document() == Document(text="", value=None, complete=False)
