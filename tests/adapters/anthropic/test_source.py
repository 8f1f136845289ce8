"""The SDK as a source: whole streams, faults on the wire, closing, and requests as they are sent."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import zlib
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
from streamguard.adapters.anthropic.stream import SdkStream, _message
from streamguard.adapters.sse.content_encoding import STEP
from streamguard.adapters.sse.decoder import Decoder
from streamguard.adapters.sse.read_ahead import IN_A_ROW
from streamguard.errors import ConfigError
from streamguard.events import BlockStarted, Delta, Event, Failed, Metered, Ping, Started, Stopped, Usage
from streamguard.request import Request
from streamguard.source import Attempt, Source, SourceFailed
from tests.adapters.wire import CHUNKED, CLOSE, END, HANG, HEAD, RESET, Server, chunk, events, gzipped, mocked, serving
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

    ours, theirs = _message(body, beta=beta), kind.construct(**body)
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


def sent(request: dict[str, Any], *, patched: dict[str, Any] | None = None, **options: Any) -> httpx2.Request:
    """The request as it goes out."""
    seen: list[httpx2.Request] = []

    async def main() -> None:
        async with client(mocked(SMALL, seen=seen), **options) as sdk:
            source = messages(sdk, **request)
            attempt = FIRST
            if patched is not None:
                attempt = Attempt(number=2, request=source.request.patched(patched), deadline=math.inf)
            await read(source, attempt)

    anyio.run(main)
    return seen[0]


def test_the_body_is_the_request_and_the_sdks_options_stay_out_of_it() -> None:
    """Headers, query and time-outs are the SDK's; `extra_body` is merged; what was omitted is left out."""
    request = sent(
        {
            **REQUEST,
            "messages": iter([{"role": "user", "content": ({"type": "text", "text": t} for t in "ab")}]),
            "system": anthropic.omit,
            "top_k": 5,
            "extra_body": {"max_tokens": 7, "own_field": [1]},
            "extra_headers": {"x-own": "1"},
            "extra_query": {"q": "2"},
            "timeout": 30,
        }
    )
    assert json.loads(request.content) == {
        "model": "m",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        "top_k": 5,
        "own_field": [1],
        "stream": True,
    }
    assert (request.headers["x-own"], request.url.query) == ("1", b"q=2")
    assert request.headers["accept-encoding"] == "identity"
    assert request.extensions["timeout"] == {"connect": 30, "read": 30, "write": 30, "pool": 30}


def test_without_a_time_out_of_its_own_a_request_has_none() -> None:
    """The engine's clocks are the only ones, and the SDK does not retry."""
    request = sent(REQUEST)
    assert request.extensions["timeout"] == {"connect": None, "read": None, "write": None, "pool": None}


def test_a_patched_request_may_have_fields_the_sdk_does_not_know() -> None:
    """An attempt sends its own request: patched fields, unknown ones included, and none that was removed."""
    request = sent(
        {**REQUEST, "stop_sequences": ["x"]},
        patched={
            "temperature": 0.2,
            "max_tokens": {"multiply": 2},
            "stop_sequences": None,
            "metadata": {"user_id": "u"},
        },
    )
    assert json.loads(request.content) == {
        **REQUEST,
        "max_tokens": 18,
        "temperature": 0.2,
        "metadata": {"user_id": "u"},
        "stream": True,
    }


def test_blocks_of_an_earlier_answer_can_be_sent_back() -> None:
    """The SDK's own models in a request become what the SDK would send."""
    earlier = anthropic.types.Message.construct(content=[{"type": "text", "text": "Hi", "citations": None}])
    request = sent({**REQUEST, "messages": [{"role": "assistant", "content": earlier.content}]})
    assert json.loads(request.content)["messages"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Hi", "citations": None}]}
    ]


