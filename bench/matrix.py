"""`python -m bench.matrix`: the whole fault matrix, or a part of it.

Every fault of the catalogue, lasting or passing, under sixteen guard configurations, cut in three ways, through every
door; each cell is held against the oracle and the invariants. Prints the count and every violation; exits with 1 if
there is one. `--cell` runs one cell again, by the name that a violation begins with.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.matrix.cells import Cell, Surface
from tests.matrix.grid import SURFACES, grid, run_cells, sample

SHARE = 480
"""Cells that a process takes at a time: a few faults."""


def _surfaces(names: str | None) -> list[Surface]:
    return [one for one in SURFACES if names is None or one.name in names.split(",")]


def _cells(options: dict[str, Any]) -> Iterator[Cell]:
    if options["sample"]:
        yield from sample(options["sample"], options["seed"])
        return
    for cell in grid(_surfaces(options["surfaces"])):
        if (options["cell"] or cell.name) == cell.name and cell.fault.id.startswith(options["fault"]):
            yield cell


_own: list[Cell] = []
"""All cells that were asked for, made once in each process."""


def _run(share: tuple[int, dict[str, Any]]) -> tuple[Counter[str], list[str]]:
    number, options = share
    if not _own:
        _own.extend(_cells(options))
    cells = _own[number * SHARE : (number + 1) * SHARE]
    _, violations = run_cells(cells)
    return Counter(cell.surface.name for cell in cells), violations


def _save(file: Path, counts: Counter[str], violations: list[str]) -> None:
    """Keep the figures, beside those of other surfaces that were run before."""
    known = json.loads(file.read_text()) if file.exists() else {"what": "matrix", "cells": {}, "violations": {}}
    for name, count in counts.items():
        known["cells"][name] = count
        known["violations"][name] = sum(f" / {name}: " in one for one in violations)
    file.write_text(json.dumps(known))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.matrix")
    parser.add_argument("--surfaces", help=f"some of: {', '.join(one.name for one in SURFACES)}")
    parser.add_argument("--fault", default="", help="only faults whose id begins so")
    parser.add_argument("--cell", help="one cell, by its name")
    parser.add_argument("--sample", type=int, default=0, help="so many cells, chosen by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = vars(parser.parse_args())
    total = sum(1 for _ in _cells(options))
    shares = [(number, options) for number in range(-(-total // SHARE))]
    began = time.monotonic()
    counts: Counter[str] = Counter()
    violations: list[str] = []
    with multiprocessing.get_context("spawn").Pool(options["processes"]) as pool:
        for done, (count, found) in enumerate(pool.imap_unordered(_run, shares), 1):
            counts += count
            violations += found
            for violation in found:
                print(violation, flush=True)
            if done % 20 == 0:
                print(f"  {counts.total()} of {total} cells, {time.monotonic() - began:.0f} s", flush=True)
    for name, count in counts.items():
        print(f"  {name:<24} {count:>8} cells")
    print(f"{counts.total()} cells, {len(violations)} violations, {time.monotonic() - began:.0f} s")
    if options["save"]:
        _save(Path(options["save"]), counts, violations)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
