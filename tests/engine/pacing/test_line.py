"""One pace for several event loops, one after the other and at once: a line in each, and one clock."""

from __future__ import annotations

import math
import threading
from typing import Any

import anyio
import pytest

from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.line import LOOK_AGAIN, CommonClock, Line, Lines
from streamguard.engine.pacing.local import LocalPacer
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.reports import Refused, Returned, Seen
from streamguard.pace.sharing import Ask
from streamguard.pace.spec import PaceSpec
from streamguard.testing.clock import BACKENDS, run_virtual

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)
ASK = Ask(input_tokens=0.0, max_tokens=None, patient=True)
ONE_A_SECOND = Limits(requests=Limit(per_minute=60, left=60))


@ON_BOTH
def test_a_loop_whose_clock_is_behind_goes_on_from_the_latest_moment(backend: Any) -> None:
    """The common clock never goes back, and passes as fast as the loop's own."""
    clock = CommonClock()

    async def moments() -> list[float]:
        began = anyio.current_time()
        found = [clock.moment(began)]
        await anyio.sleep(7)
        return [*found, clock.moment(anyio.current_time())]

    async def late() -> float:
        await anyio.sleep(1000)
        return clock.moment(anyio.current_time())

    latest = run_virtual(late, backend=backend)
    first, second = run_virtual(moments, backend=backend)
    assert (first >= latest, second - first) == (True, pytest.approx(7))


@ON_BOTH
def test_a_pace_goes_on_in_the_next_loop(backend: Any) -> None:
    """A limit that an earlier loop has seen holds in a loop whose clock begins anew, and gives turns at its rate."""
    pacer = LocalPacer(PaceSpec(ramp=0).knobs())

    async def earlier() -> None:
        await anyio.sleep(1000)
        pacer.report(Seen(at=anyio.current_time(), limits=ONE_A_SECOND))

    async def later() -> float:
        began = anyio.current_time()
        for _ in range(11):
            given = await pacer.turn(CallClock(None), ASK)
            pacer.report(Returned(at=anyio.current_time(), cost=(0.0, 0.0, 0.0, 0.0)))
            assert given.cost[0] == 1.0
        return anyio.current_time() - began

    run_virtual(earlier, backend=backend)
    assert 5 < run_virtual(later, backend=backend) < 15


def test_moments_of_a_report_are_shifted_together() -> None:
    """When it happened and when its request was sent, by the same seconds; nothing else of it changes."""
    refused = Refused(at=10.0, sent=8.0, cost=(1.0, 0.0, 0.0, 0.0), limited=True)
    assert refused.shifted(5.0) == Refused(at=15.0, sent=13.0, cost=(1.0, 0.0, 0.0, 0.0), limited=True)
    seen = Seen(at=1.0, limits=ONE_A_SECOND)
    assert (seen.shifted(2.0), seen.shifted(0.0)) == (Seen(at=3.0, limits=ONE_A_SECOND), seen)


@ON_BOTH
def test_who_waits_looks_again_though_nobody_here_reports(backend: Any) -> None:
    """What another loop reports wakes nobody in this one."""

    async def main() -> float:
        began = anyio.current_time()
        await Line().changed(math.inf)
        return anyio.current_time() - began

    assert run_virtual(main, backend=backend) == pytest.approx(LOOK_AGAIN)


def test_each_loop_has_a_line_of_its_own() -> None:
    """The same line within one loop, and another one in a thread's."""
    lines, found = Lines(), []

    async def look() -> None:
        found.append((lines.here, lines.here))

    threads = [threading.Thread(target=anyio.run, args=(look,), kwargs={"backend": backend}) for backend in BACKENDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first, again), (second, too) = found
    assert (first is again, second is too, first is second) == (True, True, False)