@pytest.mark.parametrize(
    ("request_", "pointers"),
    [
        ({}, ["/model", "/max_tokens", "/messages"]),
        ({**REQUEST, "stream": True}, ["/stream"]),
        ({**REQUEST, "max_tokens": "9"}, ["/max_tokens"]),
        ({**REQUEST, "max_tokens": True}, ["/max_tokens"]),
        ({**REQUEST, "model": None, "extra_body": {"stream": False}}, ["/model", "/stream"]),
        ({**REQUEST, "output_format": dict}, ["/output_format"]),
        ({**REQUEST, "beta": False, "betas": ["x"]}, ["/betas"]),
    ],
)
def test_a_request_that_cannot_be_used_is_refused_at_once(request_: dict[str, Any], pointers: list[str]) -> None:
    """Every mistake of a request is found when the source is made."""
    with pytest.raises(ConfigError) as raised:
        messages(client(mocked(SMALL)), **request_)
    assert [problem.pointer for problem in raised.value.problems] == pointers


def test_an_open_file_cannot_be_sent_again(tmp_path: Any) -> None:
    """A value that can be read once only is refused, since an attempt may not be the last."""
    (tmp_path / "x").write_bytes(b"x")
    with (tmp_path / "x").open("rb") as file, pytest.raises(ConfigError, match="cannot be sent again"):
        messages(client(mocked(SMALL)), **{**REQUEST, "messages": [{"content": file}]})


@pytest.mark.parametrize(
    ("unusable", "problem"),
    [
        (lambda: object(), "no client of the anthropic SDK"),
        (lambda: anthropic.Anthropic(api_key="k", http_client=httpx2.Client()), "`http_client=`"),
        (lambda: anthropic.Anthropic(api_key="k", middleware=[lambda request, call_next: None]), "middleware"),
    ],
)
def test_a_client_that_cannot_be_used_is_refused_at_once(unusable: Any, problem: str) -> None:
    """Clients whose settings would be lost are refused with what to do instead."""
    with pytest.raises(ConfigError, match=problem):
        messages(unusable(), **REQUEST)


def test_a_client_without_credentials_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No key is found before anything is sent, unless a header has one."""
    for name in ("API_KEY", "AUTH_TOKEN", "PROFILE", "CONFIG_DIR", "IDENTITY_TOKEN", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with pytest.raises(ConfigError, match="no credentials"):
        messages(anthropic.AsyncAnthropic(), **REQUEST)
    messages(anthropic.AsyncAnthropic(default_headers={"Authorization": "Bearer x"}), **REQUEST)


def test_importing_the_adapter_does_not_import_the_sdk() -> None:
    """The SDK's second of import time is paid by who has a client."""
    code = "import sys, streamguard.adapters.anthropic; print({'anthropic', 'httpx2', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Clients of other loops


@ON_BOTH
def test_an_isolated_source_has_a_pool_of_its_own(backend: str) -> None:
    """Attempts of an isolated source share one connection, which is closed at exit."""

    async def main() -> None:
        async with against([CHUNKED, *events(SMALL), END]) as (server, source):
            async with source.isolated() as own:
                assert flat((await read(own))[0]) == decoded(SMALL)
                await read(own)
                assert server.connections == 1
                await read(source)
                assert (server.connections, server.eof.is_set()) == (2, False)
            with anyio.fail_after(5):
                await server.eof.wait()
            assert own.request == source.request

    anyio.run(main, backend=backend)


@ON_BOTH
def test_a_synchronous_client_is_asked_through_an_asynchronous_twin(backend: str) -> None:
    """The twin has the client's address, credentials, headers and query; isolated, its attempts share a connection."""

    async def main() -> list[bytes]:
        async with serving([CHUNKED, *events(SMALL), END]) as server:
            with anthropic.Anthropic(
                auth_token="tok", base_url=server.url, default_headers={"X-Team": "7"}, default_query={"a": "b"}
            ) as sync:
                source = messages(sync, **REQUEST)
                assert flat((await read(source))[0]) == decoded(SMALL)
                async with source.isolated() as own:
                    await read(own)
                    await read(own)
            assert server.connections == 2
            return server.requests

    for request in anyio.run(main, backend=backend):
        head = request.lower()
        assert b"post /v1/messages?a=b " in head
        assert b"\r\nauthorization: bearer tok\r\n" in head
        assert b"\r\nx-team: 7\r\n" in head
        assert b"\r\nx-stainless-async: async:" + backend.encode() in head
        assert b"\r\nuser-agent: asyncanthropic/" in head


