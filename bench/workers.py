"""What a second worker process buys: `python -m bench.workers [--rows N] [--pairs N]`.

Jobs with `--workers 1` and `--workers 2` against the light provider, in turn, so that other work on the machine meets
both. Rows a second and CPU are those of the middle 80 % of the rows: the start of Python is a fixed price. The CPU of a
row is split into the parent's, the workers' and the provider's; it does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.light_provider import LightProvider, light_provider

CALLS = 800
DELAY = 0.25

POLICY = """
version: 1
timeouts: {total: 60}
pace: off
json:
  schema:
    type: object
    properties: {n: {type: integer}, by: {type: integer}}
    required: [n, by]
    additionalProperties: false
"""


class Figures(msgspec.Struct):
    """Of the middle 80 % of a run."""

    rate: float
    """Rows a second."""
    parent: float
    children: float
    provider: float
    """Milliseconds of CPU a row."""


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_run(folder: Path, provider: LightProvider, workers: int, rows: int) -> Figures:
    """Run the job once."""
    out = folder / "out.jsonl"
    for left in folder.glob("out.jsonl*"):
        left.unlink()
    said = ["--policy", str(folder / "policy.yaml"), "--out", str(out), "--base-url", provider.url]
    command = [sys.executable, "-m", "streamguard", "run", str(folder / "in.jsonl"), *said]
    command += ["--workers", str(workers), "-j", str(CALLS)]
    log, before = folder / "asked", (folder / "asked").stat().st_size
    variables = {**os.environ, "ANTHROPIC_API_KEY": "none"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables)
    marks: list[tuple[float, float, float, float]] = []
    width = len(f"{rows:06d}\n")
    for share in (0.1, 0.9):
        while log.stat().st_size - before < share * rows * width:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        spent = sum(cpu(int(child)) for child in children)
        marks.append((time.monotonic(), cpu(process.pid), spent, provider.cpu))
    _, words = process.communicate()
    assert process.returncode == 0, words
    assert sum(1 for _ in out.open()) == rows
    first, last = marks
    took, *spent_ = (b - a for a, b in zip(first, last, strict=True))
    return Figures(0.8 * rows / took, *(1000 * one / (0.8 * rows) for one in spent_))


def main() -> None:
    """Run pairs and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--deltas", type=int, default=2)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.yaml").write_text(POLICY)
        with (folder / "in.jsonl").open("w") as lines:
            for n in range(said.rows):
                message = {"role": "user", "content": f"row {n:06d}"}
                params = {"model": "m", "max_tokens": 50, "messages": [message]}
                lines.write(json.dumps({"custom_id": str(n), "params": params}) + "\n")
        with light_provider(folder, delay=DELAY, deltas=said.deltas) as provider:
            (folder / "asked").touch()
            runs: dict[int, list[Figures]] = {1: [], 2: []}
            for pair in range(said.pairs):
                for workers in ((1, 2), (2, 1))[pair % 2]:
                    found = one_run(folder, provider, workers, said.rows)
                    runs[workers].append(found)
                    print(f"--workers {workers}: {told(found)}", flush=True)
    for workers, found_ in runs.items():
        medians = (statistics.median(getattr(one, field) for one in found_) for field in Figures.__struct_fields__)
        print(f"median of {said.pairs}, --workers {workers}: {told(Figures(*medians))}")
    ratios = sorted(two.rate / one.rate for one, two in zip(runs[1], runs[2], strict=True))
    print(
        "ratio of each pair:", " ".join(f"{ratio:.2f}" for ratio in ratios), f"median {statistics.median(ratios):.2f}"
    )


def told(found: Figures) -> str:
    """The figures in words."""
    cores = found.rate * found.provider / 10
    return (
        f"{found.rate:.0f} rows/s; CPU a row: parent {found.parent:.2f} ms, workers {found.children:.2f} ms, "
        f"provider {found.provider:.3f} ms ({cores:.0f} % of a core)"
    )


if __name__ == "__main__":
    main()
