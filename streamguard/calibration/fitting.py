"""From measured answers to limits: fitted on one half of the good ones, checked on the other. Pure.

In charge of the choice. A limit's value is the largest that half of the good answers needed, but for the few that may
be left out (`tolerance`): then the share of good answers that *any* of the limits ends is at most the asked one, with
95 % confidence, whatever the answers are distributed like. Clocks get room on top, since providers slow down for hours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streamguard.calibration.measuring import Measured
from streamguard.calibration.tolerance import most_blocks, needed, supported_rate

HEADROOM: Final = 2.0
"""By which a clock's value is multiplied: first tokens double when a provider is busy, and answers are as good."""

KNOBS: Final = (
    "caps.characters",
    "timeouts.progress",
    "timeouts.first_token",
    "timeouts.attempt",
    "repetition.min_repeats",
    "repetition.max_whitespace",
    "timeouts.progress_thinking",
    "max_tokens",
)
"""In the order in which they are served, where there are too few answers for all. `max_tokens` is the request's."""

SHORTEST: Final = 1.0
"""Seconds that every clock has at least: a network's own pauses are shorter than what answers were recorded over."""

DIGITS, CEILING_DIGITS = 2, 3
"""Significant digits of a clock, and of a ceiling, where each percent is paid for."""


class KnobFit(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for one knob."""

    knob: str
    value: float
    """The proposed limit."""
    reached: float
    """What the fitted answers reached, but for those that were left out."""
    ended_fitted: int
    """Good answers of the fitted half that it would have ended."""
    ended_checked: int
    """The same of the other half."""
    ended_bad: int
    """Bad answers that it would have ended."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    rate: float
    """The share of good answers that may be ended."""
    fitted: int
    """Good answers that the limits are from."""
    checked: int
    """Good answers that they were tried on."""
    bad: int
    ended_checked: int
    """Answers of the checked half that any of the limits would have ended."""
    knobs: tuple[KnobFit, ...] = ()
    """Empty if there are too few answers."""
    unserved: tuple[str, ...] = ()
    """Knobs that have figures, and for which there are too few answers."""
    supported: float = 1.0
    """The least rate that the fitted half supports with one limit."""
    needed: int = 0
    """Good answers that one limit needs at this rate, in both halves together."""
    needed_all: int = 0
    """The same for all limits that have figures."""


def fit(answers: Sequence[Measured], rate: float, *, headroom: float = HEADROOM, seed: int = 0) -> Fit:
    """Find the limits.

    :param answers: good and bad ones.
    :param rate: the share of good answers that may be ended, from 0 to 1, both excluded.
    :param headroom: by which clocks are multiplied, from 1.
    :param seed: decides which half an answer is in.
    :returns: without knobs if there are too few answers for any.
    """
    good = [one for one in answers if one.good]
    bad = [one for one in answers if not one.good]
    ranked = sorted(good, key=lambda one: hashlib.sha256(f"{seed}/{_base(one.name)}".encode()).digest())
    half = len(ranked) - len(ranked) // 2
    fitted, checked = ranked[:half], ranked[half:]
    known = [
        knob for knob in KNOBS if all(knob in one.needs for one in good) and any(one.needs[knob] > 0 for one in fitted)
    ]
    blocks = most_blocks(len(fitted), rate)
    served = known[:blocks]
    told: dict[str, Any] = {
        "rate": rate,
        "fitted": len(fitted),
        "checked": len(checked),
        "bad": len(bad),
        "supported": supported_rate(len(fitted), 1),
        "needed": 2 * needed(1, rate),
        "needed_all": 2 * needed(max(1, len(known)), rate),
        "unserved": tuple(known[len(served) :]),
    }
    if not served:
        return Fit(**told, ended_checked=0)
    reached = _cut(fitted, served, blocks)
    limits = {knob: _limit(knob, value, headroom) for knob, value in reached.items()}
    return Fit(
        **told,
        ended_checked=sum(any(ends(knob, limits[knob], one) for knob in served) for one in checked),
        knobs=tuple(
            KnobFit(
                knob=knob,
                value=limits[knob],
                reached=reached[knob],
                ended_fitted=sum(ends(knob, limits[knob], one) for one in fitted),
                ended_checked=sum(ends(knob, limits[knob], one) for one in checked),
                ended_bad=sum(ends(knob, limits[knob], one) for one in bad),
            )
            for knob in served
        ),
    )


def ends(knob: str, limit: float, answer: Measured) -> bool:
    """Return whether a limit would have ended an answer."""
    need = answer.needs.get(knob)
    if need is None:
        return False
    return need >= limit if _trips_at(knob) else need > limit


def _base(name: str) -> str:
    """A recording's name without its folder, so that a copy is split alike."""
    return name.replace("\\", "/").rpartition("/")[2]


def _trips_at(knob: str) -> bool:
    """Whether a knob trips at its very value: clocks do, and so many repeats; ceilings beyond it."""
    return knob.startswith("timeouts.") or knob == "repetition.min_repeats"


def _cut(answers: Sequence[Measured], knobs: Sequence[str], blocks: int) -> dict[str, float]:
    """Cut blocks off, in turn from each knob; returns the value of the last one of each."""
    left = {
        knob: sorted(range(len(answers)), key=lambda at, knob=knob: answers[at].needs[knob])  # type: ignore[misc]
        for knob in knobs
    }
    gone: set[int] = set()
    reached: dict[str, float] = {}
    for step in range(blocks):
        knob = knobs[step % len(knobs)]
        while left[knob] and left[knob][-1] in gone:
            left[knob].pop()
        if not left[knob]:
            break
        last = left[knob].pop()
        gone.add(last)
        reached[knob] = answers[last].needs[knob]
    return reached


def _limit(knob: str, reached: float, headroom: float) -> float:
    """The limit that lets what was reached pass, in round figures."""
    if knob == "repetition.min_repeats":
        return max(3.0, reached + 1)
    room = headroom if knob.startswith("timeouts.") else 1.0
    value = _rounded_up(reached * room, DIGITS if knob.startswith("timeouts.") else CEILING_DIGITS)
    if knob.startswith("timeouts."):
        value = max(SHORTEST, value)
        return value if value > reached else _rounded_up(reached * (1 + 10**-DIGITS), DIGITS)
    return max(1.0, float(math.ceil(value)))


def _rounded_up(value: float, digits: int) -> float:
    """The next number with so many significant digits; hundredths at least."""
    if value <= 0:
        return 0.01
    unit = max(10.0 ** (math.floor(math.log10(value)) - digits + 1), 0.01)
    return round(math.ceil(round(value / unit, 9)) * unit, 9)
