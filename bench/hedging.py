"""A second request when the first token is late, beside none: `python -m bench.hedging`.

In virtual time, on the product: calls one after the other through the engine, in front of a source whose first tokens
are drawn. What counts is how long calls waited for their first token, and how many more requests that took. Nothing of
this was measured at a live API: that first tokens have such a tail is assumed.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from streamguard.engine.call import Call
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.outcome import CallRecord
from streamguard.pace.hedge import LOST, HedgeSpec
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.rules import Retry, Rule
from streamguard.source import Attempt
from streamguard.testing.clock import run_virtual

MEDIAN, SIGMA = 0.9, 0.45
"""First tokens are lognormal, in seconds, as in the design's simulator."""

STUCK, STUCK_FROM, STUCK_SHAPE = 0.015, 4.0, 1.1
"""The share of requests with a tail of their own, from how many seconds, and its Pareto shape."""

PERIOD: Final = 6000
"""Calls in which the provider is slow for everybody once."""

RETRY = Retry(attempts=3, rules=[Rule(when=["timeout.*", "transport.*"])])
ANSWER: Sequence[Event] = (
    Started(id="m", model="m", usage=Usage(input_tokens=10)),
    BlockStarted(0, "text", type="text"),
    Delta(0, "text", "Yes."),
    BlockStopped(0),
    Metered(Usage(output_tokens=2), stop_reason="end_turn"),
    Stopped("end_turn"),
)
KINDS: dict[str, tuple[bool, float, float]] = {
    "no tail": (False, 0.0, 0.0),
    "1.5 % Pareto tail": (True, 0.0, 0.0),
    "the tail, and 5 % slow by themselves": (True, 0.05, 0.0),
    "the tail, and all x 4 for 15 % of the time": (True, 0.0, 0.15),
}
"""Whether requests have a tail, the share of calls that are slow by themselves, the share of time when all are."""


class _Answer:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._batches = iter([ANSWER])

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        return self

    async def __anext__(self) -> Sequence[Event]:
        for batch in self._batches:
            await anyio.sleep(self._seconds)
            return batch
        raise StopAsyncIteration

    def message(self) -> Any:
        return None


class Late:
    """A source whose first token comes after a drawn time: a new one for each request."""

    sees_bytes = True
    request = Request({"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "Yes?"}]})

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[_Answer]:  # noqa: ARG002
        """Answer after the drawn time, the head of the response at once."""
        yield _Answer(self._draw())


def measured(kind: str, hedge: HedgeSpec | None, calls: int, seed: int) -> dict[str, float]:
    """Return what so many calls come to."""
    tail, own, slow = KINDS[kind]
    dice = random.Random(seed)
    policy = Policy(hedge=hedge, retry=RETRY, pace=None)
    times: list[float] = []
    sent = 0

    def draw(common: float) -> float:
        usual = MEDIAN * math.exp(dice.gauss(0, SIGMA)) * common
        stuck = tail and dice.random() < STUCK
        return usual + (min(300.0, STUCK_FROM * dice.paretovariate(STUCK_SHAPE)) if stuck else 0.0)

    async def main() -> None:
        nonlocal sent
        runtime, since = Runtime(), -PERIOD
        for number in range(calls):
            if slow and number % PERIOD == 0:
                since = number + dice.randrange(int(PERIOD * (1 - slow)))
            common = 4.0 if slow and 0 <= number - since < PERIOD * slow else 1.0
            common *= 6.0 if own and dice.random() < own else 1.0
            source = Late(lambda common=common: draw(common))
            try:
                record: CallRecord = await Call(source, policy, runtime, keep=False).run()
            except CallError as error:
                record = error.record
            times.append(record.seconds)
            sent += 1 + sum(one.reason == LOST for one in record.attempts)

    run_virtual(main)
    times.sort()
    quantiles = {f"p{100 * at:g}": times[int(at * calls)] for at in (0.5, 0.95, 0.99, 0.999)}
    return {**quantiles, "extra %": 100 * (sent - calls) / calls}


def compared(kind: str, calls: int, seeds: Sequence[int]) -> dict[str, float]:
    """Return how much sooner first tokens come with hedging, in per cent, and what that takes; the mean of seeds."""
    off, on = ([measured(kind, hedge, calls, seed) for seed in seeds] for hedge in (None, HedgeSpec()))
    mean = {name: [sum(one[name] for one in all_) / len(all_) for all_ in (off, on)] for name in off[0]}
    print(f"\n{kind}: {calls} calls, seeds {', '.join(map(str, seeds))}")
    for name, (without, with_) in mean.items():
        less = "" if name == "extra %" or not without else f"   {100 * (with_ / without - 1):+.0f} %"
        print(f"  {name:8} {without:8.2f} -> {with_:8.2f}{less}")
    return {
        "p99": 100 * (1 - mean["p99"][1] / mean["p99"][0]),
        "p99.9": 100 * (1 - mean["p99.9"][1] / mean["p99.9"][0]),
        "extra": mean["extra %"][1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hedging")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    found = {kind: compared(kind, options.calls, options.seeds) for kind in KINDS}
    tailed, calm = found["1.5 % Pareto tail"], found["no tail"]
    goals = {
        "p99 -45 %": tailed["p99"] >= 45,
        "p99.9 -80 %": tailed["p99.9"] >= 80,
        "at most 3 % extra": tailed["extra"] <= 3,
        "at most 1 % extra without a tail": calm["extra"] <= 1,
    }
    print()
    for goal, held in goals.items():
        print(f"{'held' if held else 'MISSED'}: {goal}")
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