def test_a_client_with_an_http_client_of_its_own_says_how_to_make_another() -> None:
    """Connections of an own HTTP client cannot move to another loop: the caller gives a way to make another."""

    async def main() -> None:
        async with client(mocked(SMALL)) as sdk:
            with pytest.raises(ConfigError, match="pass `http_client=`"):
                async with messages(sdk, **REQUEST).isolated():
                    pass
            async with messages(sdk, http_client=lambda: mocked(SMALL), **REQUEST).isolated() as own:
                assert flat((await read(own))[0]) == decoded(SMALL)

    anyio.run(main)


# Refusals before the stream


REFUSALS = [
    pytest.param(
        429,
        {"retry-after": "7", "request-id": "req_h"},
        {"error": {"type": "rate_limit_error", "message": "slow down"}},
        {"reason": "provider.rate_limited", "type": "rate_limit_error", "retry_after": 7.0, "request_id": "req_h"},
        id="rate-limit",
    ),
    pytest.param(
        429,
        {},
        {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
        {"reason": "provider.spend_limit", "type": "rate_limit_error", "code": "enforced_spend_limit_reached"},
        id="spend-limit",
    ),
    pytest.param(
        400,
        {},
        {"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}},
        {"reason": "provider.spend_limit", "type": "invalid_request_error"},
        id="usage-limits",
    ),
    pytest.param(
        401,
        {},
        {"error": {"type": "authentication_error", "message": "invalid x-api-key"}},
        {"reason": "provider.authentication", "type": "authentication_error"},
        id="key",
    ),
    pytest.param(
        529,
        {"retry-after-ms": "1500", "retry-after": "9"},
        {"error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"reason": "provider.overloaded", "type": "overloaded_error", "retry_after": 1.5},
        id="overloaded",
    ),
    pytest.param(
        500,
        {},
        {"error": {"code": 500, "message": "boom", "type": "server_error"}},
        {"reason": "provider.api_error", "type": "server_error", "billable": True},
        id="llama-cpp",
    ),
    pytest.param(502, {}, "<html>bad gateway</html>", {"reason": "provider.api_error", "billable": True}, id="html"),
    pytest.param(503, {}, "", {"reason": "provider.overloaded", "billable": True}, id="empty"),
    pytest.param(
        413,
        {},
        {"error": {"type": "request_too_large"}},
        {"reason": "provider.request_too_large", "type": "request_too_large"},
        id="413",
    ),
]


@ON_BOTH
@pytest.mark.parametrize(("status", "headers", "body", "expected"), REFUSALS)
def test_an_error_status_is_classified(
    status: int, headers: dict[str, str], body: Any, expected: dict[str, Any], backend: str
) -> None:
    """A refusal has its reason, its wait, and whether it may be billed; it is asked once only."""
    seen: list[Any] = []
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def main() -> Failed:
        async with client(mocked(content, status=status, headers=headers, seen=seen), max_retries=5) as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
            return raised.value.failed

    failed = anyio.run(main, backend=backend)
    facts = {name: getattr(failed, name) for name in failed.__struct_fields__ if name != "message"}
    assert facts == {
        "limits": None,
        "type": None,
        "status": status,
        "code": None,
        "retry_after": None,
        "request_id": None,
        "sent": True,
        "billable": False,
        **expected,
    }
    assert len(seen) == 1


@ON_BOTH
@pytest.mark.parametrize(
    ("content_type", "body", "reason", "message"),
    [
        ("text/html", b"<html>challenge sk-ant-api03-secretsecret</html>" * 999, "transport.decode", "text/html"),
        ("application/json", b'{"error":{"code":500,"message":"m","type":"server_error"}}', "provider.api_error", "m"),
        ("application/json", b'{"id":"msg_1","content":[]}', "transport.decode", "application/json"),
        ("application/json", b'{"error":"who knows"}', "provider.api_error", "who knows"),
    ],
)
def test_an_answer_that_is_no_event_stream(
    content_type: str, body: bytes, reason: str, message: str, backend: str
) -> None:
    """A 200 of another content type fails at once, with a bounded excerpt without secrets."""

    async def main() -> Failed:
        async with client(mocked(body, headers={"content-type": content_type})) as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
            return raised.value.failed

    failed = anyio.run(main, backend=backend)
    assert (failed.reason, failed.status) == (reason, 200)
    assert message in failed.message
    assert len(failed.message) < 5000
    assert "secret" not in failed.message


# Faults on the wire


PIECES = events(SMALL)
GZIP = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
FAULTS = [
    pytest.param([CHUNKED, *PIECES[:3], CLOSE], "transport.reset", True, id="FIN-without-final-chunk"),
    pytest.param([CHUNKED, *PIECES[:3], RESET], "transport.reset", True, id="RST"),
    pytest.param([HEAD + b"Content-Length: 9999\r\n\r\n", SMALL, CLOSE], "transport.reset", True, id="short-body"),
    pytest.param([CHUNKED, *PIECES[:3], b"zz\r\n", CLOSE], "transport.reset", True, id="broken-chunk"),
    pytest.param([CHUNKED, *PIECES[:3], END], None, True, id="clean-end-is-no-fault-of-the-transport"),
    pytest.param([HEAD + b"Connection: close\r\n\r\n", SMALL[:400], CLOSE], None, True, id="end-by-close"),
    pytest.param([CHUNKED, END], None, True, id="no-bytes-at-all"),
    pytest.param([CHUNKED, *PIECES[:2], chunk(b"data: {nope}\n\n"), HANG], "transport.decode", True, id="no-JSON"),
    pytest.param([CHUNKED, chunk(b"data: \xff\n\n"), HANG], "transport.decode", True, id="no-UTF-8"),
    pytest.param(
        [CHUNKED, chunk(b"data: " + b"x" * 1_100_000) * 16, HANG], "transport.event_too_large", True, id="endless"
    ),
    pytest.param([GZIP, chunk(gzipped(SMALL)[:-9]), END], "transport.decode", True, id="gzip-cut"),
    pytest.param([GZIP, chunk(gzipped(SMALL)[:10] + b"\x07"), HANG], "transport.decode", True, id="gzip-corrupt"),
    pytest.param([GZIP, chunk(b"no gzip at all"), HANG], "transport.decode", True, id="no-gzip"),
    pytest.param([CLOSE], "transport.reset", False, id="closed-before-the-head"),
    pytest.param([RESET], "transport.reset", False, id="reset-before-the-head"),
    pytest.param([b"HTTP/1.1 2", CLOSE], "transport.reset", False, id="half-a-head"),
    pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE], "transport.reset", False, id="no-HTTP"),
]


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
@pytest.mark.parametrize(("script", "reason", "in_stream"), FAULTS)
def test_faults_on_the_wire_are_named(
    script: list[Any], reason: str | None, in_stream: bool, backend: str, aiohttp: bool
) -> None:
    """Every break ends the attempt in one `Failed`, before the stream or as its last event; nothing hangs."""
    if aiohttp and b"zz\r\n" in script:
        pytest.skip("aiohttp waits on after a broken chunk: a clock has to end that")

    async def main() -> Failed | None:
        async with against(script, aiohttp=aiohttp) as (_, source):
            with anyio.fail_after(10):
                try:
                    batches, _ = await read(source)
                except SourceFailed as raised:
                    assert not in_stream
                    return raised.failed
                assert in_stream
                found = [event for event in flat(batches) if isinstance(event, Failed)]
                assert found == flat(batches)[-1:] if reason else found == []
                return found[0] if found else None

    failed = anyio.run(main, backend=backend)
    assert (failed.reason if failed else None) == reason
    if failed is not None:
        assert (failed.sent, failed.billable) == (True, True)
        assert (failed.status, failed.request_id) == ((200, "req_wire") if in_stream else (None, None))


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
def test_no_connection_means_nothing_was_sent(backend: str, aiohttp: bool) -> None:
    """A refused connection and an unknown host are `transport.connect`: never sent, never billed."""

    async def main() -> Failed:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        await listener.aclose()
        http = anthropic.DefaultAioHttpClient() if aiohttp else None
        async with client(http, base_url=f"http://127.0.0.1:{port}") as sdk:
            with pytest.raises(SourceFailed) as raised:
                await read(messages(sdk, **REQUEST))
        return raised.value.failed

    failed = anyio.run(main, backend=backend)
    assert (failed.reason, failed.status, failed.sent, failed.billable) == ("transport.connect", None, False, False)


@ON_BOTH
@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "x-gzip"}, {}])
def test_a_compressed_stream_reads_like_a_plain_one(headers: dict[str, str], backend: str) -> None:
    """gzip in small pieces, in two members and with a great expansion gives the stream's own events."""
    long = SMALL.replace(b'"Hi"', b'"' + b"x" * 900_000 + b'"')
    middle = len(long) // 2

    async def main() -> None:
        for stream, members in ((SMALL, [SMALL]), (long, [long]), (long, [long[:middle], long[middle:]])):
            body = b"".join(map(gzipped, members)) if headers else stream
            pieces = [body[at : at + 97] for at in range(0, len(body), 97)]
            async with client(mocked(pieces, headers=headers)) as sdk:
                batches, message = await read(messages(sdk, **REQUEST))
            assert flat(batches) == decoded(stream)
            assert message.stop_reason == "end_turn"

    anyio.run(main, backend=backend)


