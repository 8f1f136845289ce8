"""As fast as the limits allow, in simulated time: `python -m bench.pace` holds the goals, `table` compares gates.

The provider is a model (`bench.pace_world`); the pace is the product's. Every figure is of the worst seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.pace_gates import AimdSlowStart, AwsAdaptive, Fixed, Paced
from bench.pace_world import (
    INF,
    Account,
    Gate,
    Load,
    OwnServer,
    done_share,
    fairness,
    quantile,
    refused_share,
    settled_after,
)
from streamguard.testing.rate_limits import RateLimits

SEEDS = (1, 2, 3)
LOADS = {
    "requests": Load(input=800, output=150, max_tokens=1024),
    "input": Load(input=5000, output=300),
    "output": Load(input=1000, output=1500, max_tokens=8192),
}
"""Each limit of the smallest account as the narrow one."""


def account(load: Load, gates: Sequence[Gate], seed: int, *, seconds: float = 600.0, **options: Any) -> Account:
    """A run at the smallest account."""
    limits = options.pop("limits", None) or RateLimits()
    made = Account(load, gates, limits, seconds=seconds, seed=seed, **options)
    made.run()
    return made


class Goals:
    """Checks, printed as they come."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, what: str, value: float, low: float = -INF, high: float = INF) -> None:
        """One goal."""
        good = low <= value <= high
        self.failed += not good
        bound = f">= {low:g}" if high == INF else f"<= {high:g}"
        print(f"  {'ok  ' if good else 'MISS'} {what}: {value:.4g} ({bound})", flush=True)


def alone(goals: Goals) -> None:
    """Programs that do not talk."""
    for name, load in LOADS.items():
        for n in (1, 4, 16):
            runs = [account(load, [Paced() for _ in range(n)], seed) for seed in SEEDS]
            what = f"{n} programs, no store, {name} narrow"
            goals.check(f"{what}: % of the allowed", min(done_share(run, run.allowed) for run in runs), 95)
            goals.check(f"{what}: % refused after 120 s", max(refused_share(run, 120) for run in runs), high=0.5)
            goals.check(f"{what}: % refused, start included", max(refused_share(run) for run in runs), high=3)
            goals.check(f"{what}: Jain", min(fairness(run) for run in runs), 0.95)


def blind(goals: Goals) -> None:
    """A server that states no limits."""
    load = Load(input=2000, output=400)
    for seed in SEEDS:
        fixed, ours = (OwnServer(load, [gate], seconds=900, seed=seed).run() for gate in (Fixed(64), Paced()))
        goals.check("no headers, 64 seats: % of what 64 at a time do", 100 * len(ours.done) / len(fixed.done), 92)
        p99 = [quantile([one.took for one in run.done], 0.99) for run in (ours, fixed)]
        goals.check("no headers, 64 seats: p99 over that of 64 at a time", p99[0] / p99[1], high=1.1)


GATES: dict[str, Callable[[], Gate]] = {
    "fixed 8": lambda: Fixed(8),
    "fixed 64": lambda: Fixed(64),
    "AIMD, slow start": AimdSlowStart,
    "AWS adaptive": AwsAdaptive,
    "pace": Paced,
}


FIGURES: dict[str, Callable[[Account], float]] = {
    "% of the allowed": lambda run: done_share(run, run.allowed),
    "% refused": refused_share,
    "% lost": lambda run: 100 * run.lost / max(1, len(run.done) + run.lost),
    "Jain": fairness,
    "p99 s": lambda run: quantile([one.took for one in run.done], 0.99),
    "90 % after s": lambda run: settled_after(run, 0, run.allowed),
}


def table() -> None:
    """The gates beside each other, one program and sixteen that do not talk."""
    for n in (1, 16):
        for name, load in LOADS.items():
            print(f"\n{n} program{'s' if n > 1 else ''}, {name} narrow")
            print(f"  {'':<18}" + "".join(f"{figure:>18}" for figure in FIGURES))
            for gate, make in GATES.items():
                runs = [account(load, [make() for _ in range(n)], seed) for seed in SEEDS[:2]]
                means = [sum(map(figure, runs)) / len(runs) for figure in FIGURES.values()]
                print(f"  {gate:<18}" + "".join(f"{mean:>18.2f}" for mean in means), flush=True)


PARTS: dict[str, Callable[[Goals], None]] = {"alone": alone, "blind": blind}


def main(names: Sequence[str]) -> int:
    """Run some parts, all goals by default.

    :returns: how many goals were missed.
    """
    if "table" in names:
        table()
        return 0
    goals = Goals()
    for name in names or PARTS:
        PARTS[name](goals)
    print(f"  {goals.failed} missed")
    return goals.failed


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
