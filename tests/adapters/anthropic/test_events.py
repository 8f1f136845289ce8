"""Frames of the Messages API become neutral events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.message_builder import assembled
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Failed,
    Metered,
    Other,
    Ping,
    Started,
    Stopped,
    Usage,
)
from streamguard.testing import wire as frames
from tests.data import path

SAMPLES = {
    "dropped_no_message_stop": None,
    "error_overloaded_midstream": "provider.overloaded",
    "max_tokens_truncated": "max_tokens",
    "text_json_answer": "end_turn",
    "thinking_text": "end_turn",
    "tool_use_fine_grained": "tool_use",
}


def translated(stream: bytes, sizes: list[int] | None = None) -> list[Event]:
    """The events of a stream read in pieces of the given sizes, over and over."""
    decoder, translator = Decoder(), Translator()
    events: list[Event] = []
    at, turn = 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)] if sizes else len(stream)
        events += translator.translate(decoder.feed(stream[at : at + size]))
        at, turn = at + size, turn + 1
    return events


def wire(*events: dict[str, Any]) -> list[Event]:
    """The events of wire objects."""
    return Translator().translate([(event.get("type", "").encode(), json.dumps(event).encode()) for event in events])


def start(index: int = 0, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": piece}


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_reads_alike_whole_by_event_and_by_byte(name: str) -> None:
    """However a recorded stream is cut into reads, its events are the same, and they end as the recording does."""
    stream = path("sse", f"{name}.sse").read_bytes()
    whole = translated(stream)
    by_event = Translator()
    assert [e for part in stream.split(b"\n\n") for e in by_event.translate(Decoder().feed(part + b"\n\n"))][
        : len(whole)
    ] == whole
    assert translated(stream, [1]) == whole
    assert translated(stream, [7]) == whole
    last = whole[-1]
    end = last.stop_reason if isinstance(last, Stopped) else last.reason if isinstance(last, Failed) else None
    assert end == SAMPLES[name]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_a_sample_reads_alike_in_random_pieces(name: str, sizes: list[int]) -> None:
    """Reads of any sizes give the events of one read."""
    stream = path("sse", f"{name}.sse").read_bytes()
    assert translated(stream, sizes) == translated(stream)


def test_a_message_from_start_to_stop() -> None:
    """Each wire event becomes its neutral word; placeholder counts and empty deltas are left out."""
    usage = {
        "input_tokens": 9,
        "cache_creation_input_tokens": 700,
        "cache_read_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 600},
        "output_tokens": 7,
    }
    final = {"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 11}}
    assert wire(
        {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": usage, "unheard_of": 1}},
        start(type="thinking", thinking="", signature=""),
        {"type": "ping"},
        delta(type="thinking_delta", thinking="Hm.", estimated_tokens=3),
        delta(type="thinking_delta", thinking=""),
        delta(type="signature_delta", signature="c2ln"),
        stop(),
        start(1, type="text", text=""),
        delta(1, type="text_delta", text=""),
        delta(1, type="text_delta", text="Hi"),
        delta(1, type="citations_delta", citation={}),
        stop(1),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": final},
        {"type": "message_stop"},
    ) == [
        Started(
            "msg_1",
            "m",
            Usage(input_tokens=9, cache_read_tokens=50, cache_write_tokens=700, cache_write_1h_tokens=600),
        ),
        BlockStarted(0, "thinking", "thinking"),
        Ping(),
        Delta(0, "thinking", "Hm."),
        Other("signature_delta", 0),
        BlockStopped(0),
        BlockStarted(1, "text", "text"),
        Delta(1, "text", "Hi"),
        Other("citations_delta", 1),
        BlockStopped(1),
        Metered(Usage(output_tokens=40, thinking_tokens=11), "end_turn", None),
        Stopped("end_turn"),
    ]


@pytest.mark.parametrize(
    ("block", "pieces", "events"),
    [
        pytest.param(
            {"type": "tool_use", "id": "t", "name": "n", "input": {}},
            [""],
            [BlockStarted(0, "tool_input", "tool_use", "n", "t"), Delta(0, "tool_input", "{}"), BlockStopped(0)],
            id="a-tool-without-arguments-has-the-document-{}",
        ),
        pytest.param(
            {"type": "tool_use", "id": "t", "name": "n"},
            [],
            [BlockStarted(0, "tool_input", "tool_use", "n", "t"), Delta(0, "tool_input", "{}"), BlockStopped(0)],
            id="input-left-out",
        ),
        pytest.param(
            {"type": "tool_use", "id": "t", "name": "n", "input": {"a": [1, 2.50]}},
            [],
            [
                BlockStarted(0, "tool_input", "tool_use", "n", "t"),
                Delta(0, "tool_input", '{"a": [1, 2.5]}'),
                BlockStopped(0),
            ],
            id="input-whole-with-the-start",
        ),
        pytest.param(
            {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}},
            ["", '{"b":', "2}"],
            [
                BlockStarted(0, "tool_input", "tool_use", "n", "t"),
                Delta(0, "tool_input", '{"b":'),
                Delta(0, "tool_input", "2}"),
                BlockStopped(0),
            ],
            id="pieces-replace-the-initial-input",
        ),
        pytest.param(
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            ['{"q":1}'],
            [
                BlockStarted(0, "server_tool", "server_tool_use", "web_search", "s"),
                Delta(0, "tool_input", '{"q":1}'),
                BlockStopped(0),
            ],
            id="server-tool",
        ),
        pytest.param(
            {"type": "mcp_tool_use", "id": "s", "name": "x", "server_name": "y", "input": {}},
            ["{}"],
            [
                BlockStarted(0, "server_tool", "mcp_tool_use", "x", "s"),
                Delta(0, "tool_input", "{}"),
                BlockStopped(0),
            ],
            id="mcp-tool",
        ),
        pytest.param(
            {"type": "redacted_thinking", "data": "xyz"},
            [],
            [BlockStarted(0, "thinking", "redacted_thinking"), BlockStopped(0)],
            id="redacted-thinking",
        ),
        pytest.param(
            {"type": "text", "text": "Once"},
            [],
            [BlockStarted(0, "text", "text"), Delta(0, "text", "Once"), BlockStopped(0)],
            id="initial-text",
        ),
        pytest.param(
            {"type": "thinking", "thinking": "Hm", "signature": ""},
            [],
            [BlockStarted(0, "thinking", "thinking"), Delta(0, "thinking", "Hm"), BlockStopped(0)],
            id="initial-thinking",
        ),
        pytest.param(
            {"type": "hologram", "text": None, "name": 7},
            [],
            [BlockStarted(0, "other", "hologram"), BlockStopped(0)],
            id="unknown-block-whatever-its-fields",
        ),
        pytest.param(
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
            [],
            [BlockStarted(0, "other", "web_search_tool_result"), BlockStopped(0)],
            id="server-tool-result",
        ),
    ],
)
def test_blocks(block: dict[str, Any], pieces: list[str], events: list[Event]) -> None:
    """A block's kind, and the document its pieces make, for each kind of block."""
    pieces_wire = [delta(type="input_json_delta", partial_json=piece) for piece in pieces]
    assert wire(start(**block), *pieces_wire, stop()) == events


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(b'{"type": "ping"}', [Ping()], id="spaced"),
        pytest.param(
            b'{"index":0,"delta":{"text":"x","type":"text_delta"},"type":"content_block_delta"}',
            [Delta(0, "text", "x")],
            id="type-last",
        ),
        pytest.param(
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83d\\n"}}',
            [Delta(0, "text", "\ud83d\n")],
            id="half-an-emoji",
        ),
        pytest.param(
            b'{"type":"content_block_start","index":0,"content_block":'
            b'{"type":"tool_use","id":"\\udc00","name":"n","input":{}}}',
            [BlockStarted(0, "tool_input", "tool_use", "n", "\udc00")],
            id="half-an-emoji-in-a-block",
        ),
        pytest.param(b'{"type":"future_thing","index":3}', [Other("future_thing", 3)], id="unknown-event"),
        pytest.param(b'{"type":"future_thing","index":"x"}', [Other("future_thing")], id="unknown-event-odd-index"),
        pytest.param(
            b'{"type":"content_block_delta","index":0,"delta":{"type":"smell_delta","text":null}}',
            [Other("smell_delta", 0)],
            id="unknown-delta",
        ),
        pytest.param(b"", [], id="no-data"),
        pytest.param(
            b'{"type":"message_delta","usage":{"output_tokens":3}}', [Metered(Usage(output_tokens=3))], id="-"
        ),
        pytest.param(b'{"type":"message_start","message":{}}', [Started()], id="bare-start"),
    ],
)
def test_the_events_own_type_decides(data: bytes, events: list[Event]) -> None:
    """The JSON alone says what an event is: its form, its order and an absent SSE name do not matter."""
    assert Translator().translate([(b"", data)]) == events


