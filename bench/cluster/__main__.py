"""`python -m bench.cluster [--histories N] [--first SEED] [--plants] [--seed SEED]`: histories, or planted mistakes.

With `--seed` one history is played again and printed. Ends with exit code 1 if a rule was broken, or a planted mistake
was not found.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from bench.cluster.checker import violations
from bench.cluster.history import history


def main() -> None:
    """Play, and print what was found."""
    logging.disable()
    parser = argparse.ArgumentParser()
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--plants", action="store_true")
    parser.add_argument("--only", default="", help="plants whose name contains this")
    said = parser.parse_args()
    if said.seed is not None:
        made = history(said.seed)
        for event in made.world.log:
            print(event.at, event.store, event.kind, event.node, event.key, event.value)
        print(violations(made) or "no rule was broken")
        return
    if said.plants:
        from bench.cluster import pace_plants  # noqa: F401  registers its own
        from bench.cluster.plants import PLANTS, found_by

        missed, wanted = 0, [name for name in PLANTS if said.only in name]
        for name in wanted:
            seed, why = found_by(name, said.histories)
            missed += seed is None
            print(f"{name:>48}  {'not found' if seed is None else f'seed {seed}: {why}'}")
        print(f"{len(wanted) - missed} of {len(wanted)} planted mistakes were found")
        sys.exit(missed > 0)
    began, broken = time.process_time(), 0
    kinds: Counter[str] = Counter()
    for seed in range(said.first, said.first + said.histories):
        made = history(seed)
        kinds.update({event.kind for event in made.world.log})
        if wrong := violations(made):
            broken += 1
            print(f"seed {seed}: {'; '.join(wrong)}")
    print(f"{said.histories} histories, {broken} with a rule broken, {time.process_time() - began:.0f} s of CPU")
    print("histories in which something happened:", dict(kinds.most_common()))
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
