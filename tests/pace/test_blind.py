"""A pace without limits to go by: places double until first tokens come late, and shrink where they are much later."""

from __future__ import annotations

import pytest

from streamguard.pace.blind import BINDS, CUT
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.pace import Pace
from streamguard.pace.state import NOTHING, Knobs


def busy(places: float = 8.0, **knobs: float) -> Pace:
    """A pace all of whose places are in use."""
    pace = Pace(Knobs(**{"first": places, **knobs}))
    while pace.turn(0.0, input_tokens=0, max_tokens=1).given:
        pass
    return pace


def hear(pace: Pace, count: int, seconds: float, *, now: float = 1.0, sent: float = 0.0) -> None:
    """First tokens, so many seconds after their requests."""
    for _ in range(count):
        pace.began(now, sent=sent, seconds=seconds, cost=NOTHING, guessed=0, counted=-1)
        pace.state.inflight = pace.state.places


def test_the_first_places_are_as_many_as_told() -> None:
    """A job begins with so many calls at a time; a call that somebody waits for is not held back."""
    pace = busy(3)
    assert pace.state.inflight == 3
    assert pace.turn(0.0, input_tokens=0, max_tokens=1, patient=False).given


def test_places_double_per_round_trip() -> None:
    """Each first token in good time makes one more place: of eight sixteen, of sixteen thirty-two."""
    pace = busy(8)
    hear(pace, 8, 1.0)
    assert pace.state.places == 9  # the first seven say nothing yet
    hear(pace, 16, 1.0)
    assert pace.state.places == 25


def test_late_first_tokens_hold_the_places_and_later_ones_shrink_them() -> None:
    """Twice the usual ends the doubling; three times takes a tenth, once per round trip."""
    pace = busy(8)
    hear(pace, 16, 1.0)
    before = pace.state.places
    hear(pace, 16, 2.5, now=10.0, sent=9.0)
    assert (pace.state.places, pace.state.starting) == (pytest.approx(before, abs=9), 0.0)
    held = pace.state.places
    hear(pace, 16, 4.0, now=20.0, sent=19.0)
    assert pace.state.places == pytest.approx(held * 0.9)
    hear(pace, 1, 4.0, now=21.0, sent=20.5)
    assert pace.state.places == pytest.approx(held * 0.81)


def test_a_refusal_cuts_the_places_once_per_round_trip() -> None:
    """Without limits a 429 is about places; what was sent before it says nothing new."""
    pace = busy(10)
    for _ in range(3):
        pace.refused(1.0, sent=0.5, cost=NOTHING, limited=True)
    assert pace.state.places == pytest.approx(10 * CUT)
    assert pace.state.own == 1.0


def test_an_answer_that_never_began_cuts_the_places() -> None:
    """A server with a queue says nothing; a client that hangs up has learned it all the same."""
    pace = busy(10)
    pace.settled(60.0, cost=NOTHING, output=-1, seconds=60)
    pace.late(60.0, sent=0.0)
    assert pace.state.places == pytest.approx(10 * CUT)


def test_overload_binds_for_a_minute_although_limits_are_stated() -> None:
    """After a 529 places bound everybody for a while, and come back one with each call that ends."""
    pace = busy(10)
    pace.seen(1.0, Limits(requests=Limit(60_000, 60_000)))
    pace._advance(100.0)
    pace.refused(100.0, sent=99.0, cost=NOTHING, limited=False)
    places = pace.state.places
    assert places == pytest.approx(10 * CUT)
    assert pace.turn(101.0, input_tokens=0, max_tokens=1, patient=False).why == "places"
    pace.settled(103.0, cost=NOTHING, output=1, seconds=1)
    assert pace.state.places == places + 1
    assert pace.turn(101.0 + BINDS, input_tokens=0, max_tokens=1).given


def test_a_limit_that_is_stated_ends_the_places() -> None:
    """Nine calls may run as soon as rates are known."""
    pace = busy(8)
    assert not pace.turn(0.5, input_tokens=0, max_tokens=1).given
    pace.seen(1.0, Limits(requests=Limit(60_000, 60_000)))
    assert pace.turn(1.0, input_tokens=0, max_tokens=1).given
