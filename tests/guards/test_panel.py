"""The panel: fixed order, trips before enough, observing guards, and the end that nobody may switch off."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from streamguard.events import BlockStarted, BlockStopped, Delta, Metered, Ping, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext, BaseWatch
from streamguard.guards.panel import Panel
from streamguard.guards.transcript import Transcript
from streamguard.outcome import Observed
from streamguard.verdict import Enough, Trip, Where

CTX = AttemptContext()


@dataclass(frozen=True)
class Says:
    """A guard that says something at the n-th event it is fed (0-based)."""

    name: str
    verdict: Trip | Enough | None
    at: int = 0
    mode: str | None = None
    wants: tuple[type, ...] | None = None

    def watch(self, ctx: AttemptContext, now: float) -> BaseWatch:
        return _Says(self)


class _Says(BaseWatch):
    def __init__(self, spec: Says) -> None:
        self.spec, self.seen, self.wants = spec, [], spec.wants

    def feed(self, event, now):
        self.seen.append(event)
        return self.spec.verdict if len(self.seen) == self.spec.at + 1 else None


@dataclass(frozen=True)
class Clock:
    """A guard that trips a fixed time after the wait began."""

    name: str
    seconds: float
    mode: str | None = None
    trips: list = field(default_factory=list, hash=False, compare=False)

    def watch(self, ctx: AttemptContext, now: float) -> BaseWatch:
        return _Clock(self)


class _Clock(BaseWatch):
    wants = ()

    def __init__(self, spec: Clock) -> None:
        self.spec = spec

    def waiting(self, now):
        self.deadline = now + self.spec.seconds

    def heard(self, now):
        self.deadline = math.inf

    def expire(self, now):
        return Trip(reason=f"x.{self.spec.name}", message="late")


def trip(name: str) -> Trip:
    return Trip(reason=f"x.{name}", message="…")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((None, None), None),
        ((trip("a"), trip("b")), "x.a"),
        ((None, trip("b")), "x.b"),
        ((Enough("cut", 3), None), Enough("cut", 3)),
        ((Enough("cut", 3), trip("b")), "x.b"),
        ((trip("a"), Enough("cut", 3)), "x.a"),
        ((Enough("cut", 3), Enough("enough", 1)), Enough("cut", 3)),
    ],
)
def test_order_on_one_event(verdicts, expected) -> None:
    """The first guard in the order speaks, and a trip beats an enough."""
    panel = Panel([Says(str(i), verdict) for i, verdict in enumerate(verdicts)], CTX, 0.0)
    verdict = panel.feed(Ping(), 1.0)
    assert (verdict.reason if isinstance(verdict, Trip) else verdict) == expected


def test_trips_are_stamped() -> None:
    """A trip gets the time and the index of the event, unless the guard knows better."""
    placed = Trip(reason="x.a", message="…", at=0.5, where=Where(event=7, block=1))
    unplaced = Panel([Says("a", trip("a"), at=1)], CTX, 0.0)
    assert [unplaced.feed(Ping(), at) for at in (1.0, 2.0)] == [
        None,
        Trip(reason="x.a", message="…", at=2.0, where=Where(event=1)),
    ]
    assert Panel([Says("b", placed)], CTX, 0.0).feed(Ping(), 3.0) == placed


def test_wants() -> None:
    """A watch is fed only the events it wants."""
    panel = Panel([Says("deltas", trip("deltas"), wants=(Delta,))], CTX, 0.0)
    assert panel.feed(Ping(), 0.0) is None
    assert panel.feed(Delta(0, "text", "x"), 0.0) is not None


@pytest.mark.parametrize("own", [True, False])
def test_observing(own: bool) -> None:
    """A guard in mode observe, its own or the policy's, is recorded once and never acted on."""
    guards = [Says("seen", trip("seen"), at=1, mode="observe" if own else None)]
    panel = Panel(guards, CTX, 0.0, mode="enforce" if own else "observe")
    panel.feed(BlockStarted(0, "text"), 0.0)
    assert [panel.feed(Delta(0, "text", "abcd"), at) for at in (1.0, 2.0, 3.0)] == [None] * 3
    expected = Trip(reason="x.seen", message="…", at=1.0, where=Where(event=1), guard="seen")
    assert panel.observed == [Observed(trip=expected, characters=4)]


def test_enforcing_guard_under_an_observing_policy() -> None:
    """A guard's own mode wins over the policy's."""
    panel = Panel([Says("a", trip("a"), mode="enforce")], CTX, 0.0, mode="observe")
    assert panel.feed(Ping(), 0.0) is not None


def test_earliest_clock_speaks() -> None:
    """Among clocks the one whose deadline came first trips, wherever it stands."""
    panel = Panel([Clock("slow", 9.0), Clock("fast", 5.0)], CTX, 0.0)
    panel.waiting(100.0)
    assert panel.deadline == 105.0
    expired = panel.expire(120.0)
    assert expired is not None
    assert expired.reason == "x.fast"


def test_observing_clocks_never_interrupt() -> None:
    """An observing clock sets no deadline; that it ran out is seen when bytes come."""
    panel = Panel([Clock("seen", 5.0, mode="observe"), Clock("kept", 60.0)], CTX, 0.0)
    panel.waiting(0.0)
    assert panel.deadline == 60.0
    panel.heard(7.0)
    panel.waiting(7.0)
    panel.heard(99.0)
    assert [(seen.trip.reason, seen.trip.at) for seen in panel.observed] == [("x.seen", 7.0)]


def test_end_without_stop() -> None:
    """A stream that ends without its stop is incomplete, also with no guard at all and in mode observe."""
    panel = Panel([], CTX, 0.0, mode="observe")
    panel.feed(Metered(Usage(output_tokens=3), stop_reason="end_turn"), 0.0)
    ended = panel.end(1.0)
    assert ended is not None
    assert (ended.reason, ended.observed) == ("transport.incomplete", "stop reason end_turn, no message_stop")
    panel.feed(Stopped("end_turn"), 2.0)
    assert panel.end(2.0) is None


def test_transcript() -> None:
    """The transcript keeps text by block, cumulative usage, and the moment of the first token."""
    transcript = Transcript()
    events = [
        Started(id="msg", model="m", usage=Usage(input_tokens=9)),
        BlockStarted(0, "thinking"),
        Delta(0, "thinking", "hm"),
        BlockStarted(1, "text"),
        Delta(1, "text", "ab"),
        Delta(1, "text", "c"),
        BlockStopped(1),
        BlockStarted(2, "tool_input", name="t"),
        Delta(2, "tool_input", "{}"),
        Metered(Usage(output_tokens=4)),
        Metered(Usage(input_tokens=20, output_tokens=7), stop_reason="end_turn"),
        Stopped("end_turn"),
    ]
    for now, event in enumerate(events):
        transcript.feed(event, float(now))
    assert (transcript.id, transcript.model, transcript.text, transcript.first_token_at) == ("msg", "m", "abc", 2.0)
    assert transcript.usage == Usage(input_tokens=20, output_tokens=7)
    assert (transcript.metered, transcript.stopped, transcript.stop_reason) == (True, True, "end_turn")
    assert (transcript.characters, transcript.tool_calls, sorted(transcript.weights())) == (
        7,
        1,
        ["text", "thinking", "tool_input"],
    )
