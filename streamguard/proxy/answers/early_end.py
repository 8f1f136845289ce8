"""The end of an answer that was stopped because its document was complete (`completed: cut`).

The upstream never said it, so it is said here, for clients that wait for a whole message. In charge of those frames,
and of the same in a JSON message. The output count is the upper end of an estimate; `x-streamguard-completed` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from streamguard.events import BlockStarted, BlockStopped, Delta, Event
from streamguard.outcome import Outcome


class OpenBlocks:
    """The blocks of an answer that have begun and not ended."""

    def __init__(self) -> None:
        self.blocks: dict[int, str] = {}
        """Index → kind."""
        self.text = 0
        """Characters of the text that was released."""

    def see(self, events: Iterable[Event]) -> None:
        """Events as the engine releases them."""
        for event in events:
            if type(event) is BlockStarted:
                self.blocks[event.index] = event.kind
            elif type(event) is BlockStopped:
                self.blocks.pop(event.index, None)
            elif type(event) is Delta and event.kind == "text":
                self.text += len(event.text)


def stop_reason(kinds: Iterable[str]) -> str:
    """What the answer would have ended with: a tool's complete input is a tool's use."""
    return "tool_use" if "tool_input" in kinds else "end_turn"


def surplus(outcome: Outcome) -> int:
    """Characters of the answer's text behind its document: they came with the very piece that closed it."""
    text, document = outcome.attempts[-1].text, outcome.text
    at = text.find(document) if document else -1
    return len(text) - at - len(document) if at >= 0 else 0


def without_surplus(frames: list[bytes], outcome: Outcome, released: int) -> list[bytes]:
    """The last frames of an answer, their text cut where its document ends.

    :param released: characters of the text in all frames of the answer; the guards may have been shown more.
    """
    left = surplus(outcome) - (len(outcome.attempts[-1].text) - released)
    if left <= 0:
        return frames
    kept: list[bytes] = []
    for frame in reversed(frames):
        head, data, body = frame.partition(b"data:")
        if left and data and b'"text_delta"' in body:
            event = json.loads(body)
            text: str = event["delta"]["text"]
            event["delta"]["text"] = text[: max(0, len(text) - left)]
            left -= len(text) - len(event["delta"]["text"])
            kept.append(head + b"data: " + json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n\n")
        else:
            kept.append(frame)
    return kept[::-1]


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
    read = sum(len(block["text"]) for block in content if block.get("type") == "text")
    # The message may hold more than the guards were shown: whatever the last read brought.
    left = surplus(outcome) + max(0, read - len(outcome.attempts[-1].text))
    for block in reversed(content):
        if block.get("type") == "text" and left and outcome.text:
            block["text"], left = block["text"][: max(0, len(block["text"]) - left)], max(0, left - len(block["text"]))
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
