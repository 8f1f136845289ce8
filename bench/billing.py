"""`python -m bench.billing`: what a budget holds and charges, against bills made by the documented rules.

Random requests against their bounds, and cells: a budget, a request, answers that end in some way, callers who leave.
Prints what was refused, by what was strange about it, and every violation; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter

from tests.matrix.billing.cells import violations
from tests.matrix.billing.reserved import Found, reserved

SHARE = 250


def _requests(seed: int) -> Found:
    return reserved(seed, SHARE)


def _cells(share: int) -> tuple[Counter[str], list[str]]:
    logging.disable(logging.CRITICAL)
    played: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(share * SHARE, (share + 1) * SHARE):
        found, names = violations(seed)
        played.update(names)
        wrong += found
    return played, wrong


def main() -> int:
    """See the top."""
    parser = argparse.ArgumentParser(prog="python -m bench.billing")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    bounded, wrong = 0, []
    refused: Counter[str] = Counter()
    played: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for found in pool.imap_unordered(_requests, range(-(-options.requests // SHARE))):
            bounded += found.bounded
            refused += found.refused
            wrong += found.violations
        for names, some in pool.imap_unordered(_cells, range(-(-options.cells // SHARE))):
            played += names
            wrong += some
    print(f"{bounded + refused.total():,} requests: {bounded:,} bounded, {refused.total():,} refused")
    for why, count in sorted(refused.items(), key=lambda one: (-one[1], one[0])):
        print(f"  {count:>6} {why}")
    print(f"{played.total():,} attempts in {options.cells:,} cells")
    for name, count in sorted(played.items(), key=lambda one: (-one[1], one[0])):
        print(f"  {count:>6} {name}")
    for one in wrong:
        print(one)
    print(f"{len(wrong)} violations, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
