"""`python -m bench.truncation`: every byte prefix of every stream there is, as a truncation.

In one pass per stream through decoder, translator and panel, and through whole calls for the catalogue's own answers
and the documented samples. Exits with 1 if a cut is ever taken for an answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

from streamguard.guards.document.guard import JsonDocument
from streamguard.policy.model import Policy
from streamguard.testing import faults
from tests.matrix.truncation import cut_everywhere, recordings, samples, synthetic, through_the_engine

POLICIES = {"plain": Policy(), "json": Policy(json=JsonDocument())}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.truncation")
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    began = time.monotonic()
    tried = accepted = calls = 0
    for name, policy in POLICIES.items():
        for stream in itertools.chain(synthetic(), samples(), recordings()):
            cuts = cut_everywhere(stream, policy, faults.request())
            tried += cuts.tried
            accepted += len(cuts.accepted)
            if cuts.accepted:
                print(f"{stream.name} ({name}): accepted when cut at {cuts.accepted[:10]}")
    for stream in itertools.chain((one for one in synthetic() if one.name.startswith("good")), samples()):
        cuts = through_the_engine(stream, POLICIES["plain"], faults.request())
        calls += cuts.tried
        accepted += len(cuts.accepted)
        if cuts.accepted:
            print(f"{stream.name} (calls): accepted when cut at {cuts.accepted[:10]}")
    print(f"{tried} cuts, {calls} more in calls of their own, {accepted} accepted, {time.monotonic() - began:.0f} s")
    if options.save:
        figures = {"what": "truncation", "cuts": tried, "calls": calls, "accepted": accepted}
        Path(options.save).write_text(json.dumps(figures))
    return 1 if accepted else 0


if __name__ == "__main__":
    sys.exit(main())
