"""What programs that share a store tell each other of an outage: one look of one program, at what a store keeps. Pure.

In charge of what a look is, so that every store does the same: hear what the program found, let one program at a time
look whether the endpoint is back, and pass a cool-down on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from streamguard.pace.sharing import SharedState
from streamguard.retry.breaker import Breaker, BreakerSpec, BreakerState, Passage


class Told(msgspec.Struct, frozen=True):
    """What a program found."""

    what: Literal["opened", "failed", "answered", "left"]
    """`opened`: five in a row, or a share. The others are what came of a look; any answer is `answered`."""
    reason: str = ""
    probe: int = 0
    """The number of the look that it is about."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a program is told."""

    passage: Passage | None
    """`None` where nothing was asked."""
    state: BreakerState
    """The breaker, with moments on the store's clock."""
    now: float
    """The store's clock."""
    cooling: float
    """Seconds for which nothing is to be sent after refusals."""
    cooling_reason: str = ""


def take_look(
    shared: SharedState,
    spec: BreakerSpec,
    now: float,
    *,
    told: Sequence[Told],
    asks: bool,
    lease: float,
    cooling: float = 0.0,
    cooling_reason: str = "",
) -> Look:
    """Change the state by one look of one program.

    :param now: on the store's clock, in seconds.
    :param told: what the program found since its last look.
    :param asks: whether an attempt of the program would be sent.
    :param lease: seconds that it takes at the most, if it is the one that looks.
    :param cooling: seconds for which the program sends nothing after refusals.
    """
    breaker = Breaker(spec, shared.breaker)
    for one in told:
        if one.what == "opened":
            breaker.open(one.reason, now, alive=True)
        elif one.what == "answered":
            breaker.answered()
        elif one.what == "failed" and not breaker.closed:
            breaker.failed(one.reason, now, probe=one.probe)
        elif one.what == "left":
            breaker.left(one.probe)
    shared.breaker.recent.clear()
    if now + cooling > max(now, shared.cool_until):
        shared.cool_until, shared.cool_reason = now + cooling, cooling_reason
    passage = breaker.enter(now, lease=lease) if asks else None
    state = msgspec.structs.replace(shared.breaker, recent=[])
    left = max(0.0, shared.cool_until - now)
    return Look(passage=passage, state=state, now=now, cooling=left, cooling_reason=shared.cool_reason if left else "")


def mirrored(state: BreakerState, look: Look, now: float) -> None:
    """Bring what a program knows to what the store has.

    :param state: the program's; what it counts by itself stays.
    :param now: the moment of the look, on the program's clock.
    """
    seen, later = look.state, now - look.now
    if seen.opened_at == -math.inf and state.opened_at > -math.inf:
        state.recent.clear()
        state.row = 0
    for name in ("opened_at", "until", "probe_until"):
        setattr(state, name, getattr(seen, name) + later)
    for name in ("pause", "reason", "probe", "looks"):
        setattr(state, name, getattr(seen, name))
    state.alive = state.alive or seen.alive
