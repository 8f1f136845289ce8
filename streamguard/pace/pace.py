"""How fast one pool of models is asked: a rate per limit, steered by what is left of it. Pure; time is an argument.

In charge of turns. A bucket per limit fills at the limit, times a factor that falls as the limit is used up:
`MARGIN * exp(-STEEP * used)`. Everybody who asks the same provider sees the same share left and so takes the same rate:
fairness, the number of programs, strangers and a changed limit need no protocol. What is left is not extrapolated
between answers, unless none comes for `QUIET` seconds: programs that do not talk would each spend the whole refill.

* A request is charged when its turn is given, with what it is expected to take: its input, and the mean output of the
  last answers. It is corrected when the provider counts, and a debt is fine. A turn that was not used is given back.
* A turn may be up to `FAR` seconds ahead. What would come later asks again then, since rates change.
* Output under way is not in what is left yet. So its limit counts as more used, the more calls run than usual.
* A refusal cuts the rate, once per round trip, and what it was charged is given back.
* A limit that was raised makes the share left smaller at once, since the new room is empty: that is helped.

Where no limit is stated, `blind` bounds the calls at a time instead.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from streamguard.pace import blind
from streamguard.pace.limits import NAMES, LimitName, Limits
from streamguard.pace.state import (
    DIMENSIONS,
    INPUT,
    NEVER,
    NOTHING,
    OUTPUT,
    Cost,
    Knobs,
    PaceState,
    Turn,
)

FAR: Final = 5.0
"""Seconds ahead for which turns are given."""

SLOW: Final = 3.0
"""Mean durations of a call that the ramp takes at least: what was begun shows late where answers are long."""

RAMP_FROM: Final = 0.1
"""The share of the rate with which the ramp begins."""

CUT: Final = 0.7
BACK: Final = 0.01
LEAST: Final = 0.02
"""What a refusal leaves of the rate, what comes back of it a second, and what is left of it at least."""

PRIOR: Final = 0.25
PRIOR_WEIGHT: Final = 4.0
"""Of `max_tokens`: what an answer is expected to be before any was seen, and how many answers that weighs."""

WINDOW: Final = 64.0
"""Answers that the mean output is of; older ones fade."""

FILL: Final = 300.0
"""Seconds over which a limit that was raised may fill up."""

QUIET: Final = 10.0
REFILL: Final = 60.0
"""Seconds without any answer after which the share left is taken to grow, and in which it would fill up."""

LEAD: Final = 0.9
MOST_LEAD: Final = 0.5
"""How far ahead output is looked at, in mean durations, and how much of the limit that may take at most."""

SMOOTH: Final = 32.0
"""Calls that the mean duration is of."""

INPUT_RATIO: Final = (0.01, 4.0)
"""The bounds of what counted input may be of guessed input: reads from a cache count as nothing."""

UNKNOWN_MAX_TOKENS: Final = 4096
"""What stands for `max_tokens` where a source does not show its request."""


class Pace:
    """The pace of one pool.

    :param state: to go on with; a fresh one by default.
    """

    __slots__ = ("knobs", "state")

    def __init__(self, knobs: Knobs, state: PaceState | None = None) -> None:
        self.knobs = knobs
        self.state = state or PaceState()

    # What is asked

    def turn(self, now: float, *, input_tokens: float, max_tokens: float | None, patient: bool = True) -> Turn:
        """Give a turn, and charge it; or say when to ask again.

        :param input_tokens: guessed.
        :param patient: whether the call is one of a job; see `blind.binds`.
        """
        state = self.state
        now = self._advance(now)
        if state.places <= 0:
            state.places = self.knobs.first
        stated = self.stated
        full = state.inflight >= self.knobs.most
        if full or (
            blind.binds(state, now, stated=stated, patient=patient) and state.inflight >= math.floor(state.places)
        ):
            return Turn(given=False, wait=math.inf, why="places")
        cost = self.cost(input_tokens, max_tokens) if stated else NOTHING
        at, why = 0.0, ""
        for i in DIMENSIONS:
            rate = self._rate(now, i)
            if rate <= 0:
                continue
            # What is larger than the bucket may go once it is full.
            short = min(cost[i], self._depth(i)) - state.levels[i]
            if short > 0 and short / rate > at:
                at, why = short / rate, NAMES[i]
        if at > FAR:
            return Turn(given=False, wait=FAR, why=why)
        for i in DIMENSIONS:
            if self._limit(i) > 0:
                state.levels[i] -= cost[i]
        state.inflight += 1.0
        return Turn(given=True, wait=at, cost=cost, why=why)

    def cost(self, input_tokens: float, max_tokens: float | None) -> Cost:
        """Return what a request is expected to take of each limit."""
        state, most = self.state, float(max_tokens or UNKNOWN_MAX_TOKENS)
        output = most
        if not self.knobs.reserves:
            prior = PRIOR * most
            output = min(most, (state.output + PRIOR_WEIGHT * prior) / (state.answers + PRIOR_WEIGHT))
        taken = input_tokens * self._input_ratio
        return 1.0, taken, output, taken + output

    # What is reported

    def seen(self, now: float, limits: Limits) -> None:
        """Take the limits that an answer states, refused or not."""
        state = self.state
        now = self._advance(now)
        for name, limit in limits:
            i = NAMES.index(name)
            rate, was = limit.per_minute / 60, state.rates[i]
            if state.known_at <= NEVER:
                state.known_at = now
            if rate != was:
                state.rates[i] = rate
                state.levels[i] = min(state.levels[i], self._depth(i))
                if rate > was > 0:
                    state.raised, state.raised_at = 1 - was / rate, now
            state.left[i] = limit.share_left
        state.seen_at = now

    def began(self, now: float, *, sent: float, seconds: float, cost: Cost, guessed: float, counted: float) -> None:
        """Take the first token of an answer, with which the provider has counted the input.

        :param sent: when the request was sent.
        :param seconds: from then to the first token; below 0 if there was none.
        :param cost: what its turn was charged.
        :param guessed: input tokens that were guessed; 0 if there is nothing to learn from them.
        :param counted: input tokens that the provider counts; below 0 if it did not say.
        """
        state = self.state
        now = self._advance(now)
        if seconds >= 0 and not self.stated:
            blind.first_token(state, self.knobs, now, sent=sent, seconds=seconds)
        if counted < 0:
            return
        if cost[0] > 0:
            self._give(INPUT, cost[INPUT] - counted)
        if guessed > 0:
            keep = 1 - 1 / WINDOW
            state.counted, state.guessed = state.counted * keep + counted, state.guessed * keep + guessed

    def settled(self, now: float, *, cost: Cost, output: float, seconds: float) -> None:
        """Take the end of an attempt that the provider worked on.

        :param cost: what its turn was charged.
        :param output: output tokens that it took; below 0 if nobody knows.
        :param seconds: that it took.
        """
        state = self.state
        now = self._advance(now)
        state.inflight = max(0.0, state.inflight - 1.0)
        blind.ended(state, self.knobs, now, stated=self.stated)
        if output < 0:
            return
        state.duration = state.duration + (seconds - state.duration) / SMOOTH if state.duration > 0 else seconds
        if cost[0] > 0:
            self._give(OUTPUT, cost[OUTPUT] - output)
        if state.answers >= WINDOW:
            state.output, state.answers = state.output * (1 - 1 / WINDOW), WINDOW - 1
        state.output, state.answers = state.output + output, state.answers + 1

    def refused(self, now: float, *, sent: float, cost: Cost, limited: bool) -> None:
        """Take a refusal: nothing was taken, and less is asked for a while.

        :param sent: when the request was sent: of one round trip only the first refusal counts.
        :param cost: what its turn was charged.
        :param limited: whether it is about rates (429), not about the provider's load (529).
        """
        state = self.state
        now = self._advance(now)
        self.returned(now, cost=cost)
        if not self.stated or not limited:
            blind.refused(state, now, sent=sent, busy=not limited)
        elif sent > state.cut_at:
            state.own, state.cut_at = max(LEAST, state.own * CUT), now

    def late(self, now: float, *, sent: float) -> None:
        """Take an answer that never began, and was given up: the provider has a queue. Its turn has ended already."""
        now = self._advance(now)
        if not self.stated:
            blind.refused(self.state, now, sent=sent, busy=True)

    def returned(self, now: float, *, cost: Cost) -> None:
        """Take back a turn that was not used.

        :param cost: what it was charged.
        """
        self._advance(now)
        self.state.inflight = max(0.0, self.state.inflight - 1.0)
        for i in DIMENSIONS:
            if self._limit(i) > 0:
                self.state.levels[i] = min(self._depth(i), self.state.levels[i] + cost[i])

    # What follows

    @property
    def stated(self) -> bool:
        """Whether a limit is known, from the provider or of one's own."""
        return any(self._limit(i) > 0 for i in DIMENSIONS)

    def view(self, now: float) -> PaceView:
        """Return what the pace comes to now, for people and machines. Changes nothing."""
        state, (one, taken, output, tokens) = self.state, self._mean()
        allowed: float | None = None
        narrow: LimitName | None = None
        for i, each in zip(DIMENSIONS, (one, taken, output, tokens), strict=True):
            limit = self._limit(i)
            if limit > 0 and each > 0 and (allowed is None or limit / each < allowed):
                allowed, narrow = limit / each, NAMES[i]
        return PaceView(
            allowed_per_second=allowed,
            limit=narrow,
            left={NAMES[i]: state.left[i] for i in DIMENSIONS if state.rates[i] > 0},
            own=min(1.0, state.own + BACK * max(0.0, now - state.at)),
            inflight=round(state.inflight),
            places=None if allowed is not None or state.places <= 0 else math.floor(state.places),
        )

    def _mean(self) -> Cost:
        """What a call takes of each limit on average; 0 where nobody knows."""
        state = self.state
        output = state.output / state.answers if state.answers > 0 else 0.0
        weight = min(WINDOW, state.answers)
        taken = state.counted / weight if weight > 0 else 0.0
        return 1.0, taken, output, taken + output

    @property
    def _input_ratio(self) -> float:
        """What the provider counted of guessed input. The first guess weighs as much as a few answers."""
        state, (low, high) = self.state, INPUT_RATIO
        if state.guessed <= 0:
            return 1.0
        return min(high, max(low, state.counted / state.guessed))

    def _limit(self, i: int) -> float:
        """Units a second that may be used of a limit in the long run; 0 for no limit."""
        stated, own = self.state.rates[i] * self.knobs.use, self.knobs.own[i]
        return min(stated, own) if stated > 0 and own > 0 else max(stated, own)

    def _depth(self, i: int) -> float:
        """Units that the bucket of a limit holds."""
        seconds = 60.0 if self.knobs.reserves and i >= OUTPUT else self.knobs.burst
        return self._limit(i) * seconds

    def _rate(self, now: float, i: int) -> float:
        """Units a second at which the bucket of a limit fills now; 0 for no limit."""
        limit = self._limit(i)
        if limit <= 0:
            return 0.0
        state, knobs = self.state, self.knobs
        share = 1.0
        if state.rates[i] > 0:
            left = state.left[i] + state.raised * max(0.0, 1 - (now - state.raised_at) / FILL)
            left += max(0.0, now - state.seen_at - QUIET) / REFILL
            if i == OUTPUT and state.usual >= 1:
                left -= min(MOST_LEAD, LEAD * state.duration / 60) * (state.inflight / state.usual - 1)
            share = knobs.margin * math.exp(-knobs.steep * (1 - min(1.0, left)))
            if limit < state.rates[i]:  # a share of it, or a limit of one's own: never more than that
                share = min(1.0, share * state.rates[i] / limit)
        ramp = 1.0
        if knobs.ramp > 0 and state.known_at > NEVER:
            passed = (now - state.known_at) / max(knobs.ramp, SLOW * state.duration)
            ramp = min(1.0, RAMP_FROM + (1 - RAMP_FROM) * passed)
        return limit * share * state.own * ramp

    def _give(self, i: int, units: float) -> None:
        """Correct what was charged of a limit, and of the one that counts it too."""
        for limit in (i, len(NAMES) - 1):
            if self._limit(limit) > 0:
                self.state.levels[limit] = min(self._depth(limit), self.state.levels[limit] + units)

    def _advance(self, now: float) -> float:
        """Let time pass, to `now` or to the latest moment that was seen; return that."""
        state = self.state
        if state.at <= NEVER:
            state.at = now
        passed = now - state.at
        if passed <= 0:
            return state.at
        state.own = min(1.0, state.own + BACK * passed)
        over = 60.0 if state.known_at <= NEVER else min(60.0, max(3.0, (now - state.known_at) / 3))
        state.usual += (state.inflight - state.usual) * min(1.0, passed / over)
        state.at = now
        for i in DIMENSIONS:
            rate = self._rate(now, i)
            if rate > 0:
                state.levels[i] = min(self._depth(i), state.levels[i] + rate * passed)
        return now


class PaceView(msgspec.Struct, frozen=True, kw_only=True):
    """A pace at one moment."""

    allowed_per_second: float | None
    """Calls a second that the limits allow in the long run; `None` without limits."""
    limit: LimitName | None
    """The limit that allows the fewest."""
    left: dict[LimitName, float]
    """The share that is left of each limit that the provider states, from 0 to 1."""
    own: float
    """The share of the rate that refusals left, from 0 to 1."""
    inflight: int
    """Turns that were given and have not ended."""
    places: int | None
    """Calls at a time where no limit is stated; `None` where one is."""
    programs: int = 1
    """How many programs share the pace, as far as its store knows."""
    store: Literal["ok", "away"] | None = None
    """The state of its store; `None` without one."""