def test_the_sse_name_stands_in_for_a_missing_type() -> None:
    """Without a type in the JSON the name decides, and a ping needs no data at all."""
    frames = [(b"ping", b""), (b"message_stop", b"{}"), (b"future_thing", b"{}")]
    assert Translator().translate(frames) == [Ping(), Stopped(), Other("future_thing")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"type":"content_block_delta","index":"zero","delta":{"type":"text_delta","text":"a"}}', "$.index"),
        (b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}', "$.delta.text"),
        (b'{"type":"content_block_delta","index":0}', "delta"),
        (b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":5}}', "$.content_block.text"),
        (b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}', "UTF-8 at byte 77"),
        (
            b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":{"a":"\xff"}}}',
            "UTF-8 at byte 89",
        ),
        (b'{"type":"ping"', "is no JSON"),
        (b'{"index":0,"delta":{"text":"a"}}', "has no type"),
        (b'{"type":7,"delta":{"text":"a"}}', "has no type"),
        (b'{"type":"content_block_delta","index":0,"delta":{"type":"text_de', "is no JSON"),
        (b"\xff", "no UTF-8 at byte 0"),
        (b'{"type":"ping","x":' + b"[" * 100_000, "is no JSON"),
    ],
)
def test_what_cannot_be_decoded_ends_the_stream(data: bytes, problem: str) -> None:
    """Broken JSON, broken UTF-8 and fields of a wrong type fail the stream, and the event is named."""
    events = Translator().translate([(b"ping", b"{}"), (b"", data), (b"ping", b"{}")])
    assert [type(event) for event in events] == [Ping, Failed]
    failed = events[1]
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.status) == ("transport.decode", 200)
    assert "event 1 " in failed.message
    assert problem in failed.message
    assert len(failed.message) < 500


