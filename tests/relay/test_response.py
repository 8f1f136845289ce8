"""Relays as responses: ASGI by hand in virtual time, then FastAPI's base, Starlette, on a real server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import anyio
import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Route

import streamguard
from streamguard import Policy, messages, relay
from streamguard.testing import ScriptedServer, answer, expect_disconnect, pause, script, stall, wire

STARTED = [wire.message_start(), wire.block_start(), wire.text_delta("Hello")]


class Client:
    """The other end of one ASGI request."""

    def __init__(self, *, headers: Any = (), method: str = "GET") -> None:
        self.scope = {"type": "http", "method": method, "path": "/", "headers": list(headers)}
        self.sent: list[Any] = []
        self.gone = anyio.Event()
        self.takes = anyio.Event()
        self.takes.set()
        self.requested = False

    async def receive(self) -> dict[str, Any]:
        if not self.requested:
            self.requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def test_a_response(run_virtual) -> None:
    """The head says that it is an event stream that nobody may hold back; the body ends in good order."""

    async def main() -> None:
        client = Client()
        events = streamguard.stream(script(answer("Hello.")), policy=Policy())
        await relay.response(events, style="data")(client.scope, client.receive, client.send)
        assert client.sent[0] == {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store, no-transform"),
                (b"x-accel-buffering", b"no"),
                (b"x-content-type-options", b"nosniff"),
            ],
        }
        assert client.body.endswith(b"data: [DONE]\n\n")
        assert client.sent[-1] == {"type": "http.response.body", "body": b""}

    run_virtual(main)


def test_own_headers_and_background(run_virtual) -> None:
    """It is a Starlette response: headers can be added, and background tasks run after it."""

    async def main() -> None:
        client, ran = Client(), []
        made = relay.response(streamguard.stream(script(answer("x")), policy=Policy()))
        assert isinstance(made, Response)
        made.headers["x-own"] = "yes"

        async def after() -> None:
            ran.append(len(client.sent))

        made.background = after
        await made(client.scope, client.receive, client.send)
        assert (b"x-own", b"yes") in client.sent[0]["headers"]
        assert ran == [len(client.sent)]

    run_virtual(main)


def test_a_client_that_goes(run_virtual) -> None:
    """A client that goes away while its answer is held back ends the call at that moment."""

    async def main() -> None:
        client, source = Client(), script([stall()])
        made = relay.response(streamguard.stream(source, policy=Policy(), deliver="committed"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made, client.scope, client.receive, client.send)
            await anyio.sleep(2)
            client.gone.set()
        assert anyio.current_time() == pytest.approx(2, abs=0.05)
        assert (source.opened, source.closed) == (1, 1)

    run_virtual(main)


def test_a_client_that_takes_nothing(run_virtual) -> None:
    """A client that is there but takes no byte ends the call after `send_timeout`."""

    async def main() -> None:
        client, source = Client(), script([*answer("Hello")[:-3], stall()])
        client.takes = anyio.Event()
        made = relay.response(streamguard.stream(source, policy=Policy(), deliver="live"), send_timeout=7)
        await made(client.scope, client.receive, client.send)
        assert anyio.current_time() == pytest.approx(7, abs=0.05)
        assert (source.opened, source.closed) == (0, 0)
        client = Client()
        made = relay.response(streamguard.stream(source, policy=Policy(), deliver="live"), send_timeout=7)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made, client.scope, client.receive, client.send)
            await anyio.sleep(1)
            client.takes = anyio.Event()
            await anyio.sleep(30)
        assert (source.opened, source.closed) == (1, 1)
        assert anyio.current_time() == pytest.approx(38, abs=0.1)

    run_virtual(main)


def test_a_server_that_raises(run_virtual) -> None:
    """Where a send raises because the client has gone, as on servers of ASGI 2.4, the call ends and nothing is raised."""

    async def main() -> None:
        client, source = Client(), script([*answer("Hello")[:-3], stall()])

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise OSError("gone")

        await relay.response(streamguard.stream(source, policy=Policy(), deliver="live"))(
            client.scope, client.receive, send
        )
        assert source.opened == source.closed

    run_virtual(main)


def test_reconnect_and_head(run_virtual) -> None:
    """A browser that comes back is told to stop, a HEAD gets the head; neither asks the provider anything."""

    async def main() -> None:
        source = script(answer("x"))
        for client, status in (
            (Client(headers=[(b"last-event-id", b"x:7")]), 204),
            (Client(method="HEAD"), 200),
        ):
            made = relay.response(streamguard.stream(source, policy=Policy()))
            await made(client.scope, client.receive, client.send)
            assert [client.sent[0]["status"], client.body, source.opened] == [status, b"", 0]

    run_virtual(main)


def test_the_applications_own_mistake(run_virtual) -> None:
    """What the application raises reaches its server, after a whole response that says nothing of it."""

    async def main() -> None:
        def fail(outcome: streamguard.Outcome) -> None:
            raise ConnectionError("secret")  # an OSError, like those of a client that has gone

        client = Client()
        made = relay.response(streamguard.stream(script(answer("x")), policy=Policy()), on_outcome=fail)
        with pytest.raises(ConnectionError, match="secret"):
            await made(client.scope, client.receive, client.send)
        assert b'"reason":"internal"' in client.body
        assert client.sent[-1] == {"type": "http.response.body", "body": b""}

    run_virtual(main)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """A real server in this loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._serve, [listener])
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True


