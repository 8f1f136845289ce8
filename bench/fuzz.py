"""`python -m bench.fuzz`: mutated input to every reader of the package, by seed. No tools needed.

Prints, per target, how many inputs, how many that were answered with anything but a typed answer, and the slowest, in
CPU time.
Exits with 1 if there is one. `--target NAME --seed N` runs one input again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from pathlib import Path

from tests.matrix.mutations import mutated
from tests.matrix.targets import TARGETS

SHARES = {"policy": 0.01, "schemas": 0.05, "events": 0.06, "scanner": 0.15, "schema": 0.12, "recordings": 0.03}
"""Of all inputs, by target; the others share the rest."""
BATCH = 2000


def _run(task: tuple[str, int, int]) -> tuple[str, int, list[str], float, int]:
    name, first, count = task
    target, wrong, slowest, slow = TARGETS[name], [], 0.0, 0
    for seed in range(first, first + count):
        data = mutated(name, seed)
        began = time.process_time()
        try:
            target(data)
        except Exception:
            wrong.append(f"{name}, seed {seed}: {traceback.format_exc(limit=-2)}")
        took = time.process_time() - began
        slowest, slow = max(slowest, took), slow + (took > 0.05)
    return name, count, wrong, slowest, slow


def _tasks(count: int, first: int) -> list[tuple[str, int, int]]:
    rest = (1 - sum(SHARES.values())) / (len(TARGETS) - len(SHARES))
    tasks = []
    for name in TARGETS:
        total = round(count * SHARES.get(name, rest))
        tasks += [(name, first + at, min(BATCH, total - at)) for at in range(0, total, BATCH)]
    return tasks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    if options.target and options.seed is not None:
        data = mutated(options.target, options.seed)
        print(data)
        TARGETS[options.target](data)
        return 0
    began = time.monotonic()
    counts = dict.fromkeys(TARGETS, 0)
    slowest, slow = dict.fromkeys(TARGETS, 0.0), dict.fromkeys(TARGETS, 0)
    violations: list[str] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for name, count, wrong, longest, late in pool.imap_unordered(_run, _tasks(options.count, options.first)):
            counts[name] += count
            slowest[name] = max(slowest[name], longest)
            slow[name] += late
            violations += wrong
            for violation in wrong:
                print(violation, flush=True)
    for name, count in counts.items():
        print(f"  {name:<12} {count:>9} inputs   slowest {slowest[name] * 1000:7.1f} ms   over 50 ms: {slow[name]}")
    total = sum(counts.values())
    print(f"{total} inputs, {len(violations)} without a typed answer, {time.monotonic() - began:.0f} s")
    if options.save:
        Path(options.save).write_text(
            json.dumps({"what": "fuzz", "inputs": counts, "violations": len(violations), "slow": sum(slow.values())})
        )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
