"""`GuardMiddleware` around calls without `stream`: results as ever, retries from scratch, errors, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import anyio
import pydantic
import pytest

import streamguard
from streamguard import (
    CallError,
    ConfigError,
    Enough,
    GaveUp,
    GuardMiddleware,
    JsonDocument,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
)
from streamguard.engine.telemetry import CallCompleted
from streamguard.testing import ScriptedServer, faults, status, wire
from tests.adapters.wire import mocked
from tests.data import path

REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Extract."}],
}
POLICY = Policy(
    json=JsonDocument(),
    retry=Retry(attempts=3, rules=[Rule(when=["json.*", "transport.*", "provider.*", "timeout.*"])]),
)
GOOD, BAD = wire.text_stream('{"a": 1}'), wire.text_stream('{"a" 1}')
ON_BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def client(url: str, *middleware: Any, **options: Any) -> anthropic.AsyncAnthropic:
    http = options.pop("http_client", None) or anthropic.DefaultAsyncHttpxClient(verify=False)
    return anthropic.AsyncAnthropic(
        **{"api_key": "sk-ant-test", "base_url": url, "middleware": middleware, "http_client": http, **options}
    )


@asynccontextmanager
async def guarded(
    *attempts: Any, policy: Any = POLICY, guard: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[ScriptedServer, anthropic.AsyncAnthropic]]:
    """A guarded client of a scripted server."""
    async with ScriptedServer(*attempts) as server:
        middleware = [*options.pop("outside", ()), GuardMiddleware(policy, **(guard or {})), *options.pop("inside", ())]
        async with client(server.url, *middleware, **options) as sdk:
            yield server, sdk


def reading(*attempts: Any, policy: Any = POLICY, request: dict[str, Any] = REQUEST, **options: Any) -> Any:
    """The message of one call, and the server."""

    async def main() -> Any:
        async with guarded(*attempts, policy=policy, **options) as (server, sdk):
            return await sdk.messages.create(**request), server

    return anyio.run(main)


def failing(*attempts: Any, policy: Any = POLICY, **options: Any) -> Any:
    """The error of one call, and the server."""

    async def main() -> Any:
        async with guarded(*attempts, policy=policy, **options) as (server, sdk):
            with pytest.raises(CallError) as caught:
                await sdk.messages.create(**REQUEST)
            return caught.value, server

    return anyio.run(main)


# The ordinary result


@ON_BOTH
@pytest.mark.parametrize("name", ["text_json_answer", "thinking_text", "tool_use_fine_grained", "max_tokens_truncated"])
def test_the_message_is_the_one_that_the_sdk_accumulates(name: str, backend: str) -> None:
    """Every field of a recorded answer, usage and stop reason included, and the request's id."""
    stream = path("sse", f"{name}.sse").read_bytes()
    policy = Policy(completion={"accept": ["end_turn", "tool_use", "max_tokens"]})

    async def main() -> None:
        headers = {"request-id": "req_7"}
        async with (
            client("http://x", http_client=mocked(stream, headers=headers)) as plain,
            plain.messages.stream(**REQUEST) as opened,
        ):
            theirs = (await opened.get_final_message()).model_dump()
        async with client("http://x", GuardMiddleware(policy), http_client=mocked(stream, headers=headers)) as sdk:
            message = await sdk.messages.create(**REQUEST)
        assert type(message) is anthropic.types.Message
        for block in theirs["content"]:
            block.pop("parsed_output", None)
        assert message.model_dump() == theirs
        assert message._request_id == "req_7"

    anyio.run(main, backend=backend)


def test_the_message_is_the_one_that_is_not_streamed() -> None:
    """With and without the guard the same call gives equal messages: the server answers both ways."""

    async def main() -> None:
        async with ScriptedServer(GOOD) as server, client(server.url) as plain:
            theirs = await plain.messages.create(**REQUEST)
            ours = await plain.with_middleware(GuardMiddleware(POLICY)).messages.create(**REQUEST)
        assert ours == theirs
        assert [body.get("stream") for body in server.requests] == [None, True]

    anyio.run(main)


