"""The SDK as a source: whole streams, faults on the wire, closing, and requests as they are sent."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anthropic
import anyio
import httpx2
import pydantic
import pytest

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.source import AnthropicSource, messages, sdk_events
from streamguard.adapters.anthropic.stream import SdkStream, sdk_message
from streamguard.adapters.sse.decoder import Decoder
from streamguard.adapters.sse.read_ahead import IN_A_ROW
from streamguard.events import Event, Failed, Ping
from streamguard.request import Request
from streamguard.source import Attempt, Source, SourceFailed
from tests.adapters.wire import CHUNKED, END, Server, events, mocked, serving
from tests.data import path

SAMPLES = [
    "dropped_no_message_stop",
    "error_overloaded_midstream",
    "max_tokens_truncated",
    "text_json_answer",
    "thinking_text",
    "tool_use_fine_grained",
]
REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
FIRST = Attempt(number=1, request=None, deadline=math.inf)
SMALL = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b": a comment\n\n"
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":2}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
# Where the SDK raises in mid-stream it leaves a generator of its own to the garbage collector, which trio tells.
SDK_LEAVES_ONE = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
ON_BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def decoded(stream: bytes) -> list[Event]:
    return Translator().translate(Decoder().feed(stream))


def client(http: Any = None, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"api_key": "sk-ant-test-key", "http_client": http, **options})


async def read(source: Any, attempt: Attempt = FIRST) -> tuple[list[list[Event]], Any]:
    """Every batch of an attempt, and its message."""
    async with source.open(attempt) as stream:
        return [list(batch) async for batch in stream], stream.message()


def flat(batches: Sequence[Sequence[Event]]) -> list[Event]:
    return [event for batch in batches for event in batch]


@asynccontextmanager
async def against(
    script: Any, *, aiohttp: bool = False, **options: Any
) -> AsyncIterator[tuple[Server, AnthropicSource]]:
    """A source that asks a server of raw bytes."""
    http = anthropic.DefaultAioHttpClient() if aiohttp else None
    async with serving(script) as server, client(http, base_url=server.url, **options) as sdk:
        yield server, messages(sdk, **REQUEST)


def sdk_final(stream: bytes) -> dict[str, Any]:
    """The message that the SDK itself makes of a stream, without parsed outputs."""

    async def main() -> dict[str, Any]:
        async with client(mocked(stream)) as sdk, sdk.messages.stream(**REQUEST) as opened:
            with suppress(anthropic.APIStatusError):
                await opened.until_done()
            dumped: dict[str, Any] = opened.current_message_snapshot.model_dump()
        for block in dumped["content"]:
            block.pop("parsed_output", None)
        return dumped

    return anyio.run(main)


# Whole streams


@ON_BOTH
@pytest.mark.parametrize("name", SAMPLES)
def test_a_recorded_stream_gives_its_events_and_the_sdks_own_message(name: str, backend: str) -> None:
    """A sample's events come through unchanged, and the message is the SDK's; a cut tool input never looks whole."""
    stream = path("sse", f"{name}.sse").read_bytes()

    theirs = sdk_final(stream)

    async def main() -> None:
        async with client(mocked([stream[at : at + 300] for at in range(0, len(stream), 300)])) as sdk:
            batches, message = await read(messages(sdk, **REQUEST))
        chunks = math.ceil(len(stream) / 300)
        assert len(batches) == chunks if backend == "trio" else min(chunks, IN_A_ROW) < len(batches) + 1 <= chunks + 1
        assert flat(batches) == decoded(stream)
        assert isinstance(message, anthropic.types.Message)
        ours = message.model_dump(warnings=False)
        if name == "dropped_no_message_stop":
            block = ours["content"][0]
            assert theirs["content"][0].pop("input") == {"path": "src/report.py", "mode": "create"}
            assert block["input"] == block["partial_json"]
            assert block.pop("input").startswith('{"path": ')
            assert block.pop("partial_json").startswith('{"path": "src/report.py", "mode": "create", "content": "imp')
        assert ours == theirs

    anyio.run(main, backend=backend)


USAGE = {"input_tokens": 1, "output_tokens": 2}
TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"content": [TEXT, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": [1, 2.5, None]}}]},
        {"content": [{"type": "thinking", "thinking": "a", "signature": "b"}, {**TEXT, "citations": None}]},
        {"content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}, "partial_json": "{"}]},
        {"usage": {**USAGE, "output_tokens_details": {"thinking_tokens": 3}, "new": {"a": 1}}},
        {"content": [{"type": "new_block", "some": "thing"}]},
        {"stop_reason": "new_reason"},
        {"usage": {**USAGE, "input_tokens": "1"}},
        {"usage": None, "content": [TEXT, None]},
        {"new": {"a": [1]}, "model": None},
    ],
)
def test_the_message_is_what_the_sdks_construct_makes(changed: dict[str, Any], beta: bool) -> None:
    """Whether this SDK knows all of it or not: class for class, field for field, and what is dumped of it."""
    kind: Any = anthropic.types.beta.BetaMessage if beta else anthropic.types.Message
    body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [TEXT], "usage": USAGE}
    body |= {"stop_reason": "end_turn", "stop_sequence": None} | changed

    def told(model: Any) -> Any:
        if isinstance(model, pydantic.BaseModel):
            return type(model), {name: told(value) for name, value in model}
        return [told(one) for one in model] if isinstance(model, list) else model

    ours, theirs = sdk_message(body, beta=beta), kind.construct(**body)
    assert told(ours) == told(theirs)
    assert ours == theirs
    assert ours.to_dict(warnings=False) == theirs.to_dict(warnings=False)


@ON_BOTH
@SDK_LEAVES_ONE
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("door", ["create", "stream"])
def test_the_sdks_own_stream_gives_the_same_events(name: str, door: str, backend: str) -> None:
    """Read through the SDK's event objects, a sample gives the same events, but for pings, and the same message."""
    stream = path("sse", f"{name}.sse").read_bytes()

    async def main() -> None:
        async with client(mocked(stream)) as sdk:
            if door == "create":
                async with sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
                    batches, message = [list(batch) async for batch in opened], opened.message()
                    assert opened.message() == message
            else:
                async with sdk.messages.stream(**REQUEST) as entered, sdk_events(entered) as opened:
                    batches, message = [list(batch) async for batch in opened], opened.message()
            _, whole = await read(messages(sdk, **REQUEST))
        assert flat(batches) == [event for event in decoded(stream) if not isinstance(event, Ping)]
        assert message.model_dump(warnings=False) == whole.model_dump(warnings=False)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("headers", "betas"),
    [
        ({}, ()),
        ({"Anthropic-Beta": "a,b"}, ("a,b",)),
        ({"X-Amzn-Bedrock-Service-Tier": "priority"}, ("x-amzn-bedrock-service-tier",)),
        ({"x-amzn-bedrock-performanceconfig-latency": "optimized"}, ("x-amzn-bedrock-performanceconfig-latency",)),
        ({"x-mine": "1"}, ()),
    ],
)
def test_what_headers_change_of_the_bill_goes_with_the_request(headers: dict[str, str], betas: tuple[str, ...]) -> None:
    """Beta features, and headers that choose a price: a bound that does not know them refuses them."""
    assert messages(client(), **REQUEST, extra_headers=headers).request.betas == betas
    assert messages(client(default_headers=headers), **REQUEST).request.betas == betas


