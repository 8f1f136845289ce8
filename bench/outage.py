"""What a total outage costs: requests sent by ten thousand calls, in virtual time: `python -m bench.outage`."""

from __future__ import annotations

import anyio

import streamguard
from streamguard import Backoff, DeadlineExceeded, GaveUp, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.events import Failed
from streamguard.testing.clock import run_virtual
from streamguard.testing.scripted import script

CALLS = 10_000
ATTEMPTS = 5
DOWN = {
    "connections reset": Failed(reason="transport.reset", message="gone"),
    "529 overloaded": Failed(reason="provider.overloaded", message="busy", status=529, billable=False),
}


def outage(failed: Failed, *, every: float, quota: bool) -> tuple[int, float]:
    """Calls, one `every` seconds, against a provider that is down: requests, and seconds until the last call ended."""
    shared = {} if quota else {"quota": None}
    retry = Retry(attempts=ATTEMPTS, rules=[Rule(when=["*"], wait=Backoff(initial=0.5))], **shared)
    policy = Policy(retry=retry, timeouts=Timeouts(total=300))
    source, runtime = script([failed]), Runtime()

    async def one(number: int) -> None:
        await anyio.sleep(number * every)
        try:
            await streamguard.run(source, policy=policy, runtime=runtime)
        except (GaveUp, DeadlineExceeded):
            return
        raise AssertionError("a call came through a total outage")

    async def main() -> float:
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for number in range(CALLS):
                group.start_soon(one, number)
        return anyio.current_time() - began

    seconds = run_virtual(main, backend="asyncio")
    return source.opened, seconds


def main() -> None:
    print(f"{CALLS:,} calls in a total outage, {ATTEMPTS} attempts allowed: requests a call")
    for name, failed in DOWN.items():
        for every in (0.0, 0.05):
            with_bucket, _ = outage(failed, every=every, quota=True)
            without, _ = outage(failed, every=every, quota=False)
            pace = "all at once" if not every else f"one each {every * 1000:.0f} ms"
            print(f"  {name:<18} {pace:<16} {with_bucket / CALLS:6.3f}   without the quota {without / CALLS:6.3f}")


if __name__ == "__main__":
    main()
