"""`python -m bench [NAME…]`: run benchmarks and print tables. Without a name those of speed, in about four minutes on a
quiet machine, most of which is the waiting of paced streams; `all` for every one."""

from __future__ import annotations

import argparse
from importlib import import_module

SPEED = ("doors", "small_calls", "long_answers", "concurrency")
OTHER = ("guards", "budgets", "proxy")

parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*SPEED, *OTHER, "all")))
names = parser.parse_args().names
if unknown := set(names) - {*SPEED, *OTHER, "all"}:
    parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join((*SPEED, *OTHER, 'all'))}")
for name in (*SPEED, *OTHER) if "all" in names else names or SPEED:
    print(f"\n== {name}", flush=True)
    import_module(f"bench.{name}").main()
