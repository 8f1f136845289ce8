"""The builders of wire bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Failed,
    Metered,
    Other,
    Ping,
    Restarted,
    Started,
    Stopped,
    Usage,
)
from streamguard.testing import answer, tool_answer, wire
from tests.data import path


def read(frames):
    """The events of some frames."""
    return Translator().translate(Decoder().feed(b"".join(frames)))


STARTED = Started(wire.MESSAGE_ID, wire.MODEL, Usage(input_tokens=12))


def test_frame_on_the_wire():
    """The plain and the real spelling of one event, byte by byte."""
    assert wire.text_delta("hé\n") == (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"h\xc3\xa9\\n"}}\n\n'
    )
    assert wire.ping() == b'event: ping\ndata: {"type": "ping"}\n\n'
    padded = wire.text_delta("h", style=wire.REAL)
    assert padded.rstrip(b"\n").endswith(b'"h"}' + b" " * (len(padded) - len(wire.text_delta("h"))) + b"}")


@pytest.mark.parametrize("style", wire.STYLES)
def test_styles_mean_the_same(style):
    """A stream has the same events in every spelling."""
    spelled = wire.STYLES[style]
    assert read(wire.text_stream("héllo", 3, style=spelled)) == [
        STARTED,
        BlockStarted(0, "text", "text"),
        Ping(),
        Delta(0, "text", "hél"),
        Delta(0, "text", "lo"),
        BlockStopped(0),
        Metered(Usage(output_tokens=2), "end_turn"),
        Stopped("end_turn"),
    ]


def test_styles_differ():
    """No two styles spell a stream alike."""
    assert len({b"".join(wire.text_stream("hello", style=style)) for style in wire.STYLES.values()}) == len(wire.STYLES)


def test_tool_stream():
    """A tool call has an empty first fragment, a name and an id."""
    frames = wire.tool_stream("book", '{"a":1}', 3, preamble="Well")
    assert sum(b'"partial_json":""' in frame for frame in frames) == 1
    assert read(frames) == [
        STARTED,
        BlockStarted(0, "text", "text"),
        Delta(0, "text", "Wel"),
        Delta(0, "text", "l"),
        BlockStopped(0),
        BlockStarted(1, "tool_input", "tool_use", "book", wire.TOOL_ID),
        Ping(),
        Delta(1, "tool_input", '{"a'),
        Delta(1, "tool_input", '":1'),
        Delta(1, "tool_input", "}"),
        BlockStopped(1),
        Metered(Usage(output_tokens=3), "tool_use"),
        Stopped("tool_use"),
    ]


def test_thinking_then_text():
    """Thinking has a signature and is part of the output that is counted."""
    assert read(wire.thinking_then_text("hmmm", "yes", 4)) == [
        STARTED,
        BlockStarted(0, "thinking", "thinking"),
        Ping(),
        Delta(0, "thinking", "hmmm"),
        Other("signature_delta", 0),
        BlockStopped(0),
        BlockStarted(1, "text", "text"),
        Delta(1, "text", "yes"),
        BlockStopped(1),
        Metered(Usage(output_tokens=2, thinking_tokens=1), "end_turn"),
        Stopped("end_turn"),
    ]


def test_error_event():
    """An error event carries type, message, code and request id."""
    assert read([wire.error("rate_limit_error", "slow down", code="x_spend_limit_reached", request_id="req_1")]) == [
        Failed(
            reason="provider.spend_limit",
            message="slow down",
            type="rate_limit_error",
            status=200,
            code="x_spend_limit_reached",
            request_id="req_1",
        )
    ]


EVENTS = [
    Started("msg_1", "m", Usage(input_tokens=3, cache_read_tokens=4, cache_write_tokens=5, cache_write_1h_tokens=2)),
    Started(None, None),
    BlockStarted(2, "tool_input", "tool_use", "t", "toolu_1"),
    BlockStarted(1, "server_tool", "server_tool_use", "web_search", "srvtoolu_1"),
    BlockStarted(0, "thinking", "redacted_thinking"),
    BlockStarted(0, "other", "web_search_tool_result"),
    Delta(0, "text", "a\u2028\n\U0001f600"),
    Delta(3, "thinking", " "),
    Delta(4, "tool_input", '{"'),
    BlockStopped(7),
    Metered(Usage(output_tokens=9, thinking_tokens=4), "stop_sequence", "###"),
    Metered(Usage(output_tokens=1)),
    Ping(),
    Stopped(),
    Other("signature_delta", 0),
    Other("citations_delta", 0),
    Other("shiny_delta", 3),
    Other("future_thing"),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_encode_is_the_way_back(event):
    """A neutral event, encoded and translated, is itself."""
    assert read([wire.encode(event)]) == [event]


def test_restarted_has_no_wire_form():
    """What only the engine says cannot be sent."""
    with pytest.raises(ValueError, match="no wire form"):
        wire.encode(Restarted(2))


@pytest.mark.parametrize("events", [answer("some text", thinking="hm"), tool_answer("t", '{"a": [1]}', text="So")])
def test_whole_answers_survive_the_wire(events):
    """A good answer, encoded and translated, is itself."""
    assert read(map(wire.encode, events)) == events


@settings(max_examples=60)
@given(text=st.text(min_size=1), chunk=st.integers(1, 9), style=st.sampled_from(sorted(wire.STYLES)))
def test_any_text_survives(text, chunk, style):
    """Any text comes out as it went in, whatever the style and the size of the pieces."""
    text = text.encode("utf-8", "replace").decode()
    events = read(wire.text_stream(text, chunk, style=wire.STYLES[style]))
    assert "".join(event.text for event in events if isinstance(event, Delta)) == text


def test_assemble():
    """The same answer without streaming, as the API has it."""
    assert wire.assemble(wire.tool_stream("t", '{"a":1}', preamble="Well", usage={"output_tokens": 5})) == {
        "id": wire.MESSAGE_ID,
        "type": "message",
        "role": "assistant",
        "model": wire.MODEL,
        "content": [
            {"type": "text", "text": "Well"},
            {"type": "tool_use", "id": wire.TOOL_ID, "name": "t", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 5},
    }
    assert wire.assemble(wire.thinking_then_text("hm", "ok"))["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"},
        {"type": "text", "text": "ok"},
    ]
    assert wire.assemble(wire.tool_stream("t", '{"a":'))["content"][0]["input"] == '{"a":'
    assert wire.assemble([wire.message_start(), wire.error()]) == wire.error_body("overloaded_error", "Overloaded")


def test_real_padding_is_what_was_recorded():
    """The padding of the real style is within what recorded frames have: 0 to 15 spaces, before the last brace only."""
    recorded = path("sse", "thinking_text.sse").read_bytes()
    spaces = {len(line) - len(line[:-1].rstrip()) - 1 for line in recorded.split(b"\n") if line.startswith(b"data: ")}
    made = {
        len(frame) - len(wire.text_delta(str(number)))
        for number in range(100)
        if (frame := wire.text_delta(str(number), style=wire.REAL))
    }
    assert spaces <= set(range(16))
    assert made == set(range(16))
    assert all(json.loads(line[6:]) for line in recorded.split(b"\n") if line.startswith(b"data: "))
