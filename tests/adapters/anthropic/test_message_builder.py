"""The provider's message, put together from raw bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.message_builder import Assembly, assembled

START = {
    "type": "message_start",
    "message": {
        "id": "m",
        "content": [],
        "usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2},
    },
}


def start(index: int = 0, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": piece}


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def built(*events: dict[str, Any]) -> Any:
    """The message's content, which is the same from bytes, from objects and through a decoder."""
    wire = [json.dumps(event).encode() for event in (START, *events)]
    message = assembled(wire)
    assert message == assembled([json.loads(data) for data in wire])
    translator = Translator()
    translator.translate([(b"", data) for data in wire])
    if not translator.ended:
        assert Assembly(translator.kept).message() == message
    assert message is not None
    return message["content"]


TOOL = {"type": "tool_use", "id": "t", "name": "n", "input": {}}


@pytest.mark.parametrize(
    ("events", "content"),
    [
        pytest.param(
            [start(type="text", text="A"), delta(type="text_delta", text="b"), delta(type="text_delta", text="c")],
            [{"type": "text", "text": "Abc"}],
            id="text-on-top-of-initial-text",
        ),
        pytest.param(
            [
                start(type="thinking", thinking="", signature=""),
                delta(type="thinking_delta", thinking="Hm"),
                delta(type="signature_delta", signature="s"),
            ],
            [{"type": "thinking", "thinking": "Hm", "signature": "s"}],
            id="thinking-and-its-signature",
        ),
        pytest.param(
            [
                start(type="text", text="", citations=None),
                delta(type="citations_delta", citation={"cited_text": "x"}),
                delta(type="text_delta", text="T"),
                delta(type="citations_delta", citation={"cited_text": "y"}),
            ],
            [{"type": "text", "text": "T", "citations": [{"cited_text": "x"}, {"cited_text": "y"}]}],
            id="citations",
        ),
        pytest.param(
            [
                start(0, **TOOL),
                start(1, **TOOL),
                delta(1, type="input_json_delta", partial_json='{"b":'),
                delta(0, type="input_json_delta", partial_json=""),
                delta(1, type="input_json_delta", partial_json="1e2}"),
                stop(1),
                stop(0),
            ],
            [TOOL, {**TOOL, "input": {"b": 100.0}}],
            id="interleaved-tools",
        ),
        pytest.param(
            [start(**TOOL), delta(type="input_json_delta", partial_json='{"a": 1}')],
            [{**TOOL, "input": '{"a": 1}', "partial_json": '{"a": 1}'}],
            id="an-open-tool-block-has-no-input-yet",
        ),
        pytest.param(
            [start(**TOOL), delta(type="input_json_delta", partial_json='{"a": 12'), stop()],
            [{**TOOL, "input": '{"a": 12', "partial_json": '{"a": 12'}],
            id="a-broken-input-stays-text",
        ),
        pytest.param(
            [start(**TOOL), delta(type="input_json_delta", partial_json='{"a": NaN}'), stop()],
            [{**TOOL, "input": '{"a": NaN}', "partial_json": '{"a": NaN}'}],
            id="NaN-is-no-JSON",
        ),
        pytest.param(
            [start(**{**TOOL, "input": {"a": 1}}), stop()], [{**TOOL, "input": {"a": 1}}], id="input-with-the-start"
        ),
        pytest.param(
            [start(type="hologram", beam=1), delta(type="beam_delta", beam=2), delta(type="text_delta", text="x")],
            [
                {
                    "type": "hologram",
                    "beam": 1,
                    "deltas": [{"type": "beam_delta", "beam": 2}, {"type": "text_delta", "text": "x"}],
                }
            ],
            id="the-unknown-is-kept-as-it-came",
        ),
        pytest.param(
            [
                start(type="compaction", content=None),
                delta(type="compaction_delta", content="sum", encrypted_content="e"),
            ],
            [{"type": "compaction", "content": "sum", "encrypted_content": "e"}],
            id="compaction",
        ),
        pytest.param(
            [
                start(type="text", text=""),
                delta(type="text_delta", text="\ud83d"),
                delta(type="text_delta", text="é\u2028"),
            ],
            [{"type": "text", "text": "\ud83dé\u2028"}],
            id="half-an-emoji",
        ),
        pytest.param(
            [
                delta(7, type="text_delta", text="x"),
                start("0", type="text"),  # type: ignore[arg-type]
                {"type": "content_block_start", "index": 0},
                {"type": "content_block_delta", "index": 0},
                {"type": "ping"},
                {"type": "error", "error": {}},
            ],
            [],
            id="what-fits-nowhere-is-passed-over",
        ),
    ],
)
def test_content(events: list[dict[str, Any]], content: list[dict[str, Any]]) -> None:
    """The blocks of a message, piece by piece, as the SDK has them; broken tool input is marked."""
    assert built(*events) == content


