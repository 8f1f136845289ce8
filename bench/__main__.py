"""`python -m bench [NAME…]`: run benchmarks and print tables. All of them by default."""

from __future__ import annotations

import sys

from bench import budgets, doors, guards, proxy

BENCHMARKS = {"guards": guards.main, "doors": doors.main, "budgets": budgets.main, "proxy": proxy.main}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n== {name}")
    BENCHMARKS[name]()
