"""`python -m bench.reliability_report`: the reliability programme's figures as one table.

Each part saves its figures to a file of `--folder`; parts without figures are run first (`--run none` prints what there
is). A clean run of n trials proves, at 95 %, a failure rate below 3/n (the rule of three); a part that goes through all
of something proves that there is none in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.matrix.grid import grid

PARTS: dict[str, tuple[str, ...]] = {
    "matrix": ("bench.matrix",),
    "compositions": ("bench.compositions",),
    "truncation": ("bench.truncation",),
    "fuzz": ("bench.fuzz",),
    "soak": ("bench.soak",),
    "mutants": ("bench.mutants", "--sound"),
}


class Line(NamedTuple):
    """One line of the table."""

    what: str
    trials: int
    violations: int
    exhaustive: bool = False

    @property
    def bound(self) -> str:
        """What a clean run proves."""
        if self.violations:
            return "-"
        bound = f"< {3 / self.trials:.1e}" if self.trials else "-"
        return f"none of them ({bound})" if self.exhaustive else bound


def lines(figures: dict[str, dict[str, Any]]) -> Iterator[Line]:
    """The table's lines, of whatever figures there are."""
    if matrix := figures.get("matrix"):
        count, whole = sum(matrix["cells"].values()), sum(1 for _ in grid())
        what = "matrix: cells" if count == whole else f"matrix: cells, of {whole:,}"
        yield Line(what, count, sum(matrix["violations"].values()), exhaustive=count == whole)
    if compositions := figures.get("compositions"):
        yield Line("random compositions", compositions["count"], compositions["violations"])
    if truncation := figures.get("truncation"):
        yield Line("truncations, in one pass", truncation["cuts"], truncation["accepted"], exhaustive=True)
        yield Line("truncations, in calls", truncation["calls"], truncation["accepted"], exhaustive=True)
    if fuzz := figures.get("fuzz"):
        yield Line("fuzz inputs", sum(fuzz["inputs"].values()), fuzz["violations"])
    if soak := figures.get("soak"):
        if "leaks" in soak:
            yield Line("aborted streams (leaks)", soak["leaks"]["aborted"], soak["leaks"]["leaks"])
        if "memory" in soak:
            over = sum(grown > 32 for grown in soak["memory"].values())
            yield Line("adversaries (over 32 MiB)", len(soak["memory"]), over, exhaustive=True)
    if mutants := figures.get("mutants"):
        yield Line("mutants (survivors)", mutants["count"], len(mutants["survivors"]), exhaustive=True)


def table(figures: dict[str, dict[str, Any]]) -> str:
    """All there is to say."""
    rows = [f"{'':<28} {'trials':>10} {'violations':>11}   failure rate proven at 95 %"]
    rows += [f"{one.what:<28} {one.trials:>10,} {one.violations:>11}   {one.bound}" for one in lines(figures)]
    if (matrix := figures.get("matrix")) is not None:
        rows += ["", "cells by surface"]
        rows += [f"  {name:<26} {count:>10,}" for name, count in sorted(matrix["cells"].items())]
    soak = figures.get("soak", {})
    if "timers" in soak:
        for name, what in (("small", "small events"), ("large", "with events of 1 MiB")):
            p50, p99, most, lag99, lag = soak["timers"][name]
            rows.append(
                f"timers, {soak['timers']['streams']} streams, {what}: late by p50 {p50}, p99 {p99}, max {most} ms"
            )
            rows.append(f"  (plain timers meanwhile: p99 {lag99}, max {lag} ms)")
    if "leaks" in soak:
        rows.append(f"resident memory over {soak['leaks']['streams']:,} streams: {soak['leaks']['rss_mib']:+} MiB")
    if survivors := figures.get("mutants", {}).get("survivors"):
        rows += ["survivors:", *(f"  {name}" for name in survivors)]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reliability_report")
    parser.add_argument("--folder", default="build/reliability")
    parser.add_argument("--run", choices=("missing", "all", "none"), default="missing")
    options = parser.parse_args()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, command in PARTS.items():
        file = folder / f"{part}.json"
        if options.run == "all" or (options.run == "missing" and not file.exists()):
            print(f"-- {part}", flush=True)
            subprocess.run([sys.executable, "-m", *command, "--save", str(file)], check=False)
    files = {part: folder / f"{part}.json" for part in PARTS}
    figures = {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}
    print(table(figures))
    return 1 if any(line.violations for line in lines(figures)) else 0


if __name__ == "__main__":
    sys.exit(main())
