# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of hedging: each guard and each promise switched off, with the tests that must notice it."""

from __future__ import annotations

import math
from typing import Any

from bench.mutants.billing import value
from streamguard.engine import dispatch
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.streams import hedging, race
from streamguard.pace import hedge
from streamguard.pace.hedge import Hedges

PURE = "tests/pace/test_hedge.py"
RACE = "tests/engine/streams/test_race.py"
NEVER = (f"{PURE}::test_never",)
DELIVERED = (f"{RACE}::test_one_of_two_is_delivered_and_both_are_on_the_record",)
LEFT = (f"{RACE}::test_whenever_it_is_ended_nothing_is_left",)
SHARE = (f"{PURE}::test_any_200_calls_have_no_more_than_their_share",)

value("hedge: any number of second requests", Hedges, "allowed", 10**9, by=SHARE)
value("hedge: the allowance is over a thousand calls", hedge, "WINDOW", 1000, by=SHARE)
value(
    "hedge: no floor of medians",
    Hedges,
    "_median",
    0.0,
    by=(f"{PURE}::test_the_delay_is_the_larger_of_quantile_and_medians",),
)
value("hedge: what is left does not count", hedge, "LEAST_LEFT", 0.0, by=NEVER)
value(
    "hedge: the first answer is enough",
    hedge,
    "FIRST",
    1,
    by=(f"{PURE}::test_nothing_is_asked_twice_within_the_first_answers",),
)
value("hedge: everybody may be slow", hedge, "SLOW", math.inf, by=NEVER)
value(
    "hedge: what stays slow is never usual", hedge, "FORGET", 1.0, by=(f"{PURE}::test_what_stays_slow_becomes_usual",)
)
value(
    "hedge: a cool-down is not looked for",
    dispatch.Cooldown,
    "calm",
    lambda self, now: True,
    by=(f"{RACE}::test_never",),
)
value(
    "hedge: no retry token is taken",
    hedging.Feedback,
    "beside",
    lambda self: hedging.Feedback(None),
    by=(f"{RACE}::test_never",),
)
value(
    "hedge: places are not given back",
    Hedges,
    "give_back",
    lambda self: None,
    by=(f"{PURE}::test_what_was_not_sent_is_given_back",),
)
value("race: the loser is not settled", hedging.Hedging, "ended", lambda self, *args: _nothing(), by=LEFT)
value(
    "race: the loser is delivered",
    hedging.Hedging,
    "over",
    lambda self, first, second, *, went_on: second.running.sent and self._took(second.running, second.reservation),
    by=DELIVERED,
)
value("race: a failure beside another ends both", race.Lane, "failed", False, by=DELIVERED)
value("race: output is not waited for", RunningAttempt, "has_output", True, by=DELIVERED)


ENDED = hedging.Hedging.ended


async def _unclosed(self: hedging.Hedging, lane: race.Lane, end: Any, second: race.Lane) -> None:
    """End a stream, and leave it open."""
    lane.running._context = None
    await ENDED(self, lane, end, second)


async def _nothing() -> None:
    """Nothing happens."""


value("race: the loser is not closed", hedging.Hedging, "ended", _unclosed, by=DELIVERED)
