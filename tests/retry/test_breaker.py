"""When an endpoint counts as down, and who may look."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.policy.model import Policy
from streamguard.retry.breaker import Breaker, BreakerSpec, Passage, speaks


def opened(reason: str = "transport.connect", at: float = 100.0) -> Breaker:
    """A breaker that five failures opened."""
    breaker = Breaker(BreakerSpec())
    assert [breaker.failed(reason, at) for _ in range(5)] == [False] * 4 + [True]
    return breaker


def test_five_in_a_row_open_it() -> None:
    """The fifth attempt in a row without a sign of life opens it, for five seconds."""
    breaker = opened()
    assert (breaker.at(100.0), breaker.at(104.9), breaker.at(105.0)) == ("open", "open", "half_open")
    assert breaker.enter(102.0) == Passage(False, 3.0)


def test_an_answer_in_between_begins_anew() -> None:
    """Four failures, an answer and four more leave it closed."""
    breaker = Breaker(BreakerSpec())
    for _ in range(2):
        for _ in range(4):
            assert not breaker.failed("transport.connect", 0.0)
        breaker.answered()
    assert breaker.closed


@pytest.mark.parametrize(("failed", "answered", "closed"), [(16, 4, False), (15, 5, True)])
def test_a_share_of_the_last_twenty_opens_it(failed: int, answered: int, closed: bool) -> None:
    """Refusals for overload open it by their share alone: 80 % of the last twenty."""
    breaker = Breaker(BreakerSpec())
    for _ in range(answered):
        breaker.answered()
    for _ in range(failed):
        breaker.failed("provider.overloaded", 0.0)
    assert breaker.closed is closed


def test_half_of_the_window_must_be_full() -> None:
    """Nine refusals of nine say too little; the tenth opens it."""
    breaker = Breaker(BreakerSpec())
    assert [breaker.failed("provider.overloaded", 0.0) for _ in range(10)] == [False] * 9 + [True]


def test_one_looks_at_a_time() -> None:
    """After the pause one attempt is let through; the others wait for what it finds."""
    breaker = opened()
    assert breaker.enter(105.0) == Passage(True, probe=1)
    assert breaker.enter(106.0) == Passage(False, 1.0)
    assert not breaker.failed("transport.connect", 110.0, probe=1)
    assert breaker.enter(110.0) == Passage(False, 7.5)


def test_pauses_grow_up_to_the_most() -> None:
    """Each look in vain makes the pause half as long again, 30 s at the most."""
    breaker, now, pauses = opened(), 105.0, []
    for _ in range(6):
        breaker.failed("transport.connect", now, probe=breaker.enter(now).probe)
        pauses.append(breaker.wait(now))
        now += pauses[-1]
    assert pauses == pytest.approx([7.5, 11.25, 16.875, 25.3125, 30.0, 30.0])


def test_an_answer_closes_it() -> None:
    """Whoever is answered closes it, looking or not; the next outage begins with the first pause."""
    breaker = opened()
    assert breaker.answered()
    assert (breaker.at(101.0), breaker.enter(101.0)) == ("closed", Passage(True))
    for _ in range(5):
        breaker.failed("transport.connect", 200.0)
    assert breaker.wait(200.0) == 5.0


def test_what_was_sent_before_says_nothing_new() -> None:
    """Failures of attempts that were under way when it opened move nothing."""
    breaker = opened()
    probe = breaker.enter(105.0).probe
    assert not breaker.failed("timeout.first_token", 106.0)
    assert (breaker.looking(106.0), breaker.state.until) == (True, 105.0)
    breaker.failed("transport.connect", 107.0, probe=probe)
    assert breaker.state.until == 114.5


def test_a_look_that_says_nothing_lets_another_look() -> None:
    """An interrupted look frees its place at once."""
    breaker = opened()
    breaker.left(breaker.enter(105.0).probe)
    assert breaker.enter(105.0) == Passage(True, probe=2)


def test_a_lost_look_is_given_up() -> None:
    """A look with a lease that nobody reports ends with it, and its late report moves nothing."""
    breaker = opened()
    assert breaker.enter(105.0, lease=30.0).probe == 1
    assert not breaker.enter(134.9).given
    assert breaker.enter(135.0).probe == 2
    breaker.failed("transport.connect", 136.0, probe=1)
    assert breaker.looking(136.0)


@pytest.mark.parametrize(
    ("reason", "output", "said"),
    [
        ("transport.connect", False, "down"),
        ("timeout.first_token", False, "down"),
        ("provider.overloaded", False, "down"),
        ("provider.rate_limited", False, "answer"),
        ("provider.invalid_request", False, "answer"),
        ("provider.spend_limit", False, "answer"),
        ("transport.reset", True, "answer"),
        ("json.schema", True, "answer"),
        ("transport.pool", False, "nothing"),
        ("timeout.total", False, "nothing"),
        ("budget.denied", False, "nothing"),
        ("operator.interrupt", False, "nothing"),
        ("hedge.lost", False, "nothing"),
        ("source.error", False, "nothing"),
    ],
)
def test_what_ends_say(reason: str, output: bool, said: str) -> None:
    """No content trip, no 429, no budget and no interrupt speaks of an outage."""
    assert speaks(reason, output=output) == said


STEP = st.tuples(
    st.sampled_from(["enter", "failed", "refused", "answered", "left", "stray"]), st.floats(0, 40, allow_nan=False)
)


@given(st.lists(STEP, max_size=60))
def test_at_most_one_look_is_under_way(steps: list[tuple[str, float]]) -> None:
    """Whatever is told in whatever order, nobody is let through to look while somebody looks."""
    breaker, now, looking = Breaker(BreakerSpec()), 0.0, 0
    for what, wait in steps:
        now += wait
        if what == "enter":
            was_closed, passage = breaker.closed, breaker.enter(now)
            if passage.probe:
                assert not looking
                looking = passage.probe
            assert passage.given == (was_closed or bool(passage.probe))
        elif what == "left" and looking:
            breaker.left(looking)
            looking = 0
        elif what == "answered":
            breaker.answered()
            looking = 0
        else:
            reason = "provider.overloaded" if what == "refused" else "transport.connect"
            breaker.failed(reason, now, probe=0 if what == "stray" else looking)
            looking = looking if what == "stray" else 0
        assert breaker.looking(now) == bool(looking)
        assert 0.0 <= breaker.wait(now) <= 30.0 < math.inf


def test_the_first_pause_is_no_longer_than_the_most() -> None:
    """A first pause over the most is a mistake of the policy."""
    with pytest.raises(ValidationError, match="first is 60 and most is 30"):
        Policy.model_validate({"breaker": {"first": 60}})
