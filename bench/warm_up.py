"""What rows of a job write into a provider's cache that they share prefixes in: `python -m bench.warm_up`.

In virtual time: the job's own input, journal, runner and engine, 64 rows at a time, in front of a source whose cache
has a prefix from the first byte of an answer with it on, for five minutes. The load is 5,000 shared tokens, 500 of a
row's own; a write costs 1.25 times the price of a token, a read a tenth.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from bench.breaker import answer_of
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.events import Event
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.results import About
from streamguard.request import Request
from streamguard.source import Attempt
from streamguard.testing.clock import run_virtual

ROWS, PREFIXES, CALLS = 2000, 20, 64
SHARED, OWN, LIFETIME = 5000, 500, 300.0
POLICY = "version: 1\ntimeouts: {total: 240}\npace: off\n"


class Cache(msgspec.Struct):
    """What the provider has, and what it was asked."""

    until: dict[str, float] = {}
    writes: int = 0
    reads: int = 0
    seconds: float = 0.0

    @property
    def cost(self) -> float:
        """The input's cost, in % of what it is without a cache."""
        rows = self.writes + self.reads
        return 100 * (self.writes * SHARED * 1.25 + self.reads * SHARED * 0.1 + rows * OWN) / (rows * (SHARED + OWN))


class CachedSource:
    """A request with a prefix."""

    sees_bytes = True
    times_connection = False

    def __init__(self, cache: Cache, dice: random.Random, params: Mapping[str, Any]) -> None:
        self.request = Request(params)
        self._cache, self._dice = cache, dice

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[_Answer]:  # noqa: ARG002
        """Read the prefix, or write it."""
        cache, prefix, now = self._cache, self.request.body["system"][0]["text"], anyio.current_time()
        read = cache.until.get(prefix, -math.inf) > now
        cache.reads, cache.writes = cache.reads + read, cache.writes + (not read)
        await anyio.sleep((0.7 if read else 1.6) * math.exp(self._dice.gauss(0, 0.3)))
        cache.until[prefix] = now + LIFETIME
        yield _Answer()


class _Answer:
    limits = None

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        first, last = answer_of(SHARED + OWN, 300)
        yield first
        await anyio.sleep(300 / 80)
        yield last

    def message(self) -> None:
        """None: nobody asks."""


def run(folder: Path, *, warm: bool, grouped: bool, seed: int = 1) -> Cache:
    """One job."""
    (folder / "policy.yaml").write_text(POLICY + ("" if warm else "warm_up: false\n"))
    order = [i * PREFIXES // ROWS if grouped else i % PREFIXES for i in range(ROWS)]
    if not grouped:
        random.Random(seed).shuffle(order)
    with (folder / "in.jsonl").open("w") as file:
        for i, prefix in enumerate(order):
            system = [{"type": "text", "text": f"prefix {prefix}", "cache_control": {"type": "ephemeral"}}]
            messages = [{"role": "user", "content": str(i)}]
            params = {"model": "m", "max_tokens": 64, "system": system, "messages": messages}
            file.write(json.dumps({"custom_id": str(i), "params": params}) + "\n")
    out = str(folder / f"out-{warm}-{grouped}.jsonl")
    spec = JobSpec(input=str(folder / "in.jsonl"), out=out, policy=str(folder / "policy.yaml"))
    cache, dice = Cache(), random.Random(seed)

    async def main() -> Cache:
        opened = Job.open(spec)
        try:
            tally = Tally(opened.rows, opened.kept, backend_clock())
            runtime = Runtime(job=opened.name, hooks=[tally.hook])
            asker = LocalAsker(lambda one: CachedSource(cache, dice, one), opened.policy, runtime, About(policy="p"))
            runner = Runner(opened, asker, tally=tally, runtime=runtime, concurrency=CALLS)
            await runner.run()
            assert sum(tally.succeeded.values()) == ROWS
            cache.seconds = tally.clock() - tally.start
            return cache
        finally:
            opened.close()

    return run_virtual(main, backend="asyncio", within=100_000)


def main() -> int:
    """As many writes as prefixes, whatever the order."""
    missed = 0
    print(f"{ROWS:,} rows, {PREFIXES} prefixes{'':<14}{'writes':>8}{'input cost %':>14}{'seconds':>9}")
    for grouped in (True, False):
        for warm in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                cache = run(Path(folder), warm=warm, grouped=grouped)
            good = not warm or cache.writes == PREFIXES
            missed += not good
            what = f"{'grouped' if grouped else 'mixed'}, {'warm' if warm else 'cold'}{'' if good else ' MISS'}"
            print(f"{what:<37}{cache.writes:>8}{cache.cost:>14.1f}{cache.seconds:>9.0f}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
