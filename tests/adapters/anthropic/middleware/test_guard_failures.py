"""Failures behind the middleware: one typed error each, beside the SDK's own; nothing left open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import anyio
import httpx2
import pytest

import streamguard
from streamguard import (
    GaveUp,
    GuardMiddleware,
    JsonDocument,
    Policy,
    Retry,
    Rule,
    Timeouts,
)
from streamguard.testing import BACKENDS, ScriptedServer, status, wire
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, ON_BOTH, POLICY, REQUEST, client, failing, guarded


def test_giving_up_is_one_typed_error_that_the_sdk_does_not_retry() -> None:
    """As many requests as the policy has attempts, whatever the client's `max_retries`; no cause, a whole record."""
    error, server = failing(BAD, BAD, BAD, GOOD, max_retries=5)
    assert type(error) is GaveUp
    assert (error.reason, error.__cause__, error.sdk_error) == ("json.malformed", None, None)
    assert len(error.attempts) == len(server.exchanges) == 3


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (529, anthropic.OverloadedError, "provider.overloaded"),
        (429, anthropic.RateLimitError, "provider.rate_limited"),
        (500, anthropic.InternalServerError, "provider.api_error"),
    ],
)
def test_a_status_error_stands_by_ours(code: int, kind: type[Exception], reason: str) -> None:
    """The SDK's own exception, which it would have retried, is an attribute, and not the cause."""
    types = {529: "overloaded_error", 429: "rate_limit_error", 500: "api_error"}
    refused = [status(code, wire.error_body(types[code]))]
    policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["provider.*"])]))
    error, server = failing(refused, refused, refused, policy=policy)
    assert (error.reason, type(error.sdk_error), error.__cause__) == (reason, kind, None)
    assert error.sdk_error.status_code == code
    assert len(server.exchanges) == 2


def test_a_refused_connection_stands_by_ours() -> None:
    """No server: one error after as many tries as the policy has."""

    async def main() -> None:
        policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["transport.*"])]))
        async with client("http://127.0.0.1:9", GuardMiddleware(policy)) as sdk:
            with pytest.raises(GaveUp, match=r"transport\.connect") as caught:
                await sdk.messages.create(**REQUEST)
        assert type(caught.value.sdk_error) is anthropic.APIConnectionError
        assert len(caught.value.attempts) == 2

    anyio.run(main)


@pytest.mark.parametrize("asked", [anthropic.RetryableError("again"), None], ids=["retryable", "from-a-connection"])
def test_exceptions_that_the_sdk_would_retry_are_failures(asked: Any) -> None:
    """A middleware further in asks for a retry, by name or by its cause: that is for the policy to decide."""
    seen = []

    async def broken(request: Any, call_next: Any) -> Any:
        seen.append(request.retries_taken)
        if asked is not None:
            raise asked
        raise ValueError("mine") from anthropic.APIConnectionError(request=httpx2.Request("POST", "http://x"))

    policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["transport.*", "source.error"])]))
    error, _ = failing(GOOD, policy=policy, inside=[broken])
    assert type(error) is GaveUp
    assert error.sdk_error is not None
    assert seen == [0, 1]


def test_exceptions_of_other_kinds_are_the_callers() -> None:
    """What is no failure of the provider or the connection is raised as it is, after one try."""

    async def broken(request: Any, call_next: Any) -> Any:
        raise LookupError("mine")

    async def main() -> None:
        async with guarded(GOOD, inside=[broken]) as (_, sdk):
            with pytest.raises(LookupError, match="mine"):
                await sdk.messages.create(**REQUEST)
        async with guarded(GOOD, api_key=None) as (_, sdk):
            with pytest.raises(TypeError, match="authentication"):
                await sdk.messages.create(**REQUEST)

    anyio.run(main)


@ON_BOTH
def test_a_call_that_is_cancelled_leaves_nothing_open(backend: str) -> None:
    """The caller's own deadline: the connection is closed, and the next call works."""

    async def main() -> None:
        from tests.adapters.wire import CHUNKED, HANG, chunk, serving

        async with serving([CHUNKED, chunk(b"".join(GOOD[:3])), HANG]) as server:
            async with client(server.url, GuardMiddleware(POLICY)) as sdk, anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: sdk.messages.create(**REQUEST))
                await server.sent.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(2):
                await server.eof.wait()

    anyio.run(main, backend=backend)


def test_a_clock_ends_a_call() -> None:
    """A stalled answer: the policy's clock, in virtual time over an in-memory connection."""

    async def main() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"".join(GOOD[:4])
            await anyio.sleep(1000)

        def answer(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=pieces())

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        policy = Policy(timeouts=Timeouts(progress=20, total=30))
        async with client("http://x", GuardMiddleware(policy), http_client=http) as sdk:
            with pytest.raises(GaveUp, match=r"timeout\.progress") as caught:
                await sdk.messages.create(**REQUEST)
        assert caught.value.record.seconds == pytest.approx(20, abs=0.1)

    streamguard.testing.run_virtual(main, backend=BACKENDS[0])


# The chain


def test_a_fallback_rule_asks_another_endpoint() -> None:
    """`base_url` in a rule: the second attempt goes to the other server."""

    async def main() -> None:
        async with ScriptedServer(GOOD) as other:
            rules = [Rule(when=["json.*"], base_url=other.url)]
            async with guarded(BAD, policy=Policy(json=JsonDocument(), retry=Retry(attempts=2, rules=rules))) as (
                first,
                sdk,
            ):
                message = await sdk.messages.create(**REQUEST)
        assert message.content[0].text == '{"a": 1}'
        assert (len(first.exchanges), len(other.exchanges)) == (1, 1)

    anyio.run(main)
