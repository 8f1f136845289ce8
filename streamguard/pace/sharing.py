"""A pace that several programs share: one step of one program, on the state that a store keeps. Pure.

In charge of what a step is, so that every store does the same: forget programs that died, hear what the program
reports, and answer its request for a turn. A report rides along with the next request, so an attempt costs one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from streamguard.pace.pace import Pace
from streamguard.pace.reports import Report
from streamguard.pace.state import NEVER, Knobs, PaceState, Turn
from streamguard.retry.breaker import BreakerState

LOOK: Final = 0.25
"""Seconds until a program asks again for a place that others have: what ends elsewhere wakes nobody here."""

DEAD_AFTER: Final = 30.0
"""Seconds after which a program that was not heard of counts as gone, with what it had in flight."""

SEEN_LATELY: Final = 60.0
"""Seconds for which a program counts as one that takes part."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn is asked for."""

    input_tokens: float
    """Guessed."""
    max_tokens: float | None
    patient: bool
    """Whether the call is one of a job."""
    out: float | None = None
    """The store's turns that the program has out, by its own count; `None` if it does not say. A turn whose answer was
    lost is out for the store alone."""


class Program(msgspec.Struct, array_like=True):
    """One program that takes part."""

    seen_at: float
    inflight: float = 0.0


class SharedState(msgspec.Struct, array_like=True):
    """What a store keeps for one pool of models. Its moments are on the store's clock."""

    pace: PaceState = msgspec.field(default_factory=PaceState)
    programs: dict[str, Program] = msgspec.field(default_factory=dict)
    breaker: BreakerState = msgspec.field(default_factory=BreakerState)
    cool_until: float = NEVER
    cool_reason: str = ""

    @property
    def out(self) -> float:
        """Turns that programs have out."""
        return sum(program.inflight for program in self.programs.values())


class Step(msgspec.Struct, frozen=True):
    """The answer to a step."""

    turn: Turn | None
    """`None` where none was asked for."""
    programs: int
    """How many programs took part lately."""
    now: float
    """The store's clock."""
    state: PaceState
    """What the store had after it."""


def take_step(
    state: SharedState,
    knobs: Knobs,
    now: float,
    *,
    program: str,
    heard_at: float,
    reports: Sequence[Report],
    ask: Ask | None,
) -> Step:
    """Change the state by one step of one program, and return what the program is to do.

    :param now: on the store's clock, in seconds.
    :param program: the name of the program.
    :param heard_at: the same moment on the program's clock, which its reports are by.
    """
    pace = Pace(knobs, state.pace)
    for name, other in list(state.programs.items()):
        if name == program:
            continue
        if other.seen_at < now - SEEN_LATELY:
            del state.programs[name]
        elif other.seen_at < now - DEAD_AFTER:
            other.inflight = 0.0
    own = state.programs.setdefault(program, Program(now))
    own.seen_at = now
    # What is out is what programs have out: else the turns of a program that was forgotten would be out for ever, and
    # a program that only slept would end those of others.
    before = state.pace.inflight = state.out
    for report in reports:
        report.tell(pace, now, heard_at - report.at)
    own.inflight = max(0.0, own.inflight + state.pace.inflight - before)
    if ask is not None and ask.out is not None:
        own.inflight = ask.out
    state.pace.inflight = state.out
    turn: Turn | None = None
    if ask is not None:
        turn = pace.turn(now, input_tokens=ask.input_tokens, max_tokens=ask.max_tokens, patient=ask.patient)
        own.inflight += turn.given
        if turn.wait == math.inf:
            turn = Turn(given=False, wait=LOOK, why=turn.why)
    return Step(turn, len(state.programs), now, state.pace)


def alone(step: Step, heard_at: float, *, inflight: int) -> PaceState:
    """Return the state with which a program goes on by itself: its share of what was last seen.

    :param heard_at: when the step was answered, on the program's clock.
    :param inflight: the program's own calls under way.
    """
    state, later = step.state, heard_at - step.now
    moments = {
        name: moment + later if (moment := getattr(state, name)) > NEVER else NEVER
        for name in ("at", "seen_at", "cut_at", "known_at", "raised_at", "places_at", "refused_at")
    }
    programs = max(1, step.programs)
    return msgspec.structs.replace(
        state,
        **moments,
        rates=list(state.rates),
        left=list(state.left),
        levels=[0.0] * len(state.levels),
        firsts=list(state.firsts),
        own=state.own / programs,
        usual=state.usual / programs,
        inflight=float(inflight),
        places=max(1.0, state.places / programs),
    )
