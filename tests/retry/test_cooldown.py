"""The cool-down, as a state machine."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.retry.cooldown import FIRST, MAX_PAUSE, RAMP, Cooldown


def starts(cooldown: Cooldown, now: float, count: int) -> list[float]:
    return [round(cooldown.start(now) or math.nan, 2) for _ in range(count)]


def test_the_cooldown_pauses_and_comes_back_slowly() -> None:
    """Nothing before the pause is over; then one, two, four … each half second; in the end all are free."""
    cooldown = Cooldown()
    assert starts(cooldown, 5, 2) == [5, 5]
    cooldown.refused("provider.overloaded", sent=5, now=6, wait=10)
    assert (cooldown.left(6), cooldown.left(20)) == (10, 0)
    assert starts(cooldown, 6, 8) == [16, 16.5, 16.79, 17, 17.16, 17.29, 17.4, 17.5]
    assert starts(cooldown, 16 + RAMP, 2) == [16 + RAMP, 16 + RAMP]


def test_turns_that_nobody_took_are_gone() -> None:
    """After a lull in the demand there is no burst."""
    cooldown = Cooldown()
    cooldown.refused("provider.overloaded", sent=0, now=0, wait=0)
    assert starts(cooldown, 2, 3) == [2, 2.04, 2.08]


def test_a_turn_after_the_deadline_is_not_used_up() -> None:
    """Who cannot wait leaves the turn to the next."""
    cooldown = Cooldown()
    cooldown.refused("provider.overloaded", sent=0, now=0, wait=10)
    assert (cooldown.start(0, deadline=9), cooldown.start(0, deadline=10)) == (None, 10)


def test_old_refusals_say_nothing_new() -> None:
    """A refusal of what was sent before the cool-down only lengthens it; a new one begins another, and strikes grow."""
    cooldown = Cooldown()
    cooldown.refused("provider.rate_limited", sent=0, now=1, wait=None)
    assert (cooldown.until, cooldown.round) == (1 + FIRST, 1)
    cooldown.refused("provider.rate_limited", sent=0.5, now=1.1, wait=None)
    cooldown.refused("provider.rate_limited", sent=0.5, now=1.2, wait=3)
    assert (cooldown.until, cooldown.round) == (4.2, 2)
    cooldown.refused("provider.rate_limited", sent=4.3, now=5, wait=None)
    assert (cooldown.until, cooldown.round) == (5 + 2 * FIRST, 3)
    cooldown.answered(sent=4.4)  # sent before
    cooldown.refused("provider.rate_limited", sent=7, now=8, wait=None)
    assert cooldown.until == 8 + 4 * FIRST
    cooldown.answered(sent=9)
    cooldown.refused("provider.rate_limited", sent=10, now=11, wait=None)
    assert cooldown.until == 11 + FIRST


@pytest.mark.parametrize(
    ("story", "told", "cools"),
    [
        ("r", False, True),
        ("aaaaaaar", False, True),
        ("aaaaaaaar", False, False),
        ("aaaaaaaar", True, True),
        ("aaaaaaaararar", False, True),
        ("aaaaaaaarar" + "a" * 32 + "r", False, False),
    ],
    ids=["the first", "hardly known", "alone", "told", "the third", "long ago"],
)
def test_a_refusal_that_is_alone_holds_nobody_back(story: str, told: bool, cools: bool) -> None:
    """One in many is an accident; several, one that the provider explains, or one before all answers are not."""
    cooldown = Cooldown()
    for step in story[:-1]:
        if step == "a":
            cooldown.answered(sent=0)
        else:
            cooldown.refused("provider.overloaded", sent=0, now=0, wait=0, told=False)
    before = cooldown.round
    cooldown.refused("provider.overloaded", sent=1, now=1, wait=5, told=told)
    assert (cooldown.round > before, cooldown.left(1)) == (cools, 5 if cools else 0)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 5) | st.none()), max_size=40))
def test_the_cooldown_never_lets_a_burst_through(steps: list[tuple[float, float | None]]) -> None:
    """Whatever happens, starts are never before the pause's end, and pauses of nobody's making are bounded."""
    cooldown, now = Cooldown(), 0.0
    for ahead, wait in steps:
        now += ahead
        at = cooldown.start(now)
        assert at is not None
        assert at >= max(now, cooldown.until if now < cooldown.until + RAMP else now)
        before = cooldown.until
        cooldown.refused("provider.overloaded", sent=now, now=now, wait=wait)
        assert cooldown.until <= max(before, now + (MAX_PAUSE if wait is None else wait))


def test_a_longer_pause_takes_back_the_turns_that_wait() -> None:
    """Who was given a turn before an old refusal asked for a longer pause sees that it is another round."""
    cooldown = Cooldown()
    cooldown.refused("provider.rate_limited", sent=0, now=1, wait=1)
    assert starts(cooldown, 1, 3) == [2, 2.5, 2.79]
    before = cooldown.round
    cooldown.refused("provider.rate_limited", sent=0, now=1.1, wait=0.5)
    assert cooldown.round == before
    cooldown.refused("provider.rate_limited", sent=0, now=1.2, wait=30)
    assert cooldown.round > before
    assert starts(cooldown, 2, 3) == [31.2, 31.7, 31.99]
