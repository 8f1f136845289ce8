"""`GuardMiddleware` on a synchronous client: results, clocks that end a blocked read, and nothing left behind."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import anyio
import anyio.to_thread
import pydantic
import pytest

from streamguard import ConfigError, GaveUp, GuardMiddleware, JsonDocument, Policy, Retry, Rule, Timeouts
from streamguard.testing import ScriptedServer, stall, status, wire
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, POLICY, REQUEST

SHORT = Timeouts(connect=0.3, first_token=0.3, progress=0.3, alive=None, total=5)


@contextmanager
def client(url: str, *middleware: Any, **options: Any) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(verify=False)
    with anthropic.Anthropic(api_key="x", base_url=url, middleware=middleware, http_client=http, **options) as sdk:
        yield sdk


def against(*attempts: Any, program: Callable[[str], Any]) -> tuple[Any, ScriptedServer]:
    """What a program in a thread gives, with a server's address."""

    async def main() -> tuple[Any, ScriptedServer]:
        async with ScriptedServer(*attempts) as server:
            return await anyio.to_thread.run_sync(program, server.url), server

    return anyio.run(main)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("streamguard")]


def gone(seconds: float = 5) -> None:
    """Wait until the package's threads have ended, or so long for each."""
    for thread in threading.enumerate():
        if thread.name.startswith("streamguard"):
            thread.join(seconds)


def test_the_message_is_the_one_of_an_unguarded_call() -> None:
    """Asked again from scratch, and equal to what the client gives without a guard."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(POLICY)) as sdk:
            return sdk.messages.create(**REQUEST)

    def plain(url: str) -> Any:
        with client(url) as sdk:
            return sdk.messages.create(**REQUEST)

    ours, server = against(BAD, GOOD, program=program)
    theirs, _ = against(GOOD, program=plain)
    assert ours.model_dump() == {**theirs.model_dump(), "id": ours.id}
    assert [body["stream"] for body in server.requests] == [True, True]
    assert threads() == []


def test_parse_raw_and_beta() -> None:
    """The other ways to call, and headers of the answer that stood."""

    class Row(pydantic.BaseModel):
        a: int

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(POLICY)) as sdk:
            raw = sdk.messages.with_raw_response.create(**REQUEST)
            with sdk.messages.with_streaming_response.create(**REQUEST) as streamed:
                whole = streamed.parse()
            parsed = sdk.messages.parse(**REQUEST, output_format=Row).parsed_output
            return (
                raw.retries_taken,
                raw.request_id,
                raw.parse().content,
                whole.content,
                parsed,
                sdk.beta.messages.create(**REQUEST),
            )

    (retries, request_id, raw, whole, parsed, beta), _ = against(BAD, GOOD, GOOD, GOOD, GOOD, program=program)
    assert (retries, request_id, parsed, type(beta)) == (
        1,
        "req_scripted_2",
        Row(a=1),
        anthropic.types.beta.BetaMessage,
    )
    assert raw[0].text == whole[0].text == '{"a": 1}'


def test_connections_are_used_again() -> None:
    """An answer that was read to its end gives its connection back; a rejected one, too, if its end had come."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(POLICY)) as sdk:
            return [sdk.messages.create(**REQUEST).content[0].text for _ in range(3)]

    texts, server = against(GOOD, GOOD, GOOD, program=program)
    assert texts == ['{"a": 1}'] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        pytest.param([stall(), status(200)], "timeout.first_token", id="before-the-head"),
        pytest.param([status(200), stall()], "timeout.first_token", id="before-output"),
        pytest.param([*GOOD[:4], stall()], "timeout.progress", id="in-the-answer"),
    ],
)
def test_a_clock_ends_a_blocked_read(attempt: Any, reason: str) -> None:
    """The call returns in time, the provider sees the connection end, and no thread stays behind."""

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(Policy(timeouts=SHORT))) as sdk:
            began = time.monotonic()
            with pytest.raises(GaveUp) as caught:
                sdk.messages.create(**REQUEST)
            took = time.monotonic() - began
            gone()
            return caught.value, took

    (error, took), server = against(attempt, program=program)
    assert error.reason == reason
    assert took < 5
    assert threads() == []
    assert all(exchange.disconnected_at is not None for exchange in server.exchanges) or not server.exchanges


