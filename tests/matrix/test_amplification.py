"""Requests per call, and per outage: one owner of retries (I9)."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from streamguard import api
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError
from streamguard.policy.model import Policy
from streamguard.retry.rules import Retry, Rule
from streamguard.testing import faults, run_virtual
from tests.matrix.configs import configs
from tests.matrix.grid import FAR

OUTAGES = ("F29-outage", "F29-broken", "F14-no-answer", "F24-overloaded", "F01-head-only")


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_costs_little_more_than_its_calls(name: str) -> None:
    """A thousand calls into a total outage send at most 1.1 requests a call and the quota's hundred (F29)."""
    # The breaker makes calls wait, and the quota grows again with time.
    policy = Policy(retry=Retry(attempts=5, rules=(Rule(when=("*",)),)), breaker=None)

    async def main() -> int:
        runtime = Runtime()
        sources = [faults.BY_ID[name].source() for _ in range(1000)]
        for source in sources:
            with pytest.raises(CallError):
                await api.run(source, policy=policy, runtime=runtime)
        return sum(source.opened for source in sources)

    assert run_virtual(main, within=FAR) <= 1100 + 100


@pytest.mark.parametrize("fault", [fault for fault in faults.ALL if not fault.sockets])
def test_a_call_sends_as_many_requests_as_it_says(fault: faults.Fault) -> None:
    """Under `everything`, each fault lasting: requests are the record's attempts, three at the most, each from scratch."""
    policy = configs()["everything"].policy

    async def main() -> tuple[int, int]:
        source = fault.source(event_bytes=8192)
        try:
            record = await api.run(source, policy=policy, runtime=Runtime(jitter=lambda: 0.5))
        except CallError as error:
            record = error.record
        return source.opened, sum(getattr(one.ended, "sent", True) for one in record.attempts)

    opened, told = run_virtual(main, within=FAR)
    assert opened == told <= 3


def test_calls_stop_together() -> None:
    """Once one call was refused, those that share its runtime send nothing until the provider's time is over."""
    rule = Rule(when=("*",), respect_retry_after=True)
    policy = Policy(retry=Retry(attempts=2, rules=(rule,)))

    async def main() -> list[float]:
        runtime = Runtime(jitter=lambda: 0.5)
        first = faults.BY_ID["F27-a-minute"].source()
        second = faults.BY_ID["F07-kept-open"].source()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_quietly, first, policy, runtime)
            await anyio.sleep(1)
            await _quietly(second, policy, runtime)
            tasks.cancel_scope.cancel()
        return [one.opened_at for one in second.exchanges]

    assert run_virtual(main, within=FAR)[0] >= 61.0


async def _quietly(source, policy, runtime) -> None:
    with contextlib.suppress(CallError):
        await api.run(source, policy=policy, runtime=runtime)
