"""A proxy over real sockets, in the test's own event loop, in front of a scripted upstream."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import httpx2
import msgspec

from streamguard import Policy, Timeouts
from streamguard.proxy.app import Proxy
from streamguard.proxy.config import Listen, ProxyConfig
from streamguard.proxy.configfile import Setup
from streamguard.proxy.server import ProxyServer, bound_socket
from streamguard.testing import ScriptedServer

KEY = "sk-ant-api03-canary-0123456789abcdef"
TOTAL = Timeouts(total=20)
LIVE = Policy(deliver="live", timeouts=TOTAL)
COMMITTED = Policy(deliver="committed", timeouts=TOTAL)

REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hi"}],
}
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}


class Running(msgspec.Struct, kw_only=True):
    """A proxy that serves."""

    url: str
    port: int
    proxy: Proxy
    server: ProxyServer
    upstream: ScriptedServer
    http: httpx2.AsyncClient

    async def ask(self, *, stream: bool = True, headers: Mapping[str, str] = HEADERS, **more: Any) -> httpx2.Response:
        """One Messages request, read to its end."""
        body = {**REQUEST, "stream": stream, **more}
        return await self.http.post(f"{self.url}/v1/messages", json=body, headers=dict(headers))

    async def raw(self, data: bytes, *, until_closed: bool = True) -> bytes:
        """What comes back for raw bytes on a new connection."""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as connection:
            await connection.send(data)
            return await received(connection) if until_closed else await connection.receive()


async def received(connection: anyio.abc.ByteStream) -> bytes:
    """Everything until the other side closes."""
    found = b""
    try:
        while True:
            found += await connection.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return found


def setup(config: ProxyConfig, policies: Mapping[str, Policy | None], *, key: str | None, tokens: Mapping[str, str]):
    """A configuration as if it had been read."""
    return Setup(config=config, policies={"off": None, **policies}, default="default", key=key, tokens=tokens)


@asynccontextmanager
async def proxied(
    upstream: ScriptedServer,
    policy: Policy | None = LIVE,
    *,
    policies: Mapping[str, Policy | None] | None = None,
    key: str | None = None,
    tokens: Mapping[str, str] | None = None,
    **config: Any,
) -> AsyncIterator[Running]:
    """A proxy in front of `upstream`, which must serve already."""
    named = {"default": policy, **(policies or {})}
    url = config.pop("upstream_url", upstream.url)
    config = {"upstream": url, "listen": Listen(port=0), "policies": dict.fromkeys(named, "x"), **config}
    made = ProxyConfig(**config)
    proxy = Proxy(setup(made, named, key=key, tokens=tokens or {}))
    server = ProxyServer(proxy)
    listener = bound_socket(made.listen)
    port = listener.getsockname()[1]
    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, listener, started.set)
        await started.wait()
        failure: Exception | None = None
        async with httpx2.AsyncClient(timeout=15) as http:
            try:
                yield Running(
                    url=f"http://127.0.0.1:{port}", port=port, proxy=proxy, server=server, upstream=upstream, http=http
                )
            except Exception as error:
                failure = error  # raised outside of the group, which would wrap it
        server.stop()
    if failure is not None:
        raise failure


def with_proxy(
    scripted: Any, test: Callable[[Running], Awaitable[None]], policy: Policy | None = LIVE, **options: Any
) -> None:
    """Run `test` with a proxy in front of a scripted upstream, within ten seconds."""

    async def main() -> None:
        with anyio.fail_after(10):
            async with ScriptedServer(*scripted) as upstream, proxied(upstream, policy, **options) as running:
                await test(running)

    anyio.run(main)


async def until(condition: Callable[[], object], seconds: float = 8) -> None:
    """Wait until something is so."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  what another process or socket does sets no event here
            await anyio.sleep(0.002)


@contextmanager
def served(scripted: Any, policy: Policy | None = LIVE, **options: Any) -> Iterator[Running]:
    """A proxy in a thread of its own, for tests with blocking sockets and programs; shared by many of them."""

    @asynccontextmanager
    async def both() -> AsyncIterator[Running]:
        async with ScriptedServer(*scripted) as upstream, proxied(upstream, policy, **options) as running:
            yield running

    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(both()) as running:
        yield running


def exchange(port: int, data: bytes, *, whole: bool = True, width: int | None = None) -> bytes:
    """What comes back for raw bytes on a new connection, by a blocking socket: all of it, or the first read."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        found = b""
        try:
            for at in range(0, len(data), width or max(1, len(data))):
                connection.sendall(data[at : at + (width or len(data))])
        except (BrokenPipeError, ConnectionResetError):
            pass
        while True:
            try:
                piece = connection.recv(65_536)
            except ConnectionResetError:
                return found
            found += piece
            if not piece or (not whole and _complete(found)):
                return found


def _complete(response: bytes) -> bool:
    """Whether a response of a known length is all there."""
    head, end, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def error_of(body: bytes) -> dict[str, Any]:
    """The error of a JSON body, or of the `error` event that a stream ends with."""
    if b"event: error" in body:
        body = body.rpartition(b"event: error\ndata: ")[2].split(b"\n")[0]
    found = json.loads(body)
    assert found["type"] == "error"
    return found["error"]


def head_of(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a raw response."""
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    return int(line.split(" ")[1]), {k.lower(): v for k, v in (one.split(": ", 1) for one in headers)}, body