def test_silence_within_the_clocks_is_no_failure() -> None:
    """The timeouts that bound the head are off once it has come: a slow answer is an answer."""
    policy = Policy(timeouts=Timeouts(connect=0.2, first_token=2, progress=2))

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(policy)) as sdk:
            return sdk.messages.create(**REQUEST).content[0].text

    from streamguard.testing import pause

    text, server = against([*GOOD[:4], pause(0.8), *GOOD[4:]], program=program)
    assert text == '{"a": 1}'
    assert len(server.exchanges) == 1


def test_errors_stand_by_ours_and_are_not_retried_by_the_sdk() -> None:
    """Statuses, refused connections and exceptions of other kinds."""
    refused = [status(529, wire.error_body("overloaded_error"))]
    policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["provider.*", "transport.*"])]))

    def program(url: str) -> Any:
        errors = []
        for address in (url, "http://127.0.0.1:9"):
            with client(address, GuardMiddleware(policy), max_retries=4) as sdk, pytest.raises(GaveUp) as caught:
                sdk.messages.create(**REQUEST)
            errors.append(caught.value)
        return errors

    (overloaded, unreachable), server = against(refused, refused, refused, program=program)
    assert (overloaded.reason, type(overloaded.sdk_error)) == ("provider.overloaded", anthropic.OverloadedError)
    assert (unreachable.reason, type(unreachable.sdk_error)) == ("transport.connect", anthropic.APIConnectionError)
    assert (overloaded.__cause__, unreachable.__cause__) == (None, None)
    assert len(server.exchanges) == 2


def test_the_rest_of_the_chain_sees_the_callers_context() -> None:
    """Context variables, as tracing uses them, and exceptions of its own."""
    variable = contextvars.ContextVar("variable", default="nobody")
    seen = []

    def watching(request: Any, call_next: Any) -> Any:
        seen.append((variable.get(), request.stream))
        return call_next(request)

    def breaking(request: Any, call_next: Any) -> Any:
        raise LookupError("mine")

    def program(url: str) -> Any:
        variable.set("the caller")
        with client(url, GuardMiddleware(POLICY), watching) as sdk:
            sdk.messages.create(**REQUEST)
        with client(url, GuardMiddleware(POLICY), breaking) as sdk, pytest.raises(LookupError, match="mine"):
            sdk.messages.create(**REQUEST)

    against(BAD, GOOD, program=program)
    assert seen == [("the caller", True)] * 2


def test_what_is_refused_or_passes() -> None:
    """Two guards, results that are no response; other endpoints pass."""

    def cached(request: Any, call_next: Any) -> Any:
        return anthropic.types.Message.construct(id="cached")

    def program(url: str) -> Any:
        with client(url, GuardMiddleware(POLICY), GuardMiddleware(POLICY)) as sdk:
            with pytest.raises(ConfigError, match="two GuardMiddleware"):
                sdk.messages.create(**REQUEST)
            assert sdk.messages.count_tokens(model="m", messages=REQUEST["messages"]).input_tokens == wire.INPUT_TOKENS
        with client(url, GuardMiddleware(POLICY), cached) as sdk, pytest.raises(ConfigError, match="is no response"):
            sdk.messages.create(**REQUEST)

    _, server = against(GOOD, program=program)
    assert server.exchanges == []


def test_it_works_inside_a_running_event_loop() -> None:
    """As a synchronous client does in a notebook: it blocks, and works."""

    async def main() -> None:
        with ScriptedServer(BAD, GOOD).in_thread() as server, client(server.url, GuardMiddleware(POLICY)) as sdk:
            assert sdk.messages.create(**REQUEST).content[0].text == '{"a": 1}'

    anyio.run(main)


def test_threads_share_a_client() -> None:
    """Ten threads at once, each with its own attempts."""

    def program(url: str) -> Any:
        results: list[Any] = []
        with client(url, GuardMiddleware(Policy(json=JsonDocument()))) as sdk:

            def one() -> None:
                results.append(sdk.messages.create(**REQUEST).content[0].text)

            workers = [threading.Thread(target=one) for _ in range(10)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return results

    results, _ = against([*GOOD], program=program)
    assert results == ['{"a": 1}'] * 10
