"""Planted mistakes in the pace that programs share. Imported for what it registers."""

# ruff: noqa: ARG001  each mistake is called as the true function is
from __future__ import annotations

from typing import Any

import msgspec

from bench.cluster.plants import plant
from streamguard.engine.pacing import shared
from streamguard.pace.pace import Pace
from streamguard.pace.reports import Seen
from streamguard.pace.stores import memory


@plant("pace: what a forgotten program had out stays out", memory, "take_step")
def _stays(true: Any, state: Any, *rest: Any, **said: Any) -> Any:
    before = {name: program.inflight for name, program in state.programs.items() if name != said["program"]}
    step = true(state, *rest, **said)
    for name, out in before.items():
        if name not in state.programs or not state.programs[name].inflight:
            state.pace.inflight += out
    return step


@plant("pace: reports are lost", memory, "take_step")
def _deaf(true: Any, state: Any, *rest: Any, **said: Any) -> Any:
    return true(state, *rest, **{**said, "reports": ()})


@plant("pace: a program that slept ends the turns of others", memory, "take_step")
def _zombie(true: Any, state: Any, *rest: Any, **said: Any) -> Any:
    own = state.programs.get(said["program"])
    ends = sum(report.ends for report in said["reports"])
    extra = max(0.0, ends - (own.inflight if own is not None else 0.0))
    step = true(state, *rest, **said)
    state.pace.inflight = max(0.0, state.pace.inflight - extra)
    return step


@plant("pace: everybody has a turn at once", Pace, "turn")
def _at_once(true: Any, self: Any, now: float, **said: Any) -> Any:
    turn = true(self, now, **said)
    if not turn.given:
        self.state.inflight += 1.0
    return msgspec.structs.replace(turn, given=True, wait=0.0)


@plant("pace: turns are not charged", Pace, "turn")
def _free(true: Any, self: Any, now: float, **said: Any) -> Any:
    turn = true(self, now, **said)
    self.state.levels = [max(0.0, level) + 1000.0 for level in self.state.levels]
    return turn


@plant("pace: what answers state is not heard", Pace, "seen")
def _blind(true: Any, self: Any, now: float, limits: Any) -> None:
    return None


@plant("pace: a hundredth of the rate", Pace, "_rate")
def _slow(true: Any, self: Any, now: float, i: int) -> float:
    return float(true(self, now, i)) / 100


@plant("pace: an attempt that ended keeps its turn", Pace, "settled")
def _keeps_turn(true: Any, self: Any, now: float, **said: Any) -> None:
    true(self, now, **said)
    self.state.inflight += 1.0


@plant("pace: a turn that nobody waits for is not given back", shared, "Returned")
def _not_back(true: Any, **said: Any) -> Any:
    from streamguard.pace.limits import Limits

    return Seen(at=said["at"], limits=Limits())
