"""`python -m bench.soak`: what a machine adds: leaks after 100,000 aborted streams, the lateness of timers with 1,000
streams, and memory under providers that send too much.

* leaks: aborted streams over one client and one server on loopback; open files, tasks, pool slots and resident memory
  afterwards, the latter against a tenth of the way.
* timers: 1,000 streams in memory of 20 events a second each, in real time; each has an `attempt` limit of its own. How
  late the calls end, as percentiles; and the same while somebody parses an event of 1 MiB now and then.
* memory: each adversary with a million repetitions, in a process of its own: the growth of its resident memory.

Exits with 1 if something leaks, a call ends more than 100 ms (250 ms beside the large events) later than the loop's own
lag, or an adversary makes a call keep more than 32 MiB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from streamguard import api
from streamguard.errors import CallError
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.model import Policy
from streamguard.testing import pace, repeat, script, wire
from tests.matrix.adversaries import ADVERSARIES, POLICY
from tests.matrix.soak import soak

MIB = 1 << 20


def leaks(count: int) -> dict[str, Any]:
    began = time.monotonic()
    left = anyio.run(soak, count, lambda n: print(f"  {n} streams, {time.monotonic() - began:.0f} s", flush=True))
    print(
        f"leaks: {left.streams} streams, {left.aborted} aborted: {len(left.violations)} leaks, "
        f"{left.rss_growth / MIB:+.1f} MiB resident, {time.monotonic() - began:.0f} s"
    )
    for violation in left.violations[:20]:
        print(f"  {violation}")
    return {
        "streams": left.streams,
        "aborted": left.aborted,
        "leaks": len(left.violations),
        "rss_mib": round(left.rss_growth / MIB, 1),
    }


async def _lag(lags: list[float]) -> None:
    """How late a plain timer is meanwhile: what the loop itself adds."""
    while True:
        due = anyio.current_time() + 0.01
        await anyio.sleep(0.01)
        lags.append(anyio.current_time() - due)


async def _late(streams: int, large: bool) -> tuple[list[float], list[float]]:
    rng = random.Random(11)
    late: list[float] = []
    lags: list[float] = []
    big = [wire.text_delta("x" * (MIB - 200))] if large else []

    async def one(limit: float, more: list[bytes]) -> None:
        pieces = [pace(20), repeat([wire.text_delta("some words and more ")] * 40 + more)]
        source = script([wire.message_start(), wire.block_start(), *pieces], max_event_bytes=2 * MIB)
        policy = Policy(timeouts=Timeouts(attempt=limit))
        began = anyio.current_time()
        try:
            await api.run(source, policy=policy)
        except CallError:
            late.append(anyio.current_time() - began - limit)

    async with anyio.create_task_group() as beside:
        beside.start_soon(_lag, lags)
        await _all(streams, one, big, rng)
        beside.cancel_scope.cancel()
    return sorted(late), sorted(lags)


async def _all(streams: int, one: Any, big: list[bytes], rng: random.Random) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(streams):
            # Starts are spread, as requests are; large events come from one stream in a hundred.
            await anyio.sleep(1.0 / streams)
            tasks.start_soon(one, 4 + 6 * rng.random(), big if number % 100 == 0 else [])


def timers(streams: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"streams": streams}
    for large in (False, True):
        late, lags = anyio.run(_late, streams, large)
        p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
        lag = lags[int(len(lags) * 0.99)], lags[-1]
        what = "with 1 MiB events in some streams" if large else "of small events"
        print(
            f"timers: {len(late)} streams {what}: late by p50 {p50 * 1e3:.1f}, p99 {p99 * 1e3:.1f}, "
            f"max {late[-1] * 1e3:.1f} ms (a plain timer meanwhile: p99 {lag[0] * 1e3:.1f}, max {lag[1] * 1e3:.1f} ms)"
        )
        figures["large" if large else "small"] = [round(one * 1e3, 2) for one in (p50, p99, late[-1], *lag)]
    return figures


def _grows(name: str, count: int) -> tuple[str, float]:
    source = script(ADVERSARIES[name](count))
    before = _rss()

    async def main() -> str:
        try:
            await api.run(source, policy=POLICY)
        except CallError as error:
            return error.reason
        return "accepted"

    reason = anyio.run(main)
    return reason, max(0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before)


def _rss() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def memory(count: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in ADVERSARIES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            reason, grown = pool.apply(_grows, (name, count))
        print(f"memory: {name:<26} {count:>8} times: +{grown:5.1f} MiB at the most, ended by {reason}", flush=True)
        figures[name] = round(grown, 1)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--timers", type=int, default=1000)
    parser.add_argument("--times", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("leaks", "timers", "memory"))
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    figures: dict[str, Any] = {"what": "soak"}
    bad = False
    if options.only in (None, "timers"):
        figures["timers"] = timers(options.timers)
        # What the loop itself was late by is not the calls' doing.
        (*_, small, _, lag), (*_, large, _, lags) = figures["timers"]["small"], figures["timers"]["large"]
        bad |= small > 100 + lag or large > 250 + lags
    if options.only in (None, "memory"):
        figures["memory"] = memory(options.times)
        bad |= max(figures["memory"].values()) > 32
    if options.only in (None, "leaks"):
        figures["leaks"] = leaks(options.streams)
        bad |= figures["leaks"]["leaks"] > 0
    if options.save:
        path = Path(options.save)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | figures))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