def test_a_bad_answer_is_asked_again_from_scratch() -> None:
    """Same request, patched by the rule that matched; the caller sees the good answer only."""
    rules = [Rule(when=["stop.max_tokens"], patch={"max_tokens": {"multiply": 2}}), Rule(when=["json.*"])]
    policy = Policy(json=JsonDocument(), retry=Retry(attempts=3, rules=rules))
    message, server = reading(BAD, wire.text_stream('{"a"', stop_reason="max_tokens"), GOOD, policy=policy)
    assert message.content[0].text == '{"a": 1}'
    assert server.requests == [
        {**REQUEST, "max_tokens": 100 * (1 + (number == 2)), "stream": True} for number in range(3)
    ]
    assert [one.headers["x-stainless-retry-count"] for one in server.exchanges] == ["0", "1", "2"]
    assert {one.headers["accept-encoding"] for one in server.exchanges} == {"identity"}


def test_parse_gives_the_parsed_output() -> None:
    """`messages.parse()` with a type: the schema in the request guards the answer, and the value is the type's."""

    class Row(pydantic.BaseModel):
        a: int

    async def main() -> None:
        policy = POLICY.model_copy(update={"json_document": JsonDocument(schema="request")})
        wrong = wire.text_stream('{"a": "one"}')
        async with guarded(wrong, GOOD, policy=policy) as (server, sdk):
            message = await sdk.messages.parse(**REQUEST, output_format=Row)
        assert message.parsed_output == Row(a=1)
        assert len(server.exchanges) == 2

    anyio.run(main)


def test_raw_and_streaming_responses_are_the_ordinary_ones() -> None:
    """`with_raw_response` and `with_streaming_response`: JSON body, headers of the answer, and the retries taken."""

    async def main() -> None:
        async with guarded(BAD, GOOD, BAD, GOOD) as (server, sdk):
            raw = await sdk.messages.with_raw_response.create(**REQUEST)
            message = await raw.parse()
            assert (raw.retries_taken, raw.status_code, raw.headers["content-type"]) == (1, 200, "application/json")
            assert raw.request_id == "req_scripted_2"
            assert json.loads(await raw.text())["content"][0]["text"] == message.content[0].text == '{"a": 1}'
            assert raw.http_request.url == f"{server.url}/v1/messages"
            async with sdk.messages.with_streaming_response.create(**REQUEST) as response:
                assert (await response.parse()).content == message.content
                assert b"".join([chunk async for chunk in response.iter_bytes()]) == await response.read()

    anyio.run(main)


def test_beta_calls_give_beta_messages() -> None:
    """`client.beta.messages` has classes of its own."""

    async def main() -> None:
        async with guarded(GOOD) as (server, sdk):
            message = await sdk.beta.messages.create(**REQUEST, betas=["x-1"])
        assert type(message) is anthropic.types.beta.BetaMessage
        assert type(message.content[0]).__name__ == "BetaTextBlock"
        assert server.exchanges[0].headers["anthropic-beta"] == "x-1"

    anyio.run(main)


def test_schemas_of_tools_are_read_from_the_request() -> None:
    """A tool's input that its own schema forbids is asked again."""

    async def main() -> None:
        policy = Policy(json=JsonDocument(where="tools", schema="request"), retry=POLICY.retry)
        wrong, right = (wire.tool_stream(faults.TOOL, text) for text in ('{"id": "x"}', faults.GOOD))
        async with guarded(wrong, right, policy=policy) as (server, sdk):
            message = await sdk.messages.create(**faults.request("tool"))
        assert message.content[0].input == json.loads(faults.GOOD)
        assert len(server.exchanges) == 2

    anyio.run(main)


def test_half_an_emoji_comes_through() -> None:
    """A lone surrogate in a text, which JSON allows, is handed back as it came."""
    message, _ = reading(wire.text_stream('{"a": "\\ud83d"}', chunk=40), [])
    assert json.loads(message.content[0].text) == {"a": "\ud83d"}
    data = wire.frame(
        "content_block_delta",
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83d"}}',
    )
    answer = [
        wire.message_start(),
        wire.block_start(),
        data,
        wire.block_stop(),
        wire.message_delta(),
        wire.message_stop(),
    ]
    message, _ = reading(answer, policy=Policy())
    assert message.content[0].text == "\ud83d"


# What is not guarded


def test_other_endpoints_pass_untouched() -> None:
    """Counting tokens and listing models go as they are."""

    async def main() -> None:
        async with guarded(GOOD) as (server, sdk):
            counted = await sdk.messages.count_tokens(model="m", messages=REQUEST["messages"])
            models = [model.id async for model in sdk.models.list()]
        assert counted.input_tokens == wire.INPUT_TOKENS
        assert models
        assert [one.headers["accept-encoding"] == "identity" for one in server.others] == [False, False]
        assert server.exchanges == []

    anyio.run(main)


