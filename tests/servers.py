"""What recordings of servers come to: the table in `docs/reference/servers.md`, made from the recorded bytes.

Write the page anew with `python -m tests.servers`, where the recordings are.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import anthropic
import anyio
import httpx2

from streamguard import GuardMiddleware, Policy, load_policy, messages, run
from streamguard.errors import CallError
from streamguard.retry.rules import Retry
from tests.data import ROOT, path

PAGE: Final = ROOT / "docs" / "reference" / "servers.md"
BEGIN: Final = "<!-- the table begins: python -m tests.servers -->"
END: Final = "<!-- the table ends -->"

SERVERS: Final = {
    "litellm": "LiteLLM 1.105.7, chat completions behind it",
    "litellm_an": "LiteLLM 1.105.7, Anthropic behind it",
    "litellm_oa": "LiteLLM 1.105.7, OpenAI behind it",
    "ccr": "claude-code-router 2.0.0",
    "vllm": "vLLM 0.32.0 (its own converter)",
    "llamacpp": "llama.cpp (xllamacpp 2026.10.11549)",
    "portkey": "Portkey 1.15.2, OpenAI behind it",
    "portkey_an": "Portkey 1.15.2, Anthropic behind it",
    "ollama": "Ollama, by its source",
    "envoy": "Envoy AI gateway, by its source",
    "bifrost": "Bifrost, by its source",
    "anthropic_order": "The API's order of events, by hand",
    "variants": "Variants seen in issue threads, by hand",
}

REQUEST: Final[dict[str, Any]] = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "x"}]}


def recordings(server: str) -> Iterator[tuple[str, bytes]]:
    """The scenarios of a server, with what came over the socket."""
    with zipfile.ZipFile(path("servers", f"{server}.zip")) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".raw") and not name.endswith(".json.raw"):
                yield name.rpartition("/")[2].removesuffix(".raw"), archive.read(name)


def answering(raw: bytes) -> Callable[[httpx2.Request], httpx2.Response]:
    """A transport's handler that says what was recorded; a body that was cut breaks off."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = [tuple(part.strip() for part in line.split(b":", 1)) for line in lines]
    named = {name.lower(): value for name, value in headers}
    whole = True
    if b"chunked" in named.get(b"transfer-encoding", b"").lower():
        body, whole = _dechunked(body)
    elif (length := named.get(b"content-length")) is not None:
        whole = len(body) >= int(length)
    kept = [one for one in headers if one[0].lower() not in (b"transfer-encoding", b"content-length", b"connection")]

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield body
            if not whole:
                raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")

    status = int(first.split()[1])
    return lambda request: httpx2.Response(status, headers=kept, stream=Body(), request=request)  # type: ignore[arg-type]


def _dechunked(body: bytes) -> tuple[bytes, bool]:
    reader, out = io.BytesIO(body), b""
    while line := reader.readline():
        if not (size := re.match(rb"[0-9a-fA-F]+", line)):
            return out, False
        if not (count := int(size.group(), 16)):
            return out, True
        piece = reader.read(count)
        out += piece
        if len(piece) < count or not reader.read(2):
            return out, False
    return out, False


def once(policy: Policy) -> Policy:
    """The policy without a second attempt: a verdict is one attempt's."""
    return policy.model_copy(update={"retry": Retry()})


@cache
def policies() -> dict[str, Policy]:
    tools = load_policy("streamguard:tool_input")
    assert tools.json_document is not None
    syntax = tools.json_document.model_copy(update={"schema_": None})
    return {
        "no guards of its own": Policy(),
        "extraction": once(load_policy("streamguard:extraction")),
        "tool_input": once(tools.model_copy(update={"json_document": syntax})),
        "interactive_chat": once(
            load_policy("streamguard:interactive_chat").model_copy(update={"deliver": "committed"})
        ),
    }


async def plain(raw: bytes) -> tuple[str, Any]:
    """What the SDK alone makes of it."""
    async with _client(raw) as sdk:
        try:
            async with sdk.beta.messages.stream(**REQUEST) as stream:
                message = await stream.get_final_message()
        except Exception as error:
            return type(error).__name__, None
        return "accepted", message


async def guarded(raw: bytes, policy: Policy, request: Mapping[str, Any] = REQUEST) -> tuple[str, Any]:
    """How a guarded call ends, and its message."""
    async with _client(raw) as sdk:
        try:
            outcome = await run(messages(sdk, beta=True, **request), policy=policy)
        except CallError as error:
            return f"`{error.reason}`", None
        return str(outcome.completed), outcome.message


async def through_middleware(raw: bytes, policy: Policy) -> tuple[str, Any]:
    """The same for a caller of the SDK behind the middleware."""
    async with _client(raw, middleware=[GuardMiddleware(policy)]) as sdk:
        try:
            message = await sdk.beta.messages.create(**REQUEST)
        except CallError as error:
            return f"`{error.reason}`", None
        return "whole", message


def _client(raw: bytes, **options: Any) -> anthropic.AsyncAnthropic:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answering(raw)))
    return anthropic.AsyncAnthropic(api_key="x", http_client=http, max_retries=0, **options)


async def row(server: str, scenario: str, raw: bytes) -> str:
    """One line of the table."""
    cells = [(await plain(raw))[0], *[(await guarded(raw, policy))[0] for policy in policies().values()]]
    return f"| {scenario} | {' | '.join(cells)} |"


async def table() -> str:
    """All of it."""
    lines: list[str] = []
    for server, what in SERVERS.items():
        lines += ["", f"### {what}", "", f"| scenario | the SDK alone | {' | '.join(policies())} |"]
        lines.append("|" + " --- |" * (len(policies()) + 2))
        lines += [await row(server, scenario, raw) for scenario, raw in recordings(server)]
    return "\n".join([*lines, ""])


def api_recordings() -> list[tuple[str, bytes]]:
    """What the real API sent, as public projects keep it."""
    with zipfile.ZipFile(path("api_recordings.zip")) as archive:
        return [(name, archive.read(name)) for name in sorted(archive.namelist()) if name.endswith(".sse")]


def head(body: bytes) -> bytes:
    """A recorded body as it came over a socket."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{await table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    anyio.run(main)