async def passing(request: Any, call_next: Any) -> Any:
    return await call_next(request)


MIDDLEWARE = {
    "none": [],
    "base": [Middleware(BaseHTTPMiddleware, dispatch=passing)],
    "gzip": [Middleware(GZipMiddleware, minimum_size=1)],
}


@pytest.mark.parametrize("middleware", MIDDLEWARE)
def test_over_sockets(middleware: str) -> None:
    """Text reaches a client as it comes, behind usual middleware too; when the client goes, upstream sees the end of
    the connection within 50 ms, though nothing was being written."""

    async def main() -> None:
        items = [*STARTED, expect_disconnect(5)]
        async with ScriptedServer(items) as provider:
            client = anthropic.AsyncAnthropic(api_key="sk-ant-test", base_url=provider.url)

            async def endpoint(request: Any) -> Any:
                body = await request.json()
                source = messages(client, model="m", max_tokens=9, messages=body["messages"])
                return relay.response(streamguard.stream(source, policy=Policy(), deliver="restarting"))

            app = Starlette(routes=[Route("/chat", endpoint, methods=["POST"])], middleware=MIDDLEWARE[middleware])
            async with serving(app) as url, httpx2.AsyncClient() as browser:
                said = {"messages": [{"role": "user", "content": "Hi"}]}
                async with browser.stream("POST", f"{url}/chat", json=said) as response:
                    seen = b""
                    async for piece in response.aiter_bytes():
                        seen += piece
                        if b"Hello" in seen:
                            break
                    left = time.monotonic()
                with anyio.fail_after(3):
                    while provider.exchanges[0].disconnected_monotonic is None:  # noqa: ASYNC110
                        await anyio.sleep(0.001)
                await client.close()
            assert provider.violations == []
            assert provider.exchanges[0].disconnected_monotonic - left < 0.05
            assert b"event: text\n" in seen

    anyio.run(main)


def test_a_whole_answer_over_sockets() -> None:
    """From the provider's socket to the client's: a broken attempt, the seam, the answer, the end."""

    async def main() -> None:
        good = [wire.message_start(), wire.block_start(), wire.text_delta("Good."), wire.block_stop()]
        good += [wire.message_delta(), wire.message_stop()]
        async with ScriptedServer([*STARTED, pause(0.01)], good) as provider:
            client = anthropic.AsyncAnthropic(api_key="sk-ant-test", base_url=provider.url)
            retry = streamguard.Retry(attempts=2, rules=[streamguard.Rule(when=["transport.*"])])

            async def endpoint(request: Any) -> Any:
                source = messages(client, model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
                return relay.response(streamguard.stream(source, policy=Policy(retry=retry), deliver="restarting"))

            async with serving(Starlette(routes=[Route("/chat", endpoint)])) as url, httpx2.AsyncClient() as browser:
                response = await browser.get(f"{url}/chat")
            await client.close()
        frames = [frame for frame in response.text.split("\n\n") if frame and not frame.startswith(":")]
        data = [json.loads(frame.split("data: ")[1]) for frame in frames]
        assert [one["type"] for one in data] == ["text", "restarted", "text", "done"]
        assert data[1]["reason"] == "transport.incomplete"
        assert data[2]["text"] == "Good."

    anyio.run(main)