def test_interleaved_tools_keep_their_own_documents() -> None:
    """Blocks are told apart by index, in whatever order their events come."""
    events = wire(
        start(0, type="tool_use", id="a", name="a", input={}),
        start(1, type="tool_use", id="b", name="b", input={}),
        delta(1, type="input_json_delta", partial_json='{"x":1}'),
        stop(1),
        stop(0),
    )
    assert events[2:] == [
        Delta(1, "tool_input", '{"x":1}'),
        BlockStopped(1),
        Delta(0, "tool_input", "{}"),
        BlockStopped(0),
    ]


NAMES = [
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
    *("message_stop", "ping", "error", "future", "text_delta", "input_json_delta", "tool_use", "text", "thinking"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(NAMES) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "index", "delta", "text", "input", "usage", "error"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
TYPED = st.fixed_dictionaries(
    {"type": st.sampled_from(NAMES)}, optional={"text": VALUES, "thinking": VALUES, "input": VALUES}
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(NAMES) | VALUES,
        "index": st.integers(0, 1) | VALUES,
        "message": VALUES,
        "content_block": st.fixed_dictionaries(
            {"type": st.sampled_from(NAMES)}, optional={"text": VALUES, "input": VALUES}
        ),
        "delta": st.fixed_dictionaries({"type": st.sampled_from(NAMES)}, optional={"text": VALUES, "thinking": VALUES}),
        "usage": VALUES,
        "error": VALUES,
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"", b"error", b"x"]), OBJECTS.map(json.dumps).map(str.encode) | st.binary()))
)
def test_no_frame_breaks_the_reader(frames: list[tuple[bytes, bytes]]) -> None:
    """Whatever the wire says, there are events and at most one failure, at the end; and a message can be asked for."""
    events = Translator().translate(frames)
    failures = [index for index, event in enumerate(events) if isinstance(event, Failed)]
    assert failures in ([], [len(events) - 1])
    start = b'{"type":"message_start","message":{"content":[]}}'
    message = assembled([start, *(data for _, data in frames)])
    assert message is not None
    assert isinstance(message["content"], list)


def test_pieces_without_text_do_not_fill_the_memory() -> None:
    """The first ten thousand are kept, for those who pass events on; a flood of them is not."""
    translator = Translator()
    empty = frames.text_delta("")
    start = Decoder().feed(frames.message_start() + frames.block_start())
    translator.translate(start)
    before = len(translator.kept)
    for _ in range(13):
        translator.translate(Decoder().feed(empty * 1000))
    assert len(translator.kept) - before == 10_000
