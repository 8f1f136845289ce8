"""A pace without limits to go by: places instead of rates, as many as the provider serves without a queue. Pure.

In charge of the number of calls at a time where nobody states limits: servers of one's own, gateways, and a provider
that refuses for overload. The sign of a queue is a first token that comes late. Places double per round trip until the
median first token of the last ones is `LATE` times the usual, or until a refusal. Above `LATER` times they shrink.

The usual first token is the least median so far, forgotten slowly (by `FORGET` with each answer), so that a server that
became slower for good is not held for busy. The shape is that of TCP's slow start with Vegas' signal.
"""

from __future__ import annotations

import statistics
from typing import Final

from streamguard.pace.state import Knobs, PaceState

LATE: Final = 2.0
LATER: Final = 3.0
"""First tokens are late, and much later, at so many times the usual."""

FORGET: Final = 1.0002

KEPT: Final = 16
"""First tokens that the median is of."""

FEWEST: Final = 8
"""First tokens without which nothing is known."""

LESS: Final = 0.9
"""What much later first tokens leave of the places, once per round trip."""

CUT: Final = 0.7
"""What a refusal leaves of them, once per round trip."""

BINDS: Final = 60.0
"""Seconds for which a refusal for overload bounds the places although limits are stated."""

SETTLES: Final = 2.0
"""Seconds after which places come back where limits are stated: one with each call that ends."""


def binds(state: PaceState, now: float, *, stated: bool, patient: bool) -> bool:
    """Return whether the places bound what is sent.

    :param stated: whether any limit is known.
    :param patient: whether the call is one of a job. Calls that somebody waits for are not held back before the
        provider refused one: nobody knows what it can bear.
    """
    return state.refused_at > now - BINDS or (patient and not stated)


def first_token(state: PaceState, knobs: Knobs, now: float, *, sent: float, seconds: float) -> None:
    """Take the time to a first token: more places, or fewer.

    :param sent: when the request was sent.
    """
    state.firsts.append(seconds)
    del state.firsts[:-KEPT]
    if len(state.firsts) < FEWEST:
        return
    median = statistics.median(state.firsts)
    state.base = median if state.base <= 0 else min(state.base * FORGET, median)
    if median > LATER * state.base:
        state.starting = 0.0
        if sent > state.places_at:
            state.places, state.places_at = max(1.0, state.places * LESS), now
    elif median > LATE * state.base:
        state.starting = 0.0
    elif state.inflight >= state.places / 2:
        state.places = min(knobs.most, state.places + (1.0 if state.starting > 0 else 2.0 / state.places))


def refused(state: PaceState, now: float, *, sent: float, busy: bool) -> None:
    """Take a refusal that states no limits, or an answer that never began.

    :param sent: when the request was sent: of one round trip only the first counts.
    :param busy: whether the refusal is about what runs now: then more places than are in use say nothing.
    """
    state.starting = 0.0
    if busy:
        state.places = min(state.places, max(1.0, state.inflight + 1.0))
    if sent > state.refused_at:
        state.places, state.refused_at = max(1.0, state.places * CUT), now


def ended(state: PaceState, knobs: Knobs, now: float, *, stated: bool) -> None:
    """Take the end of a call: where limits are stated, places come back."""
    if stated and state.places < knobs.most and now > state.refused_at + SETTLES:
        state.places += 1.0
