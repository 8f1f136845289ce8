"""Bedrock through every door: the SDK's own clients in front of AWS event streams on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from zipfile import ZipFile

import anthropic
import anyio
import anyio.to_thread
import pytest

from streamguard import GaveUp, GuardMiddleware, JsonDocument, Policy, Retry, Rule, api, messages, sync
from streamguard.testing import wire
from tests.adapters.aws.frames import HEAD, exception, of_sse
from tests.adapters.wire import CHUNKED as SSE
from tests.adapters.wire import END, RESET, Server, chunk, serving
from tests.data import path

botocore = pytest.importorskip("botocore", reason="the SDK's Bedrock clients need botocore: the extra `bedrock`")

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
REQUEST: dict[str, Any] = {
    "model": "anthropic.claude-x",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "x"}],
}
GOOD = of_sse(wire.text_stream('{"a": 1}', chunk=3))
BAD = of_sse(wire.text_stream('{"a": nope', chunk=3))
JSON = Policy(json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["json.*", "provider.*"])]))


def script(frames: list[bytes], *last: Any) -> list[Any]:
    return [CHUNKED, *map(chunk, frames), *(last or (END,))]


@asynccontextmanager
async def bedrock(*scripts: Any, **options: Any) -> AsyncIterator[tuple[Server, anthropic.AsyncAnthropicBedrock]]:
    async with (
        serving(lambda number: scripts[number]) as server,
        anthropic.AsyncAnthropicBedrock(
            api_key="bearer", aws_region="us-east-1", base_url=server.url, max_retries=0, **options
        ) as client,
    ):
        yield server, client


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_reads_the_stream(backend: str) -> None:
    """The first answer is rejected, the second accepted; the SDK rewrites the request each time."""

    async def main() -> None:
        async with bedrock(script(BAD), script(GOOD)) as (server, client):
            outcome = await api.run(messages(client, **REQUEST), policy=JSON)
            assert (outcome.text, outcome.completed, [one.reason for one in outcome.attempts]) == (
                '{"a": 1}',
                "whole",
                ["json.malformed", None],
            )
            assert outcome.attempts[0].request_id == "req_aws"
            assert type(outcome.message) is anthropic.types.Message
            assert all(b"anthropic_version" in body and b'"model"' not in body for body in server.requests)

    anyio.run(main, backend=backend)


def test_a_synchronous_client_works_through_threads_and_middleware() -> None:
    """`sync.run` by a twin; `create()` and its streams by the middleware."""

    async def main() -> None:
        async with serving(script(GOOD)) as server:

            def program() -> list[Any]:
                options: dict[str, Any] = {"api_key": "bearer", "aws_region": "us-east-1", "base_url": server.url}
                with anthropic.AnthropicBedrock(**options) as client:
                    text = sync.run(messages(client, **REQUEST), policy=JSON).text
                with anthropic.AnthropicBedrock(
                    **options, middleware=[GuardMiddleware(JSON, deliver="live")]
                ) as client:
                    whole: Any = client.messages.create(**REQUEST).content[0]
                    with client.messages.stream(**REQUEST) as stream:
                        streamed = stream.get_final_text()
                return [text, whole.text, streamed]

            assert await anyio.to_thread.run_sync(program) == ['{"a": 1}'] * 3

    anyio.run(main)


def test_the_middleware_guards_answers_and_streams() -> None:
    """`create()`, events equal to the SDK's own, and raw bytes as AWS sent them."""

    async def main() -> None:
        guard = GuardMiddleware(JSON, deliver="committed")
        async with bedrock(*[script(BAD), script(GOOD)] * 2, script(GOOD), script(GOOD), middleware=[guard]) as (
            _,
            client,
        ):
            answer: Any = (await client.messages.create(**REQUEST)).content[0]
            assert answer.text == '{"a": 1}'
            ours = [event async for event in await client.messages.create(**REQUEST, stream=True)]
            plain = client.copy(middleware=[])
            theirs = [event async for event in await plain.messages.create(**REQUEST, stream=True)]
            assert ours == theirs
            async with client.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
                assert b"".join([piece async for piece in response.iter_bytes()]) == b"".join(GOOD)

    anyio.run(main)


