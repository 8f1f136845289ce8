"""CPU per event of a Bedrock stream: the SDK's own decoder against ours, in one process, as a ratio.

python -m bench.bedrock
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anthropic
import httpx2

from streamguard import Policy, messages, run
from streamguard.adapters.aws.event_stream import CONTENT_TYPE
from streamguard.testing import wire
from tests.adapters.aws.frames import of_sse

EVENTS, ROUNDS, PIECE = 2000, 7, 4096
REQUEST = {"model": "m", "max_tokens": 9999, "messages": [{"role": "user", "content": "x"}]}


def client() -> anthropic.AsyncAnthropicBedrock:
    """A client whose every answer is the same long stream."""
    body = b"".join(of_sse(wire.text_stream("abcd" * EVENTS, chunk=4)))

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]

    def answer(request: httpx2.Request) -> httpx2.Response:  # noqa: ARG001
        return httpx2.Response(200, headers={"content-type": CONTENT_TYPE}, content=pieces())

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return anthropic.AsyncAnthropicBedrock(api_key="x", aws_region="us-east-1", http_client=http)


async def main() -> None:
    """Measure, and print µs per event and the ratio."""
    sdk = client()

    async def plain() -> None:
        async for _ in await sdk.messages.create(**REQUEST, stream=True):
            pass

    async def guarded() -> None:
        await run(messages(sdk, **REQUEST), policy=Policy())

    async def cpu(program: Callable[[], Awaitable[None]]) -> float:
        best = float("inf")
        for _ in range(ROUNDS):
            began = time.process_time()
            await program()
            best = min(best, time.process_time() - began)
        return best / EVENTS * 1e6

    theirs, ours = await cpu(plain), await cpu(guarded)
    print(f"SDK create(stream=True) {theirs:.1f} µs an event, run(messages()) {ours:.1f} µs: {ours / theirs:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
