# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of the pace: each mechanism switched off, with the tests that must notice it."""

from __future__ import annotations

from bench.mutants.billing import value
from streamguard.engine import dispatch
from streamguard.engine.pacing import call_breaker, call_pace, call_warmup, local, shared, shared_breaker
from streamguard.jobs import asking, runner
from streamguard.jobs.admission import Holds
from streamguard.pace import blind, pace, sharing, warmup
from streamguard.pace.limits import Limit
from streamguard.pace.pace import Pace
from streamguard.pace.warmup import WarmUps
from streamguard.retry import breaker
from streamguard.retry.breaker import Breaker
from streamguard.retry.cooldown import Cooldown

PURE = ("tests/pace/test_pace.py",)
BLIND = ("tests/pace/test_blind.py",)
SHARED = ("tests/pace/test_sharing.py",)
SHARED_BREAKER = ("tests/engine/pacing/test_shared_breaker.py",)
WARM_UP = ("tests/pace/test_warmup.py",)
CALL_WARM_UP = ("tests/engine/pacing/test_call_warmup.py",)
CALL_BREAKER = ("tests/engine/pacing/test_call_breaker.py",)
CALLS = ("tests/engine/pacing/test_call_pace.py",)

value("pace: what is left does not count", Limit, "share_left", 1.0, by=PURE)
value("pace: no lead", pace, "LEAD", 0.0, by=PURE)
value("pace: the ramp begins at the top", pace, "RAMP_FROM", 1.0, by=PURE)
value("pace: a refusal cuts nothing", pace, "CUT", 1.0, by=CALLS)
value("pace: what a refusal took never comes back", pace, "BACK", 0.0, by=PURE)
value("pace: nothing is left after refusals", pace, "LEAST", 0.0, by=PURE)
value("pace: a raised limit looks used", pace, "FILL", 1e-9, by=PURE)
value("pace: silence fills nothing up", pace, "REFILL", 1e12, by=PURE)
value("pace: turns are any time ahead", pace, "FAR", 1e9, by=PURE)
value("pace: corrections are lost", Pace, "_give", lambda self, i, units: None, by=PURE)
value("pace: turns are not given back", Pace, "returned", lambda self, now, *, cost: None, by=PURE)
value("pace: refusals are not heard", Pace, "refused", lambda self, now, **told: None, by=PURE)
value("pace: limits are not heard", Pace, "seen", lambda self, now, limits: None, by=PURE)
value("pace: the input's ratio is not learned", Pace, "_input_ratio", 1.0, by=PURE)
value("blind: first tokens are not heard", blind, "first_token", lambda *args, **told: None, by=BLIND)
value("blind: lateness is not seen", blind, "LATER", 1e9, by=BLIND)
value("blind: refusals take no places", blind, "CUT", 1.0, by=BLIND)
value("blind: somebody who waits is held back", blind, "binds", lambda *args, **told: True, by=BLIND)
value("sharing: the dead keep their places", sharing, "DEAD_AFTER", 1e9, by=SHARED)
value("sharing: a store is never left alone", shared, "MISSES", 10**9, by=SHARED)
value("sharing: reports are not told", shared.SharedPacer, "report", lambda self, report, **told: None, by=SHARED)
value("engine: no turn is waited for", dispatch.CallPace, "take_turn", lambda self, *args: _nothing(), by=CALLS)
value("engine: unused turns are kept", call_pace.CallPace, "give_back", lambda self: None, by=CALLS)
value("engine: ends are not told", call_pace.CallPace, "ended", lambda self, *args: None, by=CALLS)
value("engine: first tokens are not told", call_pace.CallPace, "began", lambda self, running: None, by=CALLS)
value("engine: silence is no queue", call_pace, "SILENT", frozenset(), by=CALLS)
value("engine: waiters are not woken", local.LocalPacer, "report", lambda self, report, **told: None, by=CALLS)
value("jobs: rows begin long before their turns", asking, "AHEAD", 10**6, by=("tests/jobs/test_pace.py",))

BREAKER = ("tests/retry/test_breaker.py",)
LOOKS = ("tests/jobs/test_outage.py::test_rows_begin_to_look_alone",)
LONG = ("tests/jobs/test_outage.py::test_an_outage_longer_than_the_hold_ends_the_job",)
value("breaker: no share opens it", Breaker, "_mostly", lambda self: False, by=BREAKER)
value("breaker: refusals count in a row", breaker, "REFUSING", frozenset(), by=BREAKER)
value("breaker: everything speaks of an outage", breaker, "DOWN", ("*",), by=BREAKER)
value("breaker: pauses do not grow", breaker, "SLOWER", 1.0, by=BREAKER)
value("breaker: looks that end are kept", Breaker, "left", lambda self, probe: None, by=BREAKER)
value(
    "breaker: calls wait for nothing",
    call_breaker.CallBreaker,
    "enter",
    lambda *args, **how: _nothing(),
    by=CALL_BREAKER,
)
value("breaker: nobody goes elsewhere", call_breaker, "elsewhere", lambda retry, reason: None, by=CALL_BREAKER)
value("breaker: unused looks are kept", call_breaker.CallBreaker, "leave", lambda self: None, by=CALL_BREAKER)
value("breaker: another program's find is not heard", shared_breaker, "mirrored", lambda *args: None, by=SHARED_BREAKER)
value("breaker: a cool-down stays one's own", Cooldown, "heard", lambda self, *args: None, by=SHARED_BREAKER)
value("breaker: finds are not told", shared_breaker.SharedBreaker, "_tell", lambda self, told: None, by=SHARED_BREAKER)
value("breaker: a store that is away is waited for", shared_breaker, "LEFT_ALONE", 0.0, by=SHARED_BREAKER)
value("warm-up: every row is sent", WarmUps, "enter", lambda self, shared, now: 0, by=WARM_UP)
value("warm-up: a failure releases nobody", WarmUps, "left", lambda self, row: None, by=WARM_UP)
value("warm-up: answers are not heard", WarmUps, "began", lambda self, *args: None, by=WARM_UP)
value("warm-up: a prefix is cached for ever", warmup, "SPARE", -1e12, by=WARM_UP)
value("warm-up: nobody leaves", call_warmup.CallWarmUp, "leave", lambda self: None, by=CALL_WARM_UP)
value("hold: rows begin while it is open", Holds, "waits", lambda self, down, model, now: False, by=LOOKS)
value("hold: no row begins to look", Holds, "waits", lambda self, down, model, now: model in down, by=LOOKS)
value("hold: no outage is too long", runner, "HOLD_LOOK", 1e9, by=LONG)


async def _nothing() -> None:
    """No wait."""