def test_the_end_replaces_what_it_gives() -> None:
    """`message_delta` sets the stop reasons and overwrites the counts it has; others keep the value of the start."""
    message = assembled(
        [
            START,
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "refusal", "stop_details": {"type": "refusal"}, "container": {"id": "c"}},
                "usage": {"output_tokens": 9, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 3}},
                "context_management": {"applied_edits": []},
            },
        ]
    )
    assert message == {
        "id": "m",
        "content": [],
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal"},
        "container": {"id": "c"},
        "context_management": {"applied_edits": []},
        "usage": {
            "input_tokens": 5,
            "output_tokens": 9,
            "cache_read_input_tokens": 2,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    }


def test_counts_are_numbers_however_they_are_written() -> None:
    """As the SDK reads them; the message's end takes no count back, and what can be no count is none."""
    end: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": "31", "output_tokens": 1.0}}}
    told = {"output_tokens": "42", "service_tier": "standard"}
    late: dict[str, Any] = {
        "input_tokens": 0,
        "output_tokens": -3,
        "cache_read_input_tokens": 5.0,
        "inference_geo": "us",
    }
    message = assembled([start, {**end, "usage": told}, {"type": "message_stop", "usage": late}])
    assert message is not None
    assert message["usage"] == {
        "input_tokens": 31,
        "output_tokens": 42,
        "service_tier": "standard",
        "cache_read_input_tokens": 5,
        "inference_geo": "us",
    }


def test_a_fallback_names_the_model_that_answers() -> None:
    """The block of a server-side fallback changes the message's model, as in the SDK."""
    message = assembled([START, start(type="fallback", to={"model": "other"})])
    assert message is not None
    assert message["model"] == "other"


@pytest.mark.parametrize("data", [[], [b"{}"], [b"\xff", b"[1]", b"nope"], [b'{"type":"message_start","message":7}']])
def test_there_is_no_message_before_its_start(data: list[bytes]) -> None:
    """Without a sound `message_start` there is no message, whatever else there is."""
    assert assembled(data) is None


def test_what_comes_after_the_end_is_no_part_of_it() -> None:
    """Blocks, pieces and counts after `message_stop` change nothing."""
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    late = {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 9}}
    text = [start(type="text", text=""), delta(type="text_delta", text="all"), stop(), end, {"type": "message_stop"}]
    more = [delta(type="text_delta", text=" and more"), start(1, type="text", text="b"), late]
    assert built(*text, *more) == built(*text) == [{"type": "text", "text": "all"}]
    assert assembled([START, *text, *more]) == assembled([START, *text])


def test_a_message_grows_while_the_stream_is_read() -> None:
    """Asked in between, the message is as far as it has come, and asking changes nothing."""
    translator = Translator()
    assembly = Assembly(translator.kept)
    pieces = [START, start(type="text", text=""), *(delta(type="text_delta", text=letter) for letter in "abc")]
    seen = []
    for event in pieces:
        translator.translate([(b"", json.dumps(event).encode())])
        message = assembly.message()
        assert message == assembly.message()
        seen.append(message and "".join(block["text"] for block in message["content"]))
    assert seen == ["", "", "a", "ab", "abc"]


def test_a_long_message_costs_linear_time() -> None:
    """Four times the deltas cost at most twelve times as much."""

    def seconds(count: int) -> float:
        wire = [json.dumps(event).encode() for event in (START, start(**TOOL))]
        wire += [
            json.dumps(delta(type="input_json_delta", partial_json="[[" if not i else "1,")).encode()
            for i in range(count)
        ]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            message = assembled(wire)
            best = min(best, time.process_time() - began)
            assert message is not None
            assert len(message["content"][0]["partial_json"]) == 2 * count
        return best

    few, many = seconds(5_000), seconds(20_000)
    assert many < 12 * few + 0.01
