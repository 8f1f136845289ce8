"""The end of an answer that was stopped because it was complete (`completed: cut` and `enough`).

The upstream never said it, so it is said here, for clients that wait for a whole message. In charge of those frames,
and of the same in a JSON message. The output count is the upper end of an estimate; `x-streamguard-completed` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from streamguard.events import BlockStarted, BlockStopped, Event
from streamguard.outcome import Outcome


class OpenBlocks:
    """The blocks of an answer that have begun and not ended."""

    def __init__(self) -> None:
        self.blocks: dict[int, str] = {}
        """Index → kind."""

    def see(self, events: Iterable[Event]) -> None:
        """Events as the engine releases them."""
        for event in events:
            if type(event) is BlockStarted:
                self.blocks[event.index] = event.kind
            elif type(event) is BlockStopped:
                self.blocks.pop(event.index, None)


def stop_reason(kinds: Iterable[str]) -> str:
    """What the answer would have ended with: a tool's complete input is a tool's use."""
    return "tool_use" if "tool_input" in kinds else "end_turn"


def closing_frames(open_blocks: OpenBlocks, outcome: Outcome) -> bytes:
    """What is missing to the end of the message."""
    kinds = open_blocks.blocks
    delta = {"stop_reason": stop_reason(kinds.values()), "stop_sequence": None}
    events: list[dict[str, Any]] = [{"type": "content_block_stop", "index": index} for index in kinds]
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": _tokens(outcome)}})
    events.append({"type": "message_stop"})
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode() for event in events
    )


def closed(message: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """A message that was stopped, with its end."""
    content: list[dict[str, Any]] = [dict(block) for block in message.get("content", ())]
    for block in content:
        partial = block.pop("partial_json", None)
        if partial is not None:
            # A block that was not closed; its input is complete, or the answer would not stand.
            block["input"] = json.loads(partial)
    tool = bool(content) and content[-1].get("type") == "tool_use"
    return {
        **message,
        "content": content,
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": {**message.get("usage", {}), "output_tokens": _tokens(outcome)},
    }


def _tokens(outcome: Outcome) -> int:
    usage = outcome.attempts[-1].usage
    return usage.high.output_tokens or usage.low.output_tokens or 0