def test_a_flushed_block_comes_whole_before_the_next_read() -> None:
    """Compressed events that a server has flushed are given out without waiting for more bytes, however long."""
    size = 2 * STEP
    for length in (size - 1, size, size + 1):
        stream = (b": " + b"x" * 97 + b"\n\n") * (length // 101 + 1) + SMALL
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        flushed = compressor.compress(stream[-length:]) + compressor.flush(zlib.Z_SYNC_FLUSH)

        async def main(script: Sequence[Any]) -> list[Event]:
            async with against(script) as (_, source), source.open(FIRST) as opened:
                events: list[Event] = []
                with anyio.fail_after(5):
                    while Stopped("end_turn") not in events:
                        events += await anext(opened)
                return events

        assert anyio.run(main, [GZIP, chunk(flushed), HANG]) == decoded(stream[-length:])


def test_a_sdk_stream_of_a_beta_request_gives_its_message() -> None:
    """The events' own classes tell which of the SDK's messages they make; a validation failure is a decoding one."""

    async def main() -> Any:
        async with client(mocked(SMALL)) as sdk:
            opened = await sdk.beta.messages.create(**REQUEST, stream=True)
            async with sdk_events(opened) as stream:
                async for _ in stream:
                    pass
                return stream.message()

    message = anyio.run(main)
    assert isinstance(message, anthropic.types.beta.BetaMessage)
    assert (message.content[0].text, message.stop_reason) == ("Hi", "end_turn")


def test_fields_of_a_wrong_type_fail_the_sdks_stream_too() -> None:
    """The SDK hands on what it does not check; the adapter does not, and says nothing more."""
    odd = SMALL.replace(b'"text":"Hi"', b'"text":7')

    async def main() -> list[Event]:
        async with client(mocked(odd)) as sdk, sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
            return flat([batch async for batch in opened])

    *_, before, last = anyio.run(main)
    assert isinstance(before, BlockStarted)
    assert isinstance(last, Failed)
    assert (last.reason, "$.delta.text" in last.message) == ("transport.decode", True)


def test_an_error_of_the_callers_own_comes_through() -> None:
    """What neither the transport nor the provider raised is nobody's failure to name."""

    class Pieces:
        def __iter__(self) -> Any:
            yield SMALL[:50]
            raise LookupError

    async def main() -> None:
        async with client(mocked(Pieces())) as sdk:
            async with messages(sdk, **REQUEST).open(FIRST) as stream:
                assert await anext(stream) == []
                with pytest.raises(LookupError):
                    await anext(stream)
            async with sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
                with pytest.raises(LookupError):
                    await anext(opened)

    anyio.run(main)


# Closing


@pytest.mark.parametrize(("backend", "aiohttp"), [("asyncio", False), ("trio", False), ("asyncio", True)])
@pytest.mark.parametrize("batches", [0, 1, 4])
@pytest.mark.parametrize("leaving", ["plain", "error", "cancelled-outside", "cancelled-read"])
def test_leaving_early_closes_the_connection(batches: int, leaving: str, backend: str, aiohttp: bool) -> None:
    """However an attempt is left, the server sees the end of the connection, and no generator is left behind."""

    async def main() -> None:
        async with against([CHUNKED, *PIECES[:5], HANG], aiohttp=aiohttp) as (server, source):
            with anyio.CancelScope() as outer:
                try:
                    async with source.open(FIRST) as stream:
                        seen = 0
                        while seen < batches:  # aiohttp gives out several chunks at once
                            seen += len(await anext(stream)) or 1
                        if leaving == "error":
                            raise LookupError
                        if leaving == "cancelled-outside":
                            outer.cancel()
                        if leaving == "cancelled-read":
                            await server.sent.wait()
                            with anyio.move_on_after(0.02) as reading:
                                async for _batch in stream:
                                    pass
                            assert reading.cancelled_caught
                            assert [batch async for batch in stream] == []
                except LookupError:
                    pass
            if backend == "asyncio":
                # asyncio closes generators that were left behind in tasks of their own.
                assert [task for task in asyncio.all_tasks() if "async_generator" in repr(task)] == []
            with anyio.fail_after(5):
                await server.eof.wait()

    anyio.run(main, backend=backend)


@ON_BOTH
@pytest.mark.parametrize("door", ["create", "stream"])
def test_leaving_the_sdks_stream_early_closes_it(door: str, backend: str) -> None:
    """Closing the adapter closes the SDK's stream, in the middle and before the first event."""

    async def main() -> None:
        for count in (0, 2):
            async with serving([CHUNKED, *PIECES[:5], HANG]) as server, client(base_url=server.url) as sdk:
                if door == "create":
                    async with sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened:
                        for _ in range(count):
                            await anext(opened)
                else:
                    async with sdk.messages.stream(**REQUEST) as entered, sdk_events(entered) as opened:
                        for _ in range(count):
                            await anext(opened)
                with anyio.fail_after(5):
                    await server.eof.wait()

    anyio.run(main, backend=backend)


@ON_BOTH
@SDK_LEAVES_ONE
def test_faults_of_the_sdks_stream_are_named(backend: str) -> None:
    """What the SDK raises in mid-stream, wrapped or not, is the stream's last event."""
    cases = {
        "transport.reset": [CHUNKED, *PIECES[:3], CLOSE],
        "transport.decode": [CHUNKED, *PIECES[:2], chunk(b"event: message_stop\ndata: {nope}\n\n"), END],
        "provider.overloaded": [CHUNKED, *events(path("sse", "error_overloaded_midstream.sse").read_bytes()), END],
    }

    async def main() -> dict[str, Event]:
        ends = {}
        for name, script in cases.items():
            async with (
                serving(script) as server,
                client(base_url=server.url) as sdk,
                sdk_events(await sdk.messages.create(**REQUEST, stream=True)) as opened,
            ):
                ends[name] = flat([batch async for batch in opened])[-1]
        return ends

    ends = anyio.run(main, backend=backend)
    assert {name: getattr(end, "reason", None) for name, end in ends.items()} == {name: name for name in cases}


def test_what_is_no_open_stream_of_the_sdk_is_refused() -> None:
    """A stream that was not awaited, a manager that was not entered and a synchronous stream are told apart."""

    async def main() -> None:
        async with client(mocked(SMALL)) as sdk:
            with pytest.raises(ConfigError, match="not awaited"):
                sdk_events(sdk.messages.create(**REQUEST, stream=True))
            manager = sdk.messages.stream(**REQUEST)
            with pytest.raises(ConfigError, match="enter the manager"):
                sdk_events(manager)
            async with manager:
                pass
        with pytest.raises(ConfigError, match="AsyncAnthropic"):
            sdk_events(iter(()))

    anyio.run(main)


def test_small_stream_in_full() -> None:
    """The stream these tests use says what it should: a check on the tests themselves."""
    assert decoded(SMALL) == [
        Started("msg_1", "m", Usage(input_tokens=3)),
        BlockStarted(0, "text", "text"),
        Ping(),
        Delta(0, "text", "Hi"),
        *decoded(b'data: {"type":"content_block_stop","index":0}\n\n'),
        Metered(Usage(output_tokens=2), "end_turn"),
        Stopped("end_turn"),
    ]
