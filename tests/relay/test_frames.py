"""What a browser is told: frames, in both styles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.errors import GaveUp
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Metered,
    Other,
    Ping,
    Restarted,
    Started,
    Stopped,
    Usage,
)
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome
from streamguard.relay.frames import Frames
from streamguard.usage import UsageRange
from streamguard.verdict import Decision

AGAIN = Decision(action="retry", reason="json.malformed", wait=0.0, rule=0, why="rule 0, attempt 2 of 3")
USED = UsageRange.of(Usage(input_tokens=5, output_tokens=7))


def told(frames: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Frames of the style `named` as (event, data), their form checked."""
    found = []
    for frame in frames.split(b"\n\n")[:-1]:
        ident, event, data = frame.split(b"\n")
        assert ident.startswith(b"id: x:")
        assert event.startswith(b"event: ")
        found.append((event[7:].decode(), json.loads(data.removeprefix(b"data: "))))
    return [(event, {name: value for name, value in data.items() if name != "type"}) for event, data in found]


BATCH: list[Event] = [
    Started("m", "model", Usage()),
    Ping(),
    BlockStarted(0, "thinking", "thinking"),
    Delta(0, "thinking", "hm"),
    BlockStopped(0),
    BlockStarted(1, "text", "text"),
    Delta(1, "text", "Hel"),
    Delta(1, "text", "lo"),
    Other("x"),
    BlockStopped(1),
    BlockStarted(2, "tool_input", "tool_use", name="look_up", id="toolu_1"),
    Delta(2, "tool_input", '{"a": '),
    Delta(2, "tool_input", "1}"),
    BlockStopped(2),
    BlockStarted(3, "text", "text"),
    Delta(3, "text", "Bye"),
    Metered(Usage(output_tokens=3), "end_turn"),
    Stopped("end_turn"),
]


@pytest.mark.parametrize(
    ("include", "events"),
    [
        ((), [("text", {"block": 1, "text": "Hello"}), ("text", {"block": 3, "text": "Bye"})]),
        (
            ("thinking", "tools"),
            [
                ("thinking", {"block": 0, "text": "hm"}),
                ("text", {"block": 1, "text": "Hello"}),
                ("tool", {"block": 2, "id": "toolu_1", "name": "look_up", "input": {"a": 1}}),
                ("text", {"block": 3, "text": "Bye"}),
            ],
        ),
    ],
)
def test_a_batch(include: Any, events: Any) -> None:
    """Pieces of a block become one frame, thinking and tools only on request, in order; all else is left out."""
    assert told(Frames(include=include, id="x").feed(BATCH)) == events


def test_event_by_event() -> None:
    """However the stream is cut, the text comes out the same, and a tool call in one piece."""
    frames = Frames(include=["tools"], id="x")
    events = told(b"".join(frames.feed([event]) for event in BATCH))
    assert "".join(data["text"] for event, data in events if event == "text") == "HelloBye"
    assert [data["input"] for event, data in events if event == "tool"] == [{"a": 1}]
    assert frames.count == 4


def test_ids() -> None:
    """Ids name the stream and count its frames, so that a browser says where it was."""
    frames = Frames(id="s")
    text = frames.feed([Delta(0, "text", "a")]) + frames.feed([Delta(0, "text", "b")])
    assert [line for line in text.split(b"\n") if line.startswith(b"id")] == [b"id: s:1", b"id: s:2"]


@pytest.mark.parametrize(("text", "told_input", "told_text"), [("", {}, None), ('{"a', None, '{"a'), ("[", None, "[")])
def test_odd_tool_input(text: str, told_input: Any, told_text: Any) -> None:
    """An input without a character is an empty object; one that is no JSON is told as the text it is."""
    block = BlockStarted(0, "tool_input", "tool_use", name="t", id="i")
    [(event, data)] = told(
        Frames(include=["tools"], id="x").feed([block, Delta(0, "tool_input", text), BlockStopped(0)])
    )
    assert (event, data["input"], data.get("text")) == ("tool", told_input, told_text)


