"""What streaming costs a small call: a 30-token answer, CPU and wall time per call beside plain `messages.create()`.

A guarded call is a stream even where its caller asked for none. For a short answer that is most of what it costs, and
this is the figure to look at before every small call of a program is guarded.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import anyio
import anyio.to_thread

from bench import server
from bench.documents import pieces
from bench.doors import clients
from bench.harness import REQUEST, Path, extraction, machine, on_one_core
from streamguard import GuardMiddleware, messages, run
from streamguard.engine.runtime import Runtime

ANSWER = '{"package": "hyper", "kind": "vulnerability", "fixed_in": "0.9.4", "severity": "high", "exploited": false}'
"""105 characters, about 30 tokens, in deltas of one token."""

CALLS, ROUNDS = 40, 6
SMALL: dict[str, Any] = {**REQUEST, "max_tokens": 200}


async def tables() -> None:
    """The table."""
    policy = extraction(None)
    runtime = Runtime()
    answer = server.text(pieces(ANSWER, 4))
    with server.serving({"a": answer}) as url:
        async with AsyncExitStack() as stack:
            paths: dict[str, Path] = {}
            for http, client in (await clients(stack, url + "/a")).items():
                guarded = client.with_middleware(GuardMiddleware(policy, runtime=runtime))

                async def ours(client: Any = client) -> None:
                    await run(messages(client, **SMALL), policy=policy, runtime=runtime)

                async def streamed(client: Any = client) -> None:
                    async with client.messages.stream(**SMALL) as stream:
                        await stream.get_final_message()

                paths[f"create(), {http}"] = lambda client=client: client.messages.create(**SMALL)
                paths[f"messages.stream(), {http}"] = streamed
                paths[f"run(messages()), {http}"] = ours
                paths[f"middleware create(), {http}"] = lambda client=guarded: client.messages.create(**SMALL)
            plain = stack.enter_context(anthropic.Anthropic(api_key="x", base_url=url + "/a", max_retries=0))
            through = plain.with_middleware(GuardMiddleware(policy, runtime=runtime))
            paths["create(), synchronous"] = lambda: anyio.to_thread.run_sync(lambda: plain.messages.create(**SMALL))
            paths["middleware create(), synchronous"] = lambda: anyio.to_thread.run_sync(
                lambda: through.messages.create(**SMALL)
            )
            await measure(paths, answer.events)


async def measure(paths: dict[str, Path], events: int) -> None:
    """Print CPU and wall time per call, and the ratios to `create()` on the same HTTP client."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for path in paths.values():
        for _ in range(3):
            await path()
    for _ in range(ROUNDS):
        for name in random.sample(list(paths), len(paths)):
            gc.collect()
            began, at = time.process_time(), time.perf_counter()
            for _ in range(CALLS):
                await paths[name]()
            spent[name].append(((time.process_time() - began) / CALLS, (time.perf_counter() - at) / CALLS))
    print(f"\na {len(ANSWER)}-character answer, {events} events, {ROUNDS} rounds of {CALLS} calls one after the other")
    width = max(map(len, paths))
    print(f"{'':>{width}} {'CPU ms':>8} {'wall ms':>8} {'x CPU':>7} {'+ CPU ms':>9}   of create() on the same client")
    for name, times in spent.items():
        base = spent["create(), " + name.rpartition(", ")[2]]
        cpu, wall = (statistics.median(one) for one in zip(*times, strict=True))
        times_cpu = statistics.median(one[0] / other[0] for one, other in zip(times, base, strict=True))
        more = statistics.median(one[0] - other[0] for one, other in zip(times, base, strict=True))
        print(f"{name:>{width}} {cpu * 1e3:>8.2f} {wall * 1e3:>8.2f} {times_cpu:>7.2f} {more * 1e3:>+9.2f}")


def main() -> None:
    """Print the table."""
    on_one_core()
    print(machine())
    anyio.run(tables)
