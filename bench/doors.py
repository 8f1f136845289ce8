"""CPU of the client per wire event: every guarded door beside the SDK's own streams, in one run.

Guarded is the shipped extraction policy with all its guards and the advisory schema. Burst is pure software cost:
hundreds of events per socket read. Paced is one event per read, as a live stream comes; waking up costs most there.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any

import anthropic
import anyio

from bench import server
from bench.documents import advisories, pieces
from bench.harness import REQUEST, Path, extraction, machine, on_one_core, rounds, table
from bench.peers_prefix import advisory_model
from streamguard import GuardMiddleware, guarded, messages, run, stream
from streamguard.engine.runtime import Runtime
from streamguard.policy.model import Policy

CREATE, HELPER = "create(stream=True)", "messages.stream()"


async def clients(stack: AsyncExitStack, url: str) -> dict[str, anthropic.AsyncAnthropic]:
    """The SDK's client on its default HTTP client, and on aiohttp where that is installed."""
    kinds: dict[str, Any] = {"httpx2": anthropic.DefaultAsyncHttpxClient}
    with suppress(ImportError):
        import aiohttp  # noqa: F401

        kinds["aiohttp"] = anthropic.DefaultAioHttpClient
    return {
        name: await stack.enter_async_context(
            anthropic.AsyncAnthropic(api_key="x", base_url=url, max_retries=0, http_client=kind())
        )
        for name, kind in kinds.items()
    }


def paths(client: anthropic.AsyncAnthropic, policy: Policy, http: str) -> dict[str, Path]:
    """Every way to read one answer with a client."""
    runtime = Runtime()
    live = policy.model_copy(update={"deliver": "live"})
    through = client.with_middleware(GuardMiddleware(policy, runtime=runtime, deliver="live"))

    async def bytes_only() -> None:
        async with client.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
            async for _ in response.http_response.aiter_bytes():
                pass

    async def create(client: anthropic.AsyncAnthropic = client) -> None:
        async with await client.messages.create(**REQUEST, stream=True) as events:
            async for _ in events:
                pass

    async def helper(client: anthropic.AsyncAnthropic = client) -> None:
        async with client.messages.stream(**REQUEST) as events:
            async for _ in events.text_stream:
                pass

    async def ours() -> None:
        await run(messages(client, **REQUEST), policy=policy, runtime=runtime)

    async def ours_streaming() -> None:
        async with stream(messages(client, **REQUEST), policy=live, runtime=runtime) as events:
            while await events.batch() is not None:
                pass

    async def around() -> None:
        from streamguard.guards.timeouts import Timeouts

        opened = await client.messages.create(**REQUEST, stream=True)
        timeouts = Timeouts(**{**live.timeouts.model_dump(), "alive": None})
        async with guarded(opened, policy=live.model_copy(update={"timeouts": timeouts}), runtime=runtime) as events:
            while await events.batch() is not None:
                pass

    found: dict[str, Path] = {
        "bytes only": bytes_only,
        CREATE: create,
        HELPER: helper,
        "run(messages())": ours,
        "stream(messages())": ours_streaming,
        "guarded(create())": around,
        "middleware create(stream=True)": lambda: create(through),
        "middleware messages.stream()": lambda: helper(through),
        "middleware create()": lambda: through.messages.create(**REQUEST, timeout=600),
    }
    if http != "httpx2":
        for name in ("guarded(create())", "middleware messages.stream()"):
            del found[name]
        return {f"{name}, {http}": path for name, path in found.items()}
    return found


def peers(client: anthropic.AsyncAnthropic) -> dict[str, Path]:
    """What else reads a record from a stream, where it is installed: instructor, a partial model with each delta."""
    try:
        import instructor
    except ImportError:
        return {}
    import pydantic

    model = pydantic.create_model("Advisories", advisories=(list[advisory_model()], ...))  # type: ignore[misc]
    patched: Any = instructor.from_anthropic(client, mode=instructor.Mode.ANTHROPIC_JSON)

    async def partial() -> None:
        async for _ in patched.messages.create_partial(**REQUEST, response_model=model):
            pass

    return {"instructor create_partial()": partial}


async def compare(title: str, answer: server.Answer, policy: Policy, count: int, *, beside: bool = False) -> None:
    """One table. `beside`: with peers, who parse all that has come with each delta, and so want a short answer."""
    with server.serving({"a": answer}) as url:
        async with AsyncExitStack() as stack:
            every: dict[str, Path] = {}
            for http, client in (await clients(stack, url + "/a")).items():
                every |= paths(client, policy, http)
                if beside and http == "httpx2":
                    every |= peers(client)
            spent = await rounds(every, count)
    print(f"\n{title}: {answer.events} events, {count} rounds; µs of CPU per event")
    table(spent, answer.events, "µs/event", CREATE, HELPER)


async def tables() -> None:
    """All tables."""
    policy = extraction()
    print(machine())
    await compare("burst, 4 characters", server.text(pieces(advisories(20_000), 4)), policy, 8)
    await compare("burst, 100 characters", server.text(pieces(advisories(200_000), 100)), policy, 8)
    await compare(
        "burst, 4 characters, a short answer", server.text(pieces(advisories(1_500), 4)), policy, 20, beside=True
    )
    few, many = advisories(2_400), advisories(60_000)
    await compare("paced 1000/s, 4 characters", server.text(pieces(few, 4), 1000.0), policy, 4)
    await compare("paced 1000/s, 100 characters", server.text(pieces(many, 100), 1000.0), policy, 4)


def main() -> None:
    """Print the tables."""
    on_one_core()
    anyio.run(tables)
