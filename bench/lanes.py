"""Run the same rows by streams and by Message Batches, against the simulated provider: `python -m bench.lanes`.

What is compared: rows with a valid record, the provider's own bill (batches at half of the list price), and the time to
a row's record. The provider's batches take as long as they are told here; real ones take minutes to an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from streamguard.cli.commands.init import main as init
from streamguard.demo.documents import documents, prompt
from streamguard.demo.provider import Order, provider
from streamguard.jobs.progress.summary import Quantiles

INPUT, OUTPUT = 1, 5
"""USD per million tokens of the model (claude-haiku-4-5)."""


def run(rows: int, bad: float, seed: int, lane: str, batch_seconds: float, speed: float) -> dict[str, Any]:
    """One job; returns what came of it."""
    server = provider(Order(seed=seed, bad_answers=bad, speed=speed, batch_seconds=batch_seconds * speed), keep=None)
    with tempfile.TemporaryDirectory() as name, server.in_thread():
        folder = Path(name)
        with redirect_stdout(StringIO()):
            init(name)
        some = documents(rows, seed=seed)
        lines = (json.dumps({"id": one.id, "text": prompt(one)}) + "\n" for one in some)
        (folder / "invoices.jsonl").write_text("".join(lines))
        command = [sys.executable, "-m", "streamguard", "run", "job.yaml", "--base-url", server.url, "--json", "-q"]
        began = time.monotonic()
        ran = subprocess.run(
            [*command, "--lane", lane],
            cwd=name,
            env={**os.environ, "ANTHROPIC_API_KEY": "x"},
            stdout=subprocess.PIPE,
            check=False,
        )
        seconds = time.monotonic() - began
        done = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    streams = server.billed
    batches = server.batches
    assert batches is not None
    billed = sum(one.input_tokens * INPUT + one.output_tokens * OUTPUT for one in streams)
    billed += (batches.usage["input_tokens"] * INPUT + batches.usage["output_tokens"] * OUTPUT) / 2
    took = Quantiles.of([line["streamguard"]["ms"] / 1000 for line in done])
    return {
        "lane": lane,
        "exit": ran.returncode,
        "valid": {line["custom_id"] for line in done if line["result"]["type"] == "succeeded"},
        "usd": billed / 1e6,
        "streams": len(streams),
        "seconds": seconds,
        "row": took,
    }


def main() -> None:
    """Run both lanes and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.lanes", description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--bad", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-seconds", type=float, default=20.0)
    parser.add_argument("--speed", type=float, default=4.0)
    chosen = parser.parse_args()
    print(
        f"{chosen.rows} rows, {chosen.bad:.0%} bad answers, the provider {chosen.speed:g} times as fast as a live one"
    )
    for seed in range(1, chosen.seeds + 1):
        found = [
            run(chosen.rows, chosen.bad, seed, lane, chosen.batch_seconds, chosen.speed) for lane in ("stream", "batch")
        ]
        for one in found:
            row = one["row"]
            print(
                f"seed {seed} {one['lane']:>6}: valid {len(one['valid'])}, ${one['usd']:.4f} billed "
                f"(x {one['usd'] / found[0]['usd']:.3f}), {one['streams']} streams, job {one['seconds']:.1f} s, "
                f"record p50 {row.p50:.1f} s, p95 {row.p95:.1f} s; exit {one['exit']}"
            )
        print(f"seed {seed} the same rows valid: {found[0]['valid'] == found[1]['valid']}", flush=True)


if __name__ == "__main__":
    main()
