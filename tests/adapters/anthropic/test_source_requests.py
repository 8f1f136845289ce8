"""What a source sends, which clients it can use, and what it refuses before anything is sent."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import anthropic
import anyio
import httpx2
import pytest

from streamguard.adapters.anthropic.source import messages
from streamguard.errors import ConfigError
from streamguard.source import Attempt
from tests.adapters.anthropic.test_source import FIRST, ON_BOTH, REQUEST, SMALL, against, client, decoded, flat, read
from tests.adapters.wire import CHUNKED, END, events, mocked, serving


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
