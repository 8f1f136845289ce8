"""CPU of the client per wire event: the guarded doors beside the SDK's own stream, shuffled rounds in one run.

The server runs in a process of its own. Costs are `process_time` of this process. Ratios are per round, then the
median.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable

import anyio

from bench.documents import objects, pieces
from streamguard import load_policy, messages, run
from streamguard.runtime import Runtime
from streamguard.testing import wire
from streamguard.testing.scripted import Script
from streamguard.testing.server import ScriptedServer
from streamguard.testing.steps import gather, pace

ROUNDS = 12
REQUEST = {"model": "claude-haiku-5-5", "max_tokens": 64_000, "messages": [{"role": "user", "content": "Extract."}]}

Path = Callable[[], Awaitable[None]]


def answer(text: str, width: int, rate: float | None) -> list[object]:
    """The stream of one answer: burst, or paced at so many events a second."""
    frames = [wire.text_delta(piece) for piece in pieces(text, width)]
    middle = [gather(), *frames] if rate is None else [pace(rate), *frames, pace(None)]
    usage = {"output_tokens": len(text) // 3}
    end = [wire.block_stop(), wire.message_delta(usage=usage), wire.message_stop()]
    return [wire.message_start(), wire.block_start(), *middle, *end]


async def measure(paths: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each path in each round, in random order within a round."""
    spent: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        await path()
    for _ in range(rounds):
        for name in random.sample(list(paths), len(paths)):
            began = time.process_time()
            await paths[name]()
            spent[name].append(time.process_time() - began)
    return spent


async def compare(title: str, text: str, width: int, rate: float | None, rounds: int) -> None:
    """One table: µs of CPU per event of every door, and its ratio to plain iteration."""
    import anthropic

    events = len(pieces(text, width)) + 5
    core = 1 if (os.cpu_count() or 1) > 1 else None
    with ScriptedServer(Script.of(answer(text, width, rate))).in_process(core=core) as server:
        async with (
            anthropic.AsyncAnthropic(api_key="x", base_url=server.url, max_retries=0) as plain,
            anthropic.AsyncAnthropic(
                api_key="x", base_url=server.url, max_retries=0, http_client=anthropic.DefaultAioHttpClient()
            ) as faster,
        ):
            policy = load_policy("streamguard:extraction")
            runtime = Runtime()

            async def create() -> None:
                async with await plain.messages.create(**REQUEST, stream=True) as stream:
                    async for _ in stream:
                        pass

            async def helper() -> None:
                async with plain.messages.stream(**REQUEST) as stream:
                    async for _ in stream.text_stream:
                        pass

            async def guarded() -> None:
                outcome = await run(messages(plain, **REQUEST), policy=policy, runtime=runtime)
                assert outcome.completed in ("cut", "whole")

            async def guarded_faster() -> None:
                await run(messages(faster, **REQUEST), policy=policy, runtime=runtime)

            paths: dict[str, Path] = {
                "create(stream=True)": create,
                "messages.stream()": helper,
                "run(messages()), guarded": guarded,
                "the same on aiohttp": guarded_faster,
            }
            spent = await measure(paths, rounds)
    print(f"\n{title}: {events} events of {width} characters, {rounds} rounds")
    print(f"{'path':>28} {'µs/event':>9} {'x create':>9} {'x stream()':>11}")
    for name, times in spent.items():
        ratios = [a / b for a, b in zip(times, spent["create(stream=True)"], strict=True)]
        helpers = [a / b for a, b in zip(times, spent["messages.stream()"], strict=True)]
        cost = statistics.median(times) / events * 1e6
        print(f"{name:>28} {cost:>9.1f} {statistics.median(ratios):>9.2f} {statistics.median(helpers):>11.2f}")


async def tables() -> None:
    """All tables."""
    await compare("burst", objects(20_000), 4, None, ROUNDS)
    await compare("burst", objects(90_000), 100, None, ROUNDS)
    await compare("paced, 500 events a second", objects(4_000), 4, 500.0, 4)


def main() -> None:
    """Print the tables."""
    anyio.run(tables)
