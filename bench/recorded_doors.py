"""`python -m bench.recorded_doors`: every recorded response through every door, cut at random places.

Prints the recordings whose verdicts differ by the door, and those that the SDK alone takes for another message. Exits
with 1 if the doors differ where nobody said that they may.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import anyio

from streamguard import Policy
from tests import doors

UNCOUNTED = ("variants/usage_missing", "variants/usage_null_everywhere")
"""Without counts the SDK's own accumulator breaks: streams of its events have zeros there."""


async def main(step: int, seed: int) -> int:
    recorded = doors.recorded()[seed % step :: step]
    differ = 0
    for place, (name, raw) in enumerate(recorded):
        found = await doors.verdicts(raw, Policy(), seed=seed + place)
        ours, theirs = found["run"], await doors.plain(raw, seed=seed + place)
        if name in UNCOUNTED:
            found = {door: verdict._replace(usage=ours.usage) for door, verdict in found.items()}
        others = {door: verdict for door, verdict in found.items() if verdict != ours}
        differ += bool(others)
        for door, verdict in others.items():
            print(f"{name}: {door} has {verdict}, run has {ours}", flush=True)
        if ours.ended == theirs.ended == "accepted" and ours != theirs:
            print(f"{name}: the SDK alone has {theirs}, run has {ours}", flush=True)
    print(f"{len(recorded)} recordings at {len(doors.DOORS)} doors: {differ} with verdicts that differ")
    return 1 if differ else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.recorded_doors")
    parser.add_argument("--step", type=int, default=1, help="take every so manieth recording")
    parser.add_argument("--seed", type=int, default=0, help="where to cut, and which recording is the first")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.exit(anyio.run(main, given.step, given.seed))
