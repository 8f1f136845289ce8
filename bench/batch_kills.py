"""Kill jobs in the batch lane with SIGKILL, and look at what is left: `python -m bench.batch_kills --kills 200`.

A real process (`streamguard run --lane batch`, with shorter waits), a real client, real sockets, a provider in this
process. Each job of forty rows dies once, at a moment by chance between its start and its end, and is run again. What
is counted: rows in more than one batch, rows paid for twice by batches, rows without a line or with two, and what the
ledger says beside what the provider would bill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from streamguard.budgets.stores import open_ledger
from streamguard.cli.commands import askers
from streamguard.cli.main import main as streamguard
from streamguard.jobs.batches.lane import Order
from streamguard.testing import ScriptedServer, answer
from streamguard.testing.batches import BatchProvider

ROWS = 40
MODEL = "claude-haiku-4-5"
BAD = 7
"""Each row of so many is answered badly by its batch."""

POLICY = """
version: 1
timeouts: {total: 60}
json: {schema: {type: object, properties: {n: {type: integer}}, required: [n], additionalProperties: false}}
retry: {attempts: 2, rules: [{when: [json.*, transport.*], wait: none}]}
budgets: [{name: night, per: job, cost_usd: "5.00"}]
"""


class Counts(msgspec.Struct):
    """What came of it all."""

    jobs: int = 0
    kills: int = 0
    too_late: int = 0
    """Jobs that were through before they were to die."""
    submitted_twice: int = 0
    paid_twice: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    """Jobs whose ledger still holds something."""
    wrong_bill: int = 0
    """Jobs whose ledger has less than was paid for in batches."""


def result(params: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """What a batch answers to a row: its number, or not."""
    said = int(params["messages"][-1]["content"])
    text = '{"n": "no"}' if said % BAD == 0 else json.dumps({"n": said})
    usage = {"input_tokens": 100, "output_tokens": 20, "service_tier": "batch"}
    about = {"id": f"msg_{said}", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
    content = [{"type": "text", "text": text}]
    return {
        "type": "succeeded",
        "message": {**about, "content": content, "stop_reason": "end_turn", "usage": usage, "x_number": number},
    }


def job(folder: Path) -> list[str]:
    """Write a job; returns the command that runs it."""
    rows = (
        {
            "custom_id": str(n),
            "params": {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": str(n)}]},
        }
        for n in range(ROWS)
    )
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "policy.yaml").write_text(POLICY)
    options = [
        "--policy",
        str(folder / "policy.yaml"),
        "--out",
        str(folder / "out.jsonl"),
        "--lane",
        "batch",
        "--quiet",
    ]
    return [sys.executable, "-m", "bench.batch_kills", "--child", "run", str(folder / "in.jsonl"), *options]


def one(folder: Path, dice: random.Random, counts: Counts, longest: float) -> float:
    """One job with one kill; returns the seconds that a run without one would take, as far as that is known."""
    batches = BatchProvider(result, seconds=0.6, epoch=time.time() - time.monotonic(), seed=dice.randrange(1 << 30))
    counts.jobs += 1
    with ScriptedServer(answer('{"n": 0}'), batches=batches).in_thread() as server:
        command = [*job(folder), "--base-url", server.url]
        about = {**os.environ, "ANTHROPIC_API_KEY": "x"}
        began = time.monotonic()
        process = subprocess.Popen(command, env=about)
        try:
            process.wait(timeout=dice.uniform(0.3, longest))
            counts.too_late += 1
            longest = min(longest, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            counts.kills += 1
        finished = subprocess.run(command, env=about, timeout=120, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"the job does not end well: {finished.returncode}, {folder}")
        streamed = [each.body["messages"][-1]["content"] for each in server.exchanges]
    look(folder, batches, streamed, counts)
    return longest


def look(folder: Path, batches: BatchProvider, streamed: list[str], counts: Counts) -> None:
    """Count what is wrong with what a job left."""
    submitted = Counter(
        one["params"]["messages"][0]["content"] for batch in batches.batches.values() for one in batch.requests
    )
    paid = batches.usage["output_tokens"] // 20
    counts.submitted_twice += sum(count > 1 for count in submitted.values())
    counts.paid_twice += max(0, paid - len(submitted))
    lines = Counter(json.loads(line)["custom_id"] for line in (folder / "out.jsonl").read_text().splitlines())
    counts.lost += ROWS - len(lines)
    counts.doubled += sum(count > 1 for count in lines.values())
    store = open_ledger(f"sqlite:{folder}/out.jsonl.ledger").store
    balances = [store.balance(scope.key) for scope in store.scopes()]
    store.close()
    counts.held += any(balance.held for balance in balances)
    # $1 and $5 a million tokens, half in a batch; streams come on top.
    due = paid * (100 * 1 + 20 * 5) // 2
    counts.wrong_bill += any(balance.settled + balance.uncertain < due for balance in balances)
    assert len(streamed) >= ROWS // BAD


def child() -> None:
    """The command itself, with shorter waits: looks from 0.1 s on, and a second for a submission to show."""
    askers.Order = partial(Order, first_look=0.1, grace=1.0)  # type: ignore[misc,assignment]
    streamguard(sys.argv[2:])


def main() -> None:
    """Run it, and print the counts."""
    if sys.argv[1:2] == ["--child"]:
        child()
    parser = argparse.ArgumentParser(prog="python -m bench.batch_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    dice, counts, longest = random.Random(chosen.seed), Counts(), 3.0
    while counts.kills < chosen.kills:
        with tempfile.TemporaryDirectory() as folder:
            longest = max(1.0, one(Path(folder), dice, counts, longest))
        if counts.jobs % 10 == 0:
            print(json.dumps(msgspec.to_builtins(counts)), flush=True)
    print(json.dumps(msgspec.to_builtins(counts)))


if __name__ == "__main__":
    main()
