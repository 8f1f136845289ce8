"""As fast as the limits allow, in simulated time: `python -m bench.pace` holds the goals, `table` compares gates.

The provider is a model (`bench.pace_world`); the pace is the product's. Every figure is of the worst seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.pace_gates import AimdSlowStart, AwsAdaptive, Fixed, Paced, PacedShared, Store
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


def shared(goals: Goals) -> None:
    """Programs that share a pace in a store."""
    for name, load in LOADS.items():
        for n in (1, 4, 16):
            stores = [Store() for _ in SEEDS]
            runs = [
                account(load, [PacedShared(store, str(i)) for i in range(n)], seed, one_cooldown=True)
                for seed, store in zip(SEEDS, stores, strict=True)
            ]
            what = f"{n} programs, a store, {name} narrow"
            goals.check(f"{what}: % of the allowed", min(done_share(run, run.allowed) for run in runs), 97)
            goals.check(f"{what}: % refused, start included", max(refused_share(run) for run in runs), high=0.5)
            goals.check(f"{what}: seconds to 90 %", max(settled_after(run, 0, run.allowed) for run in runs), high=30)
            goals.check(f"{what}: Jain", min(fairness(run) for run in runs), 0.99)
            steps = max(store.steps / len(run.sent) for store, run in zip(stores, runs, strict=True))
            goals.check(f"{what}: store steps an attempt", steps, high=1.6)


def changes(goals: Goals) -> None:
    """Limits that halve and double, and a store that goes away: eight programs that share."""
    load = LOADS["input"]
    for seed in SEEDS:
        factors = [(300.0, 0.5), (600.0, 2.0)]

        def change(limits: RateLimits, now: float, left: list[tuple[float, float]] = factors) -> None:
            while left and now >= left[0][0]:
                limits.scale(left.pop(0)[1])

        store = Store()
        gates = [PacedShared(store, str(i)) for i in range(8)]
        run = account(load, gates, seed, seconds=900, one_cooldown=True, limits=RateLimits(before=change))
        goals.check("the limit halves: seconds", settled_after(run, 300, run.allowed / 2, 0, 1.1), high=20)
        goals.check("the limit doubles: seconds", settled_after(run, 600, run.allowed), high=20)
        goals.check("the limit changes: % refused", refused_share(run), high=0.5)
        store = Store(away=((200, 320),))
        run = account(load, [PacedShared(store, str(i)) for i in range(8)], seed, seconds=480)
        goals.check("the store away: % of the allowed", done_share(run, run.allowed, 205, 320), 95)
        goals.check("the store away: % refused", refused_share(run), high=0.5)


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


PARTS: dict[str, Callable[[Goals], None]] = {"shared": shared, "alone": alone, "changes": changes, "blind": blind}


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
