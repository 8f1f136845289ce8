"""Limits from answers: as few answers as needed, no more ended than asked, and what cannot be said is not said."""

from __future__ import annotations

import math
import random

import pytest

from streamguard.calibration import Measured, fit
from streamguard.calibration.fitting import KNOBS, ends

CLOCKS = ("timeouts.first_token", "timeouts.progress", "timeouts.attempt")


def answers(count: int, seed: int, *, bad: int = 0, slower: float = 1.0) -> list[Measured]:
    """Good answers with the tails that providers have, and runaways."""
    dice = random.Random(seed)
    found = []
    for at in range(count + bad):
        good = at < count
        tokens = dice.lognormvariate(5.5, 0.5) if good else dice.uniform(2000, 4000)
        first = slower * (dice.lognormvariate(-0.3, 0.4) if dice.random() > 0.015 else 4 * dice.paretovariate(1.1))
        found.append(
            Measured(
                name=f"{seed}/{at}",
                good=good,
                reason=None if good else "stop.max_tokens",
                tokens=round(tokens),
                needs={
                    "caps.characters": tokens * 3,
                    "timeouts.first_token": first,
                    "timeouts.progress": slower * dice.lognormvariate(-1.5, 0.6),
                    "timeouts.attempt": first + slower * tokens / 80,
                    "repetition.min_repeats": 2 if good else dice.choice((2, 12, 64)),
                    "repetition.max_whitespace": dice.randrange(12) if good else dice.randrange(400),
                    "max_tokens": round(tokens),
                },
            )
        )
    return found


@pytest.mark.parametrize(("count", "rate"), [(1600, 0.01), (400, 0.05), (900, 0.02)])
def test_the_unseen_half_is_ended_no_more_than_asked(count, rate) -> None:
    """In at least 95 % of 200 seeded splits."""
    some = answers(count, seed=3)
    kept = 0
    for seed in range(200):
        found = fit(some, rate, seed=seed)
        assert found.knobs
        kept += found.ended_checked <= rate * found.checked
    assert kept >= 190


def test_runaways_are_ended_and_cheap_answers_are_not() -> None:
    """The ceiling on length is near what good answers need; being sure costs a tenth or two of the best ceiling's gain."""
    some = answers(2000, seed=5, bad=100)
    found = fit(some, 0.01, seed=1)
    ceiling = next(one for one in found.knobs if one.knob == "caps.characters")
    saved = sum(max(0.0, one.tokens - ceiling.value / 3) for one in some if not one.good)
    best = min(one.needs["caps.characters"] for one in some if not one.good)
    # The best ceiling by search: the smallest that ends no more than 1 % of all good answers.
    ranked = sorted(one.needs["caps.characters"] for one in some if one.good)
    searched = ranked[math.ceil(0.99 * len(ranked)) - 1]
    most = sum(max(0.0, one.tokens - searched / 3) for one in some if not one.good)
    assert best > searched
    assert saved >= 0.8 * most


def test_first_tokens_that_double_are_no_false_aborts() -> None:
    """Clocks have room on top: a provider that is twice as slow as what was fitted ends no more than was asked."""
    found = fit(answers(2000, seed=7), 0.01, seed=1)
    slow = answers(2000, seed=8, slower=2.0)
    ended = sum(any(ends(one.knob, one.value, answer) for one in found.knobs) for answer in slow)
    assert ended <= 0.01 * len(slow)


@pytest.mark.parametrize(("good", "served"), [(100, 0), (598, 1), (946, 2), (1550, 4), (2500, 7)])
def test_too_few_answers_serve_no_or_not_all_knobs(good, served) -> None:
    """The most useful ones first; the others are named."""
    found = fit(answers(good, seed=1), 0.01)
    known = [knob for knob in KNOBS if knob != "timeouts.progress_thinking"]
    assert [one.knob for one in found.knobs] == known[:served]
    assert found.unserved == tuple(known[served:])
    assert found.needed == 598


def test_values_are_round_and_let_pass_what_was_reached() -> None:
    """Two digits, or three of ceilings, always on the safe side, also without room on top."""
    found = fit(answers(3000, seed=2), 0.01, headroom=1.0)
    for one in found.knobs:
        assert one.value > one.reached or one.knob.startswith(("caps.", "max_tokens", "repetition.max"))
        assert one.value >= one.reached
        digits = 2 if one.knob.startswith("timeouts.") else 3
        assert float(f"{one.value:.{digits}g}") == one.value or one.value < 0.1
        assert one.ended_fitted <= 0.01 * found.fitted


def test_nothing_comes_of_nothing() -> None:
    """No answers, or none that is good."""
    for some in ([], answers(0, seed=1, bad=5)):
        found = fit(some, 0.01)
        assert (found.knobs, found.fitted, found.checked, found.bad) == ((), 0, 0, len(some))
