"""The seven clients of the SDK: each platform's through `run()`, and through the middleware with and without a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import anyio
import httpx2
import pytest

from streamguard import GuardMiddleware, JsonDocument, Policy, api, messages
from streamguard.adapters.aws.event_stream import CONTENT_TYPE as AWS_STREAM
from streamguard.testing import wire
from tests.adapters.aws.frames import of_sse
from tests.adapters.wire import mocked

REQUEST: dict[str, Any] = {"model": "claude-x", "max_tokens": 99, "messages": [{"role": "user", "content": "x"}]}
GOOD = wire.text_stream('{"a": 1}', chunk=3)
POLICY = Policy(json=JsonDocument())


async def _token() -> str:
    return "t"


GOOGLE = {"region": "us-east1", "access_token": "t", "project_id": "p"}
CLIENTS: dict[str, tuple[dict[str, Any], str]] = {
    "AsyncAnthropic": ({"api_key": "k"}, "/v1/messages"),
    "AsyncAnthropicAWS": (
        {"api_key": "k", "aws_region": "us-east-1", "workspace_id": "wrkspc_1"},
        "/v1/messages",
    ),
    "AsyncAnthropicBedrock": (
        {"api_key": "k", "aws_region": "us-east-1"},
        "/model/claude-x/invoke-with-response-stream",
    ),
    "AsyncAnthropicBedrockMantle": ({"api_key": "k", "aws_region": "us-east-1"}, "/anthropic/v1/messages"),
    "AsyncAnthropicFoundry": ({"api_key": "k", "resource": "r"}, "/anthropic/v1/messages"),
    "AsyncAnthropicGoogleCloud": (
        {"token_provider": _token, "project": "p", "location": "us-east1", "workspace_id": "w"},
        "/v1/projects/p/locations/us-east1/workspaces/w/invoke/v1/messages",
    ),
    "AsyncAnthropicVertex": (
        GOOGLE,
        "/v1/projects/p/locations/us-east1/publishers/anthropic/models/claude-x:streamRawPredict",
    ),
}
"""Name → its arguments, and the path that it asks."""


def client(name: str, seen: list[Any]) -> Callable[..., Any]:
    """Makes a client whose every answer is the same stream, in its platform's own format."""
    kind = getattr(anthropic, name, None)
    if kind is None:
        pytest.skip(f"this version of the SDK has no {name}")
    binary = name == "AsyncAnthropicBedrock"
    content = b"".join(of_sse(GOOD) if binary else GOOD)
    headers = {"content-type": AWS_STREAM} if binary else None
    http = mocked(content, headers=headers, seen=seen)
    return lambda **more: kind(**CLIENTS[name][0], http_client=http, max_retries=0, **more)


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_is_read_and_guarded(name: str) -> None:
    """The answer by each door, and the request where the platform wants it."""

    async def main() -> None:
        seen: list[Any] = []
        make = client(name, seen)
        outcome = await api.run(messages(make(), **REQUEST), policy=POLICY)
        assert (outcome.value, outcome.completed) == ({"a": 1}, "whole")
        sdk = make(middleware=[GuardMiddleware(POLICY, deliver="committed")])
        answer: Any = (await sdk.messages.create(**REQUEST)).content[0]
        assert answer.text == '{"a": 1}'
        async with sdk.messages.stream(**REQUEST) as stream:
            assert await stream.get_final_text() == '{"a": 1}'
        assert [request.url.path for request in seen] == [CLIENTS[name][1]] * 3

    anyio.run(main)


@pytest.mark.parametrize("name", CLIENTS)
def test_every_synchronous_client_is_guarded(name: str) -> None:
    """By the middleware: a message, and a stream."""
    kind = getattr(anthropic, name.removeprefix("Async"), None)
    if kind is None:
        pytest.skip(f"this version of the SDK has no {name}")
    binary = name == "AsyncAnthropicBedrock"
    content, paths = b"".join(of_sse(GOOD) if binary else GOOD), []

    def answer(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.path)
        return httpx2.Response(
            200, headers={"content-type": AWS_STREAM if binary else "text/event-stream"}, content=iter([content])
        )

    given = {key: (lambda: "t") if value is _token else value for key, value in CLIENTS[name][0].items()}
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    guard = GuardMiddleware(POLICY, deliver="committed")
    with kind(**given, http_client=http, max_retries=0, middleware=[guard]) as sdk:
        assert sdk.messages.create(**REQUEST).content[0].text == '{"a": 1}'
        with sdk.messages.stream(**REQUEST) as stream:
            assert stream.get_final_text() == '{"a": 1}'
    assert paths == [CLIENTS[name][1]] * 2


def test_the_list_is_the_sdks() -> None:
    """A client that the SDK gets later is noticed."""
    found = {name for name in dir(anthropic) if name.startswith("AsyncAnthropic")}
    assert found <= set(CLIENTS)