def test_a_restart_voids_an_open_tool_call() -> None:
    """What a thrown-away attempt said of a tool call is not told with the next one's."""
    block = BlockStarted(0, "tool_input", "tool_use", name="t", id="i")
    events = [block, Delta(0, "tool_input", '{"a'), Restarted(2), block, Delta(0, "tool_input", "{}"), BlockStopped(0)]
    assert [event for event, _ in told(Frames(include=["tools"], id="x").feed(events))] == ["restarted", "tool"]


@pytest.mark.parametrize(
    ("include", "message"), [((), "no continuation is JSON"), (("messages",), "rule 0, attempt 2 of 3")]
)
def test_restarted(include: Any, message: str) -> None:
    """A restart names its reason; the policy's own words only on request."""
    assert told(Frames(include=include, id="x").feed([Restarted(2, AGAIN)])) == [
        ("restarted", {"attempt": 2, "reason": "json.malformed", "message": message})
    ]


def test_done() -> None:
    """The end says how the answer was accepted; value and usage only on request."""
    attempt = AttemptRecord(number=1, usage=USED, stop_reason="end_turn")
    outcome = Outcome(attempts=(attempt,), usage=USED, cost=Cost(12, 12), completed="whole", value={"a": 1})
    plain = {"completed": "whole", "stop_reason": "end_turn", "attempts": 1}
    counts = {"input_tokens": 5, "output_tokens": 7}
    more = {"value": {"a": 1}, "usage": {"low": counts, "high": counts, "exact": True}, "cost_usd": "0.000012"}
    assert told(Frames(id="x").done(outcome)) == [("done", plain)]
    assert told(Frames(id="x", include=["value", "usage"]).done(outcome)) == [("done", plain | more)]


@pytest.mark.parametrize(
    ("error", "include", "data"),
    [
        (
            GaveUp("secret knob", reason="cap.cost", record=CallRecord(usage=USED)),
            (),
            {"reason": "cap.cost", "message": "costs more than allowed", "attempts": 0},
        ),
        (
            GaveUp("the knob", reason="cap.cost", record=CallRecord(usage=USED)),
            ("messages",),
            {"reason": "cap.cost", "message": "the knob", "attempts": 0},
        ),
        (
            GaveUp("secret", reason="house.rule", record=CallRecord(usage=USED)),
            (),
            {"reason": "house.rule", "message": "a guard of the application's own", "attempts": 0},
        ),
        (
            ValueError("secret"),
            ("messages",),
            {"reason": "internal", "message": "something went wrong on our side", "attempts": None},
        ),
    ],
)
def test_error(error: Exception, include: Any, data: Any) -> None:
    """An error names its reason in general words; the message only on request, and never an exception's own."""
    assert told(Frames(include=include, id="x").error(error)) == [("error", data)]


def test_data_style() -> None:
    """In the style `data` there is nothing but data lines, and `[DONE]` is last, also after an error."""
    frames = Frames(style="data")
    outcome = Outcome(usage=USED, completed="whole")
    assert frames.feed([Delta(0, "text", "a\nb")]) == b'data: {"type":"text","block":0,"text":"a\\nb"}\n\n'
    assert frames.done(outcome).endswith(b"}\n\ndata: [DONE]\n\n")
    assert frames.error(ValueError()).endswith(b"}\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("text", ["a\nb\r\nc\rd", "\u2028\u2029", "</script>", 'data: x\n\nevent: done\ndata: "', "😀"])
def test_text_cannot_break_out(text: str) -> None:
    """Whatever an answer says, it stays inside of its one data line."""
    assert told(Frames(id="x").feed([Delta(0, "text", text)])) == [("text", {"block": 0, "text": text})]


def test_half_a_pair() -> None:
    """A character that was cut in two between pieces comes together in the browser."""
    frames = Frames(id="x")
    halves = [frames.feed([Delta(0, "text", half)]) for half in ("\ud83d", "\ude00")]
    assert [json.loads(frame.split(b"data: ")[1])["text"] for frame in halves] == ["\ud83d", "\ude00"]
    assert all(frame.isascii() for frame in halves)


def test_misuse() -> None:
    """Styles and inclusions are a closed set."""
    with pytest.raises(ValueError, match="style is one of named, data, not 'openai'"):
        Frames(style="openai")
    with pytest.raises(ValueError, match="include takes thinking, tools, value, usage, messages, not 'cost'"):
        Frames(include=["cost"])