FAULTS = {
    "throttled": ([*GOOD[:3], exception("throttlingException", message="Slow down")], END, "provider.rate_limited"),
    "busy": ([exception("modelStreamErrorException", originalStatusCode=529)], END, "provider.overloaded"),
    "timeout": ([*GOOD[:3], exception("modelTimeoutException")], END, "provider.timeout"),
    "invalid": ([exception("validationException", message="no")], END, "provider.invalid_request"),
    "internal": ([*GOOD[:3], exception("internalServerException")], END, "provider.api_error"),
    "unavailable": ([*GOOD[:3], exception("serviceUnavailableException")], END, "provider.overloaded"),
    "broken": ([*GOOD[:3], GOOD[3][:-1] + b"\0"], END, "transport.decode"),
    "cut in a message": ([*GOOD[:3], GOOD[3][:40]], END, "transport.reset"),
    "cut between messages": (GOOD[:4], END, "transport.incomplete"),
    "reset": (GOOD[:4], RESET, "transport.reset"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str) -> None:
    """Every one by its cause, billed, since the answer had begun."""
    frames, last, reason = FAULTS[name]

    async def main() -> None:
        async with bedrock(script(frames, last)) as (_, client):
            with pytest.raises(GaveUp) as raised:
                await api.run(messages(client, **REQUEST), policy=Policy())
            assert raised.value.reason == reason

    anyio.run(main)


@pytest.mark.parametrize(
    ("status", "name", "reason"),
    [
        (429, "ThrottlingException:http://internal.amazon.com/coral/", "provider.rate_limited"),
        (429, "ModelNotReadyException", "provider.overloaded"),
        (424, "ModelErrorException", "provider.api_error"),
        (403, "AccessDeniedException", "provider.permission"),
        (400, "ValidationException", "provider.invalid_request"),
        (503, "ServiceUnavailableException", "provider.overloaded"),
    ],
)
def test_http_errors_are_named(status: int, name: str, reason: str) -> None:
    """By the header that has AWS's name of the exception; with AWS's id of the request."""
    body = json.dumps({"message": "words"}).encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nx-amzn-ErrorType: {name}\r\nx-amzn-RequestId: r1\r\n"
    )
    answer = [head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body]

    async def main() -> None:
        async with bedrock(answer) as (_, client):
            with pytest.raises(GaveUp, match="words") as raised:
                await api.run(messages(client, **REQUEST), policy=Policy())
            assert (raised.value.reason, raised.value.attempts[0].request_id) == (reason, "r1")

    anyio.run(main)


HEALTHY = ("reasoning", "text_json", "tool_noarg", "tool_par", "unknown_event")


@pytest.mark.parametrize("name", HEALTHY)
def test_recorded_streams_are_what_the_sdk_makes_of_them(name: str) -> None:
    """The message, its usage and stop reason."""
    with ZipFile(path("servers", "bedrock.zip")) as archive:
        body = archive.read(f"{name}.eventstream")

    async def main() -> None:
        async with bedrock(script([body]), script([body])) as (_, client):
            outcome = await api.run(messages(client, **REQUEST), policy=Policy())
            async with client.messages.stream(**REQUEST) as stream:
                theirs = await stream.get_final_message()
        assert outcome.message is not None
        assert outcome.message.to_dict() == anthropic.types.Message.construct(**theirs.to_dict()).to_dict()

    anyio.run(main)


def test_sse_from_a_bedrock_client_is_read_as_sse() -> None:
    """Gateways in front of Bedrock answer in the provider's own format: the response says which."""

    async def main() -> None:
        async with bedrock([SSE, *map(chunk, wire.text_stream('{"a": 1}')), END]) as (_, client):
            assert (await api.run(messages(client, **REQUEST), policy=JSON)).text == '{"a": 1}'

    anyio.run(main)
