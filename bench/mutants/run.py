"""Switch off each guard, rule and clean-up in turn, and see whether anything notices.

A mutant is a patch, never an edit. Each runs in a process of its own, against the tests that it names or else against
the probes, in this order, until one notices: cells of the matrix (shuffled, by seed), cancellation at every step,
truncations, requests per outage, time, memory, fuzzing, keys. A mutant that makes the matrix run for ever is noticed
too. Survivors are listed; exits with 1 if there is one, or if the unmutated package is noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import signal
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from bench.mutants.probes import PROBES, named_tests
from bench.mutants.registry import MUTANTS, NOTICED_BY

WITHIN = 300
"""Seconds that the probes may take; a mutant that takes longer runs for ever."""


class _Late(KeyboardInterrupt):
    """The probes take too long. Of this kind, as a loop hands on no other, and a package may well survive a
    `TimeoutError`."""


def _try(name: str) -> tuple[str, str | None, str, float]:
    """Which probe noticed a mutant, and what."""
    began = time.monotonic()

    def late(*_: object) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, WITHIN, 10)
    try:
        with MUTANTS[name]() if name else contextlib.nullcontext():
            named = {"named tests": lambda: named_tests(NOTICED_BY[name])} if name in NOTICED_BY else None
            for probe, ask in (named or PROBES).items():
                try:
                    noticed = ask()
                except _Late:
                    return name, probe, "it went on for ever", time.monotonic() - began
                except Exception:
                    noticed = traceback.format_exc(limit=-1)
                if noticed is not None:
                    return name, probe, noticed.splitlines()[-1][:160], time.monotonic() - began
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return name, None, "", time.monotonic() - began


def _chosen(only: str) -> Iterator[str]:
    yield from (name for name in MUTANTS if only in name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--sound", action="store_true", help="first see that the package itself is not noticed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    names = list(_chosen(options.only))
    began = time.monotonic()
    survivors: list[str] = []
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        tasks = [""] * options.sound + names
        for name, probe, what, took in pool.imap(_try, tasks):
            print(f"{name or 'the package itself':<58} {probe or 'SURVIVED':<16} {took:6.1f} s  {what}", flush=True)
            if (probe is None) == bool(name):
                survivors.append(name or f"the package itself: {what}")
    print(f"{len(names)} mutants, {len(survivors)} survivors, {time.monotonic() - began:.0f} s")
    for name in survivors:
        print(f"  survivor: {name}")
    if options.save:
        Path(options.save).write_text(json.dumps({"what": "mutants", "count": len(names), "survivors": survivors}))
    return 1 if survivors else 0