@pytest.mark.parametrize(
    ("status", "body", "tokens"),
    [
        (200, {"input_tokens": 42}, 42),
        (200, {"input_tokens": 0}, None),
        (200, {"input_tokens": "many"}, None),
        (200, [], None),
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "no such route"}}, None),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, None),
    ],
)
@pytest.mark.parametrize("betas", [[], ["pdfs-2024-09-25"]])
def test_the_provider_counts_an_input(status: int, body: Any, tokens: int | None, betas: list[str]) -> None:
    """One free request with what the model reads; an endpoint that is missing or fails says nothing."""
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        return httpx2.Response(status, json=body)

    async def main() -> int | None:
        async with client(httpx2.AsyncClient(transport=httpx2.MockTransport(answer))) as sdk:
            given = REQUEST | {"temperature": 1.0} | ({"betas": betas} if betas else {})
            source = messages(sdk, **given)
            return await source.count_input(source.request)

    assert anyio.run(main) == tokens
    assert [one.url.path for one in seen] == ["/v1/messages/count_tokens"]
    assert json.loads(seen[0].content) == {"model": REQUEST["model"], "messages": REQUEST["messages"]}


def test_beta_requests_go_to_the_beta_endpoint_and_give_its_message() -> None:
    """`betas` chooses `client.beta.messages`: its query, its header, its message class."""
    seen: list[Any] = []

    async def main() -> Any:
        async with client(mocked(SMALL, seen=seen)) as sdk:
            return (await read(messages(sdk, **REQUEST, betas=["context-1m", "x"], mcp_servers=[])))[1]

    message = anyio.run(main)
    assert isinstance(message, anthropic.types.beta.BetaMessage)
    assert (seen[0].url.path, seen[0].headers["anthropic-beta"]) == ("/v1/messages", "context-1m,x")
    assert json.loads(seen[0].content) == {**REQUEST, "mcp_servers": [], "stream": True}


@ON_BOTH
@pytest.mark.parametrize("aiohttp", [False, True])
def test_each_read_is_a_batch_and_the_connection_is_used_again(backend: str, aiohttp: bool) -> None:
    """Over a socket: comments and pings are heard as batches, and a stream read to its end keeps its connection."""
    if aiohttp and backend == "trio":
        pytest.skip("aiohttp runs on asyncio only")

    async def main() -> None:
        async with against([CHUNKED, *events(SMALL), END], aiohttp=aiohttp) as (server, source):
            for _ in range(3):
                batches, message = await read(source)
                assert flat(batches) == decoded(SMALL)
                assert message.content[0].text == "Hi"
            assert (len(server.requests), server.connections) == (3, 1)

    anyio.run(main, backend=backend)


def test_a_comment_alone_is_an_empty_batch() -> None:
    """Bytes that are no event are a batch without events."""

    async def main() -> list[list[Event]]:
        async with client(mocked([b": keep-alive\n\n", b"event: ping\nda", b"ta: {}\n\n"])) as sdk:
            return (await read(messages(sdk, **REQUEST)))[0]

    assert anyio.run(main) == [[], [], [Ping()]]


def test_sources_are_sources() -> None:
    """Both doors are what the engine asks for; the type checker holds them to it in full."""
    source: Source = messages(client(mocked(SMALL)), **REQUEST)
    opened: Source = SdkStream(None)
    assert (source.sees_bytes, source.request) == (True, Request(REQUEST))
    assert (opened.sees_bytes, opened.request) == (False, None)


def test_a_middleware_that_answers_by_itself_is_named() -> None:
    """A middleware that hands back something of its own cannot be read as a stream, and the failure says so."""

    async def own(request: Any, call_next: Any) -> Any:
        return object()

    async def main() -> Failed:
        async with client(mocked(SMALL), middleware=[own]) as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
            return raised.value.failed

    failed = anyio.run(main)
    assert (failed.reason, "middleware" in failed.message) == ("source.error", True)


# Requests
