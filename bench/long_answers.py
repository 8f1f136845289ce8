"""Long answers: tool input of 50 kB beside the SDK's own accumulation, and cost per event to a megabyte.

The SDK parses the whole input again with each of its deltas, so its cost per event grows with what has come. Ours is
flat: the last tenth of a stream costs what the first did.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import anyio
import httpx2

from bench import server
from bench.documents import ADVISORIES, advisories, one_string, pieces
from bench.doors import clients
from bench.harness import REQUEST, Path, extraction, machine, on_one_core, rounds, table
from streamguard import GuardMiddleware, messages, run
from streamguard.engine.runtime import Runtime
from streamguard.policy.model import Policy

TOOLS = [{"name": "record", "input_schema": ADVISORIES}]


async def tool_input(shape: str, text: str, schema: Any) -> None:
    """A tool call of 50 kB in 4-character deltas."""
    runtime = Runtime()
    answer = server.tool("record", pieces(text, 4))
    policy = extraction(schema, where="tools", trailing="reject", fence="reject")
    policy = policy.model_copy(
        update={"completion": policy.completion.model_copy(update={"accept": ("tool_use", "end_turn")})}
    )
    with server.serving({"a": answer}) as url:
        async with AsyncExitStack() as stack:
            paths: dict[str, Path] = {}
            for http, client in (await clients(stack, url + "/a")).items():
                request = {**REQUEST, "tools": TOOLS}
                guard = client.with_middleware(GuardMiddleware(policy, runtime=runtime))

                async def helper(client: Any = client, request: Any = request) -> None:
                    async with client.messages.stream(**request) as events:
                        await events.get_final_message()

                async def ours(client: Any = client, request: Any = request) -> None:
                    await run(messages(client, **request), policy=policy, runtime=runtime)

                paths |= {
                    f"messages.stream(), {http}": helper,
                    f"run(messages()), {http}": ours,
                    f"middleware create(), {http}": lambda client=guard, request=request: client.messages.create(
                        **request, timeout=600
                    ),
                }
            spent = await rounds(paths, 2)
    print(f"\ntool input, {shape}, {len(text):,} characters in {answer.events:,} events; ms of CPU per call")
    table({name: [one * 1e-3 for one in times] for name, times in spent.items()}, 1, "ms", *list(paths)[::3])


async def flatness(shape: str, text: str, policy: Policy) -> None:
    """CPU per event in each tenth of a long answer, read from memory: no socket in between."""
    answer = server.text(pieces(text, 4))
    read = max(1, (len(answer.frames) - 3) // 100)
    frames, marks = answer.frames[: 100 * read], [0.0]
    tenth = 10 * read

    async def body() -> AsyncIterator[bytes]:
        # As a socket gives them: many events to a read.
        for at in range(0, len(frames), read):
            yield b"".join(frames[at : at + read])
            if (at + read) % tenth == 0:
                marks.append(time.process_time())
        # The end, with its judgement of the whole, is in no tenth.
        yield b"".join(answer.frames[100 * read :])

    def respond(_: httpx2.Request) -> httpx2.Response:
        marks[:] = [time.process_time()]
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    async with anthropic.AsyncAnthropic(api_key="x", http_client=http) as client:
        best: list[float] = []
        for _ in range(2):
            await run(messages(client, **REQUEST), policy=policy)
            spent = [(later - earlier) / tenth * 1e6 for earlier, later in itertools.pairwise(marks)]
            best = spent if not best else [min(pair) for pair in zip(best, spent, strict=False)]
    print(
        f"{shape:>24} {len(text):>10,} {best[0]:>11.2f} {best[-1]:>10.2f} {best[-1] / best[0]:>11.2f}   "
        + " ".join(f"{one:.1f}" for one in best)
    )


async def tables() -> None:
    """All tables."""
    print(machine())
    await tool_input("records", advisories(50_000), ADVISORIES)
    await tool_input("one string", one_string(50_000), None)
    print("\ncost per event of a guarded answer in 4-character deltas, by tenths; µs of CPU per event")
    print(f"{'document':>24} {'characters':>10} {'first tenth':>11} {'last':>10} {'last/first':>11}   each tenth")
    for size in (100_000, 1_000_000):
        await flatness("records, with schema", advisories(size), extraction())
        await flatness("one string", one_string(size), extraction(None))


def main() -> None:
    """Print the tables."""
    on_one_core()
    anyio.run(tables)
