"""What the tests of conversations share: blocks, answers, and a provider."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2

import streamguard
from streamguard import Policy, Retry, Rule, messages
from streamguard.conversation import Conversation
from streamguard.testing import wire

AGAIN = Policy(retry=Retry(attempts=3, rules=[Rule(when=["transport.*"])]))


SETUP = {"model": "m", "max_tokens": 100}


DELTA = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


def block(index: int, body: dict[str, Any], *, stop: bool = True) -> list[bytes]:
    """The frames of one content block, as the API sends its kind."""
    kind = body["type"]
    if kind == "text":
        frames = [wire.block_start(index), *(wire.text_delta(piece, index) for piece in wire.pieces(body["text"], 3))]
    elif kind == "thinking":
        frames = [wire.block_start(index, "thinking"), wire.thinking_delta(body["thinking"], index)]
        frames += [wire.signature_delta(body["signature"], index)] if body.get("signature") else []
    elif kind == "tool_use":
        frames = [wire.block_start(index, "tool_use", id=body["id"], name=body["name"])]
        frames += [wire.input_json_delta(piece, index) for piece in wire.pieces(json.dumps(body["input"]), 5)]
    else:
        frames = [wire.block_start(index, **body)]
    return [*frames, wire.block_stop(index)] if stop else frames


def stream(*blocks: dict[str, Any], stop: str | None = "end_turn", whole: bool = True) -> bytes:
    """An answer of these blocks; one that is not `whole` breaks off inside its last block."""
    frames = [wire.message_start()]
    for index, body in enumerate(blocks):
        frames += block(index, body, stop=whole or index < len(blocks) - 1)
    return b"".join([*frames, wire.message_delta(stop), wire.message_stop()] if whole else frames)


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def thought(said: str, signature: str | None = "c2ln") -> dict[str, Any]:
    return {"type": "thinking", "thinking": said} | ({"signature": signature} if signature else {})


def call(number: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "look_up", "input": arguments}


def result(number: str, content: Any = "found", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": content, **fields}


class Provider:
    """Answers each request with the next stream, and remembers the requests."""

    def __init__(self, *streams: bytes) -> None:
        self.streams = list(streams)
        self.asked: list[dict[str, Any]] = []
        transport = httpx2.MockTransport(self._answer)
        self.client = anthropic.AsyncAnthropic(
            api_key="sk-ant-test", http_client=httpx2.AsyncClient(transport=transport)
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(json.loads(request.content))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self.streams.pop(0))

    async def run(self, conversation: Conversation, policy: Policy = AGAIN, **changes: Any) -> Any:
        return await streamguard.run(messages(self.client, **conversation.request(**changes)), policy=policy)


def told(stop_reason: str | None, *content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content), "stop_reason": stop_reason}
