"""One recorded response through every door of the package, over a loopback socket, cut at random places.

`python -m bench.recorded_doors` takes all recordings there are. What comes out of a door is a `Verdict`: how the call ended, and the answer in the provider's own terms. All doors read
the same bytes with the same code, so all verdicts of one recording are to be the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import anthropic
import anyio
import anyio.abc
import anyio.to_thread
import httpx2

import streamguard
from streamguard import GuardMiddleware, Policy, messages
from streamguard.adapters.anthropic.message_builder import assembled
from streamguard.adapters.sse.decoder import Decoder
from streamguard.errors import CallError
from tests import servers
from tests.clients import loopback
from tests.proxy.running import proxied

REQUEST: Final[dict[str, Any]] = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "x"}]}


class Verdict(NamedTuple):
    """What a caller of one door sees."""

    ended: str
    """`accepted`, or the reason."""
    content: Any = None
    stop_reason: str | None = None
    usage: tuple[int | None, int | None] | None = None


class Replay:
    """A server that answers every request with the same bytes, in pieces that a seed decides, and hangs up."""

    def __init__(self, raw: bytes, seed: int) -> None:
        self._raw, self._random = raw, random.Random(seed)
        self.url = ""
        self.requests = 0

    async def __call__(self, connection: anyio.abc.SocketStream) -> None:
        async with connection:
            try:
                await _request(connection)
                self.requests += 1
                for piece in self._pieces():
                    await connection.send(piece)
                    await anyio.lowlevel.checkpoint()
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass

    def _pieces(self) -> list[bytes]:
        raw = self._raw
        cuts = sorted(self._random.randrange(len(raw) + 1) for _ in range(self._random.choice((0, 1, 5, 30))))
        return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if b > a]


async def _request(connection: anyio.abc.SocketStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await connection.receive()
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    left = int(length[1]) if length else 0
    left -= len(head.partition(b"\r\n\r\n")[2])
    while left > 0:
        left -= len(await connection.receive())


@asynccontextmanager
async def replayed(raw: bytes, seed: int = 0) -> AsyncIterator[Replay]:
    """A `Replay` that listens."""
    replay = Replay(raw, seed)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        replay.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, replay)
        try:
            yield replay
        finally:
            tasks.cancel_scope.cancel()


def _said(message: Any) -> Verdict:
    body = message if isinstance(message, Mapping) else message.to_dict(warnings=False)
    content = [_block(block) for block in body.get("content") or ()]
    usage = body.get("usage") or {}
    return Verdict(
        "accepted", content, body.get("stop_reason"), (usage.get("input_tokens"), usage.get("output_tokens"))
    )


def _block(block: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = block.get("type")
    if kind == "text":
        return kind, block.get("text") or ""
    if kind == "thinking":
        return kind, block.get("thinking") or ""
    if kind == "tool_use":
        return kind, block.get("name"), block.get("input") or {}
    return (kind,)


def _client(url: str, *middleware: Any) -> anthropic.AsyncAnthropic:
    options = {"middleware": list(middleware)} if middleware else {}
    return anthropic.AsyncAnthropic(api_key="x", base_url=url, http_client=loopback(), max_retries=0, **options)


async def _run(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    async with _client(url) as sdk:
        return _said((await streamguard.run(messages(sdk, beta=True, **request), policy=policy)).message)


async def _stream(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    live = policy.model_copy(update={"deliver": "live"})
    async with _client(url) as sdk, streamguard.stream(messages(sdk, beta=True, **request), policy=live) as events:
        async for _ in events:
            pass
        return _said(events.result().message)


async def _sync(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    def ask() -> Verdict:
        source = messages(_client(url), beta=True, http_client=loopback, **request)
        return _said(streamguard.sync.run(source, policy=policy).message)

    return await anyio.to_thread.run_sync(ask)


async def _create(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    async with _client(url, GuardMiddleware(policy)) as sdk:
        return _said(await sdk.beta.messages.create(**request))


async def _events(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    async with _client(url, GuardMiddleware(policy, deliver="live")) as sdk:
        seen: list[dict[str, Any]] = []
        async with await sdk.beta.messages.create(**request, stream=True) as stream:
            async for event in stream:
                seen.append(event.to_dict(mode="json", warnings=False))
        return _said(assembled(seen))


async def _helper(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    guard = GuardMiddleware(policy, deliver="live")
    async with _client(url, guard) as sdk, sdk.beta.messages.stream(**request) as stream:
        return _said(await stream.get_final_message())


def _blocking(url: str, policy: Policy, **options: Any) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(verify=False)
    guard = GuardMiddleware(policy, **options)
    return anthropic.Anthropic(api_key="x", base_url=url, http_client=http, max_retries=0, middleware=[guard])


async def _blocking_create(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    def ask() -> Verdict:
        with _blocking(url, policy) as sdk:
            return _said(sdk.beta.messages.create(**request))

    return await anyio.to_thread.run_sync(ask)


async def _blocking_helper(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    def ask() -> Verdict:
        with _blocking(url, policy, deliver="live") as sdk, sdk.beta.messages.stream(**request) as stream:
            return _said(stream.get_final_message())

    return await anyio.to_thread.run_sync(ask)


class _At(NamedTuple):
    """An upstream of which only the address is known."""

    url: str


async def _proxy_json(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    async with proxied(_At(url), policy) as running:  # type: ignore[arg-type]
        response = await running.ask(stream=False, **request)
    return _answered(response)


async def _proxy_stream(url: str, policy: Policy, request: Mapping[str, Any]) -> Verdict:
    live = policy.model_copy(update={"deliver": "live"})
    async with proxied(_At(url), live) as running:  # type: ignore[arg-type]
        response = await running.ask(**request)
    return _answered(response)


def _answered(response: httpx2.Response) -> Verdict:
    reason = response.headers.get("x-streamguard-reason")
    if response.status_code != 200:
        return Verdict(reason or f"status {response.status_code}")
    if not response.headers["content-type"].startswith("text/event-stream"):
        return _said(response.json())
    frames = Decoder().feed(response.content)
    if (found := re.search(rb"^: x-streamguard-reason: (\S+)", response.content, re.MULTILINE)) is not None:
        return Verdict(found[1].decode())
    if any(name == b"error" for name, _ in frames) and not any(name == b"message_stop" for name, _ in frames):
        return Verdict("an error event without a reason")
    return _said(assembled(data for _, data in frames) or {})


DOORS: Final[dict[str, Callable[[str, Policy, Mapping[str, Any]], Awaitable[Verdict]]]] = {
    "run": _run,
    "stream": _stream,
    "sync.run": _sync,
    "middleware create": _create,
    "middleware events": _events,
    "middleware stream": _helper,
    "middleware create, blocking": _blocking_create,
    "middleware stream, blocking": _blocking_helper,
    "proxy json": _proxy_json,
    "proxy stream": _proxy_stream,
}


async def verdicts(
    raw: bytes, policy: Policy, *, seed: int = 0, request: Mapping[str, Any] = REQUEST
) -> dict[str, Verdict]:
    """What every door makes of a recorded response."""
    found = {}
    async with replayed(raw, seed) as replay:
        for name, door in DOORS.items():
            try:
                found[name] = await door(replay.url, policy, request)
            except CallError as error:
                found[name] = Verdict(error.reason)
            except (anthropic.AnthropicError, Exception) as error:
                found[name] = Verdict(f"untyped: {type(error).__name__}: {error}"[:300])
    return found


async def plain(raw: bytes, *, seed: int = 0, request: Mapping[str, Any] = REQUEST) -> Verdict:
    """What the SDK alone makes of it."""
    async with replayed(raw, seed) as replay, _client(replay.url) as sdk:
        try:
            async with sdk.beta.messages.stream(**request) as stream:
                return _said(await stream.get_final_message())
        except Exception as error:
            return Verdict(type(error).__name__)


def recorded() -> list[tuple[str, bytes]]:
    """Every recorded response, of other servers and of the real API."""
    found = [(f"{server}/{name}", raw) for server in servers.SERVERS for name, raw in servers.recordings(server)]
    return found + [(f"api/{name}", servers.head(body)) for name, body in servers.api_recordings()]
