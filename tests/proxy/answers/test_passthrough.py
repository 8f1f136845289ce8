"""What no policy guards: passed on as it comes, for as long as its clocks allow."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import httpx2
import pytest

from streamguard.proxy.config import PassThrough
from streamguard.testing import ScriptedServer, pause, repeat, stall, wire
from tests.proxy.running import KEY, Running, error_of, proxied, with_proxy

SHORT = PassThrough(first_byte=0.15, first_byte_json=0.25, idle=0.15, total=0.6, small=0.2)


def with_upstream(answer: bytes, test: Any) -> None:
    """Run `test` with a proxy in front of an upstream that answers every head with some bytes, and stays."""

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answering, "127.0.0.1", 0) as server, ScriptedServer([]) as scripted:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with anyio.fail_after(10):
                async with proxied(scripted, None, upstream_url=url, pass_through=SHORT) as running:
                    await test(running)

    anyio.run(main)


@pytest.mark.parametrize(("stream", "said"), [(True, "for 0.15 s"), (False, "for 0.25 s")])
def test_an_upstream_that_says_nothing_is_not_waited_for(stream: bool, said: str) -> None:
    """504 in the provider's form, which names the clock: a stream's, or that of an answer in one piece."""

    async def test(running: Running) -> None:
        answer = await running.ask(stream=stream)
        error = error_of(answer.content)
        found = (answer.status_code, error["type"], error["details"]["streamguard"])
        assert found == (504, "timeout_error", {"reason": "timeout.connect"})
        assert said in error["message"]
        assert "pass_through" in error["message"]

    with_upstream(b"", test)


ENDLESS = repeat([pause(0.02), wire.ping()])


@pytest.mark.parametrize(
    ("script", "said"),
    [([wire.message_start(), stall()], "silent for 0.15 s"), ([ENDLESS], "longer than 0.6 s")],
    ids=["silent", "endless"],
)
def test_a_body_that_does_not_end_is_cut(script: list[Any], said: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client's connection breaks off, as the upstream's would; the log says which clock it was."""

    async def test(running: Running) -> None:
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete message body"):
            await running.ask()

    with_proxy([script], test, None, pass_through=SHORT)
    lines = [record.getMessage() for record in caplog.records if "was cut" in record.getMessage()]
    assert [said in line for line in lines] == [True]


def test_a_whole_answer_takes_what_the_clocks_allow() -> None:
    """Slower than the clock for silence in all, never slower between two pieces."""

    async def test(running: Running) -> None:
        answer = await running.ask()
        assert (answer.status_code, answer.content) == (200, wire.ping() * 10)

    with_proxy([[repeat([pause(0.02), wire.ping()], 10)]], test, None, pass_through=SHORT)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
def test_small_answers_have_a_clock_of_their_own(answer: bytes) -> None:
    """Nothing, half a head, half a body: neither a list of models nor a count of tokens is waited for."""

    async def test(running: Running) -> None:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/messages/count_tokens")):
            json = {} if method == "POST" else None
            request = running.http.request(method, running.url + path, json=json, headers={"x-api-key": KEY})
            if answer.endswith(b"ab"):
                with pytest.raises(httpx2.RemoteProtocolError):
                    await request
            else:
                assert (await request).status_code == 504

    with_upstream(answer, test)


@pytest.mark.parametrize("name", ["content-encoding", "content-type"])
def test_a_header_that_is_no_text_is_no_error_of_the_proxys(name: str) -> None:
    """A body whose coding cannot be said is not passed on, as a typed error; other headers are left out."""

    async def test(running: Running) -> None:
        answer = await running.http.get(running.url + "/v1/models", headers={"x-api-key": KEY})
        if name == "content-encoding":
            assert (answer.status_code, error_of(answer.content)["type"]) == (502, "api_error")
        else:
            assert (answer.status_code, answer.content, name in answer.headers) == (200, b"{}", False)

    with_upstream(f"HTTP/1.1 200 OK\r\n{name}: gz\x01ip\r\ncontent-length: 2\r\n\r\n{{}}".encode(), test)
