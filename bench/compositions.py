"""`python -m bench.compositions`: random scripts of one to four faults across the attempts of a call, by seed.

Prints the count and every violation with its seed; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from pathlib import Path

from streamguard.testing import run_virtual
from tests.matrix.compositions import composed, wrong
from tests.matrix.grid import FAR

SHARE = 500
"""Seeds that a process takes at a time."""


def _run(first: int) -> list[str]:
    async def all_of_them() -> list[str]:
        found: list[str] = []
        for seed in range(first, first + SHARE):
            try:
                found += await wrong(composed(seed))
            except Exception:
                found.append(f"composition {seed}: the matrix itself failed: {traceback.format_exc()}")
        return found

    return run_virtual(all_of_them, within=FAR)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compositions")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    began = time.monotonic()
    violations: list[str] = []
    seeds = range(options.first, options.first + options.count, SHARE)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, found in enumerate(pool.imap_unordered(_run, seeds), 1):
            violations += found
            for violation in found:
                print(violation, flush=True)
            if done % 40 == 0:
                print(f"  {done * SHARE} of {options.count}, {time.monotonic() - began:.0f} s", flush=True)
    count = len(seeds) * SHARE
    print(f"{count} compositions, {len(violations)} violations, {time.monotonic() - began:.0f} s")
    if options.save:
        Path(options.save).write_text(
            json.dumps({"what": "compositions", "count": count, "violations": len(violations)})
        )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
