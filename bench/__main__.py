"""`python -m bench [NAME…]`: run benchmarks and print tables. Without a name those of speed, in less than three minutes
on a quiet machine; `all` for every one."""

from __future__ import annotations

import sys
from importlib import import_module

SPEED = ("doors", "small_calls", "long_answers", "concurrency")
OTHER = ("guards", "budgets", "proxy")

names = sys.argv[1:] or SPEED
for name in (*SPEED, *OTHER) if list(names) == ["all"] else names:
    print(f"\n== {name}", flush=True)
    import_module(f"bench.{name}").main()
