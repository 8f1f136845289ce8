"""Many live streams in one process: CPU, lag of the event loop, and how late timers are.

N streams of 50 events a second each, as models write them; the server runs on the other core. A probe measures how much
later than asked it is woken: that is by how much every wall-clock guard in the process is late. What counts is the time
after the start, when all streams are open.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import anyio

from bench import server
from bench.documents import advisories, pieces
from bench.harness import REQUEST, extraction, machine, on_one_core
from streamguard import GuardMiddleware, messages, run
from streamguard.cli.commands.run import COLLECT_AFTER
from streamguard.engine.runtime import Runtime

RATE, EVENTS = 50.0, 150
PROBES = 10
"""Timers that wait side by side."""

FEW, SOME, MORE, MANY = 10, 100, 200, 500
One = Callable[[anthropic.AsyncAnthropic], Awaitable[Any]]


async def create(client: anthropic.AsyncAnthropic) -> None:
    """The SDK's plain stream."""
    async with await client.messages.create(**REQUEST, stream=True) as events:
        async for _ in events:
            pass


async def helper(client: anthropic.AsyncAnthropic) -> None:
    """The SDK's stream helper."""
    async with client.messages.stream(**REQUEST) as events:
        await events.until_done()


class Lateness:
    """How much later than asked timers fire, in seconds."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.counts = False

    async def probe(self, every: float) -> None:
        while True:
            due = anyio.current_time() + every
            await anyio.sleep_until(due)
            if self.counts:
                self.seen.append(anyio.current_time() - due)

    def at(self, share: float) -> float:
        ordered = sorted(self.seen)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def live(one: One, count: int, url: str, http: Any, middleware: list[Any]) -> tuple[float, Lateness, float]:
    """Seconds of CPU per second, lateness, and seconds of CPU per event, while all streams are open."""
    lateness = Lateness()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            anthropic.AsyncAnthropic(
                api_key="x", base_url=url, max_retries=0, http_client=http(), middleware=middleware, timeout=60
            )
        )
        await one(client)  # what is imported and compiled on first use
        # As the job runner does: a full collection stops everything for up to a tenth of a second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 10, 10)
        async with anyio.create_task_group() as probes:
            for number in range(PROBES):
                probes.start_soon(lateness.probe, 0.02 + number * 0.003)
            async with anyio.create_task_group() as streams:
                first = anyio.current_time()
                for number in range(count):
                    streams.start_soon(one, client)
                    if number % 5 == 4:
                        await anyio.sleep(0.005)  # a job admits its calls one after the other, too
                # Count when all are open, until the first is at its end.
                await anyio.sleep(0.3)
                began, at = time.process_time(), anyio.current_time()
                lateness.counts = True
                await anyio.sleep(max(0.5, first + 0.95 * EVENTS / RATE - at))
                lateness.counts = False
                cpu, wall = time.process_time() - began, anyio.current_time() - at
            probes.cancel_scope.cancel()
    return cpu / wall, lateness, cpu / (wall * RATE * count)


Mode = tuple[One, Any, list[Any], tuple[int, ...]]
"""What is run, on which HTTP client, through which middleware, and how many at a time."""


def modes(policy: Any, runtime: Runtime) -> dict[str, Mode]:
    """By name; a name says whether it is on uvloop."""

    async def ours(client: anthropic.AsyncAnthropic) -> None:
        await run(messages(client, **REQUEST), policy=policy, runtime=runtime)

    guard = [GuardMiddleware(policy, runtime=runtime, deliver="live")]
    httpx2 = anthropic.DefaultAsyncHttpxClient
    found: dict[str, Mode] = {
        "create(stream=True), httpx2": (create, httpx2, [], (FEW, SOME, MANY)),
        "messages.stream(), httpx2": (helper, httpx2, [], (FEW, SOME, MANY)),
        "run(messages()), httpx2": (ours, httpx2, [], (FEW, SOME, MORE, MANY)),
        "middleware create(stream=True), httpx2": (create, httpx2, guard, (SOME, MORE)),
    }
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        return found
    found["create(stream=True), aiohttp"] = (create, anthropic.DefaultAioHttpClient, [], (SOME, MANY))
    found["run(messages()), aiohttp"] = (ours, anthropic.DefaultAioHttpClient, [], (SOME, MANY))
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return found
    found["run(messages()), aiohttp, uvloop"] = (ours, anthropic.DefaultAioHttpClient, [], (FEW, SOME, MANY))
    return found


def main() -> None:
    """Print the table."""
    on_one_core()
    print(machine())
    policy, runtime = extraction(), Runtime()
    text = advisories(4 * EVENTS - 200)
    answer = server.text(pieces(text, max(1, len(text) // EVENTS)), RATE)
    print(f"\n{answer.events} events each, {RATE:g} a second; timers: how late, in ms; garbage collected as in a job")
    print(f"{'':>40} {'streams':>8} {'CPU %':>7} {'µs/event':>9} {'p50':>7} {'p99':>7} {'max':>7}")
    with server.serving({"a": answer}) as url:
        for name, (one, http, middleware, counts) in modes(policy, runtime).items():
            for count in counts:
                options = {"use_uvloop": "uvloop" in name}
                cpu, late, per_event = anyio.run(
                    live, one, count, url + "/a", http, middleware, backend_options=options
                )
                p50, p99, most = (late.at(share) * 1e3 for share in (0.5, 0.99, 1.0))
                load = f"{count:>8} {cpu * 100:>7.0f} {per_event * 1e6:>9.0f}"
                print(f"{name:>40} {load} {p50:>7.1f} {p99:>7.1f} {most:>7.1f}", flush=True)