def test_a_function_chooses_the_policy_and_may_let_a_call_pass() -> None:
    """By the request; `None` is unguarded."""

    async def main() -> None:
        async with guarded(
            BAD, BAD, GOOD, policy=lambda request: POLICY if request.model == "claude-haiku-5-5" else None
        ) as (server, sdk):
            free = await sdk.messages.create(**{**REQUEST, "model": "other"})
            kept = await sdk.messages.create(**REQUEST)
        assert (free.content[0].text, kept.content[0].text) == ('{"a" 1}', '{"a": 1}')
        assert [body.get("stream") for body in server.requests] == [None, True, True]

    anyio.run(main)


# Errors


def test_two_guards_in_one_chain_are_refused() -> None:
    """Each would ask again for what the other gave up. Middleware between them that copies requests hides nothing."""

    async def copying(request: Any, call_next: Any) -> Any:
        return await call_next(request.copy(headers={**request.headers, "x-a": "1"}))

    async def main() -> None:
        for inside in ([GuardMiddleware(POLICY)], [copying, GuardMiddleware(POLICY)]):
            async with guarded(GOOD, inside=inside) as (server, sdk):
                with pytest.raises(ConfigError, match="two GuardMiddleware stand in one chain"):
                    await sdk.messages.create(**REQUEST)
            assert server.exchanges == []

    anyio.run(main)


def test_middleware_on_both_sides_sees_honest_requests_and_results() -> None:
    """Outside the call as it was made, once; inside each attempt, as a stream."""
    seen: list[Any] = []

    def watching(where: str) -> Callable[..., Any]:
        async def watch(request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            seen.append((where, request.stream, request.json.get("stream"), response.headers["content-type"]))
            return response

        return watch

    reading(BAD, GOOD, outside=[watching("outside")], inside=[watching("inside")])
    stream = ("inside", True, True, "text/event-stream; charset=utf-8")
    assert seen == [stream, stream, ("outside", False, None, "application/json")]


def test_a_result_that_is_no_response_is_refused() -> None:
    """A middleware further in that answers by itself, as a cache does, has nothing that could be guarded."""

    async def cached(request: Any, call_next: Any) -> Any:
        return anthropic.types.Message.construct(id="cached")

    async def main() -> None:
        async with guarded(GOOD, inside=[cached]) as (_, sdk):
            with pytest.raises(ConfigError, match="put GuardMiddleware after it"):
                await sdk.messages.create(**REQUEST)
        async with guarded(GOOD, outside=[cached]) as (_, sdk):
            assert (await sdk.messages.create(**REQUEST)).id == "cached"

    anyio.run(main)


@pytest.mark.parametrize(
    ("make", "url"),
    [
        (
            lambda http, guard: anthropic.AsyncAnthropicVertex(
                region="us-east1", project_id="p", access_token="t", http_client=http, middleware=[guard]
            ),
            "/v1/projects/p/locations/us-east1/publishers/anthropic/models/claude-haiku-5-5:streamRawPredict",
        ),
        (
            lambda http, guard: anthropic.AsyncAnthropicFoundry(
                api_key="k", resource="r", http_client=http, middleware=[guard]
            ),
            "/anthropic/v1/messages",
        ),
    ],
    ids=["vertex", "foundry"],
)
def test_clients_of_other_platforms_are_guarded(make: Any, url: str) -> None:
    """They rewrite the request further in, and answer in SSE."""

    async def main() -> None:
        seen: list[Any] = []
        http = mocked(b"".join(GOOD), seen=seen)
        async with make(http, GuardMiddleware(POLICY, deliver="committed")) as sdk:
            assert (await sdk.messages.create(**REQUEST)).content[0].text == '{"a": 1}'
            async with sdk.messages.stream(**REQUEST) as stream:
                assert (await stream.get_final_message()).stop_reason == "end_turn"
        assert [request.url.path for request in seen] == [url, url]

    anyio.run(main)


def test_an_answer_that_is_no_stream_is_a_failure() -> None:
    """A web page of a proxy, with status 200."""

    async def main() -> None:
        http = mocked(b"<html>Sign in</html>", headers={"content-type": "text/html"})
        async with client("http://x", GuardMiddleware(Policy()), http_client=http) as sdk:
            with pytest.raises(GaveUp, match="the answer is text/html, no event stream"):
                await sdk.messages.create(**REQUEST)

    anyio.run(main)


def test_an_sdk_that_shows_no_client_is_worked_around() -> None:
    """Responses without the SDK's private client: the message is made by public means, and parsed as ever."""

    class Row(pydantic.BaseModel):
        a: int

    class Bare:
        def __init__(self, response: Any) -> None:
            self.http_response, self.headers, self.close = response.http_response, response.headers, response.close

    async def bare(request: Any, call_next: Any) -> Any:
        return Bare(await call_next(request))

    async def main() -> None:
        async with guarded(GOOD, inside=[bare]) as (_, sdk):
            message = await sdk.messages.create(**REQUEST)
            assert (type(message), type(message.content[0])) == (anthropic.types.Message, anthropic.types.TextBlock)
            assert (await sdk.messages.parse(**REQUEST, output_format=Row)).parsed_output == Row(a=1)
            with pytest.raises(ConfigError, match="makes responses in a way"):
                await sdk.messages.with_raw_response.create(**REQUEST)
        refused = [status(529, wire.error_body("overloaded_error"))]
        async with guarded(refused, policy=Policy(), inside=[bare]) as (_, sdk):
            with pytest.raises(GaveUp) as caught:
                await sdk.messages.create(**REQUEST)
        assert type(caught.value.sdk_error) is anthropic.APIStatusError

    anyio.run(main)


# Policies


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: GuardMiddleware(Policy(json=JsonDocument(enough_when=["/a"]))), "a Message needs its end"),
        (lambda: GuardMiddleware(Policy(), deliver="restarting"), "deliver: restarting needs a consumer"),
        (lambda: GuardMiddleware(Policy(deliver="restarting")), "deliver: restarting needs a consumer"),
        (lambda: GuardMiddleware(Policy(), deliver="now"), "deliver is committed or live, not 'now'"),  # type: ignore[arg-type]
    ],
)
def test_policies_that_a_clients_call_cannot_have_are_refused(make: Any, problem: str) -> None:
    """At the place where the client is made."""
    with pytest.raises(PolicyError, match=problem):
        make()


def test_an_answer_is_never_cut() -> None:
    """`trailing: cut` reads to the end, for the usage and the stop reason; a guard that has enough is refused."""
    chatty = wire.text_stream('{"a": 1} Anything else?')
    message, _ = reading(chatty, policy=Policy(json=JsonDocument(trailing="cut")))
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", wire.counted(23))
    assert message.content[0].text == '{"a": 1} Anything else?'

    @streamguard.guard(reason="house.enough")
    def satisfied(view: Any) -> Any:
        return Enough("enough") if view.text else None

    with pytest.raises(PolicyError, match="a Message needs its end"):
        reading(GOOD, policy=Policy(guards=[satisfied]))


def test_a_policy_that_does_not_fit_the_request_is_said_before_anything_is_sent() -> None:
    """`schema: request`, and the request has none."""

    async def main() -> None:
        async with guarded(GOOD, policy=Policy(json=JsonDocument(schema="request"))) as (server, sdk):
            with pytest.raises(PolicyError, match="structured output format"):
                await sdk.messages.create(**REQUEST)
        assert server.exchanges == []

    anyio.run(main)


def test_calls_share_a_runtime_whose_hooks_see_the_whole_record() -> None:
    """All attempts' usage is on the outcome, which the message has no room for."""
    seen: list[Any] = []
    runtime = Runtime(hooks=[seen.append])
    reading(BAD, GOOD, guard={"runtime": runtime, "labels": {"app": "a"}})
    completed = [record for record in seen if type(record) is CallCompleted]
    assert [(len(one.outcome.attempts), one.labels) for one in completed] == [(2, {"app": "a"})]
    assert completed[0].outcome.usage.high.input_tokens > wire.INPUT_TOKENS


def test_many_calls_at_once() -> None:
    """A client is used by many tasks; each call has its own attempts."""

    async def main() -> None:
        async with guarded([*BAD], policy=lambda request: POLICY, guard={}) as (server, sdk):
            errors = []

            async def one() -> None:
                with pytest.raises(GaveUp) as caught:
                    await sdk.messages.create(**REQUEST)
                errors.append(len(caught.value.attempts))

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one)
        assert errors == [3] * 10
        assert len(server.exchanges) == 30

    anyio.run(main)
