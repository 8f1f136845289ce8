"""Frames as other servers send them: words of other protocols, odd numbers, errors of every form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.message_builder import Assembly
from streamguard.adapters.anthropic.usage import neutral
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Failed,
    Iteration,
    Metered,
    Other,
    Ping,
    Started,
    Stopped,
    Usage,
)
from tests.adapters.anthropic.test_events import wire


@pytest.mark.parametrize(
    ("name", "data", "event"),
    [
        (b"", b"[DONE]", Other("[DONE]")),
        (b"", b" [DONE] ", Other("[DONE]")),
        (b"done", b"[DONE]", Other("[DONE]")),
        (b"message_stop", b"[DONE]", Other("[DONE]")),
        (b"", b"{}", Ping()),
        (b"", b"ping", Ping()),
        (b"", b" ", Ping()),
        (b"", b"0", Ping()),
        (b"", b"[1]", Ping()),
        (b"", b"null", Ping()),
        (b"", b'{"heartbeat": 1}', Ping()),
        (b"", b'{"choices":[]}', Ping()),
        (b"", b'{"type":7}', Ping()),
        (b"", b'{"type":""}', Ping()),
        (b"heartbeat", b"1761", Other("heartbeat")),
        (b"data", b"hello", Other("data")),
    ],
)
def test_frames_without_a_type_and_without_output_are_passed_over(name: bytes, data: bytes, event: Event) -> None:
    """End marks of other protocols and heartbeats as data end nothing, and are no part of the message."""
    translator = Translator()
    begun = b'{"type":"message_start","message":{"id":"m"}}'
    assert translator.translate([(b"message_start", begun), (name, data), (b"ping", b"")])[1:] == [event, Ping()]
    assert [kept[0] for kept in translator.kept if isinstance(kept, tuple)] == [begun]


@pytest.mark.parametrize(
    ("name", "data", "event"),
    [
        (b"", b"[DONE]", Other("[DONE]")),
        (b"message_stop", b'{"type":"message_stop"}', Other("message_stop")),
        (b"error", b'{"type":"error","error":{"type":"api_error"}}', Other("error")),
        (b"", b'{"type":"content_block_delta","index":0,"de', Other("")),
        (b"", b"\xff", Other("")),
        (b"ping", b"", Ping()),
        (b"", b"{}", Ping()),
        (
            b"message_delta",
            b'{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":9}}',
            Metered(Usage(output_tokens=9)),
        ),
    ],
)
def test_after_the_messages_end_only_counts_count(name: bytes, data: bytes, event: Event) -> None:
    """Whatever a server sends behind `message_stop`, it fails nothing and changes no stop reason."""
    end = (b"message_stop", b'{"type":"message_stop"}')
    assert Translator().translate([end, (name, data), (b"ping", b"")]) == [Stopped(), event, Ping()]


def test_content_in_the_start_becomes_events_that_every_guard_sees() -> None:
    """Programmatic tool calling sends the whole message in `message_start`, and then its end."""
    content = [
        {"type": "text", "text": ""},
        {"type": "text", "text": "Hi"},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}},
        {"type": "server_tool_use", "id": "s", "name": "code_execution", "input": {}},
        {"type": "container_upload", "file_id": "f"},
        "no block",
    ]
    message = {"id": "m", "model": "c", "content": content, "stop_reason": "tool_use"}
    usage = {"input_tokens": 5, "output_tokens": 7}
    events = wire({"type": "message_start", "message": {**message, "usage": usage}}, {"type": "message_stop"})
    assert events == [
        Started("m", "c", Usage(input_tokens=5)),
        BlockStarted(1, "text", "text"),
        Delta(1, "text", "Hi"),
        BlockStopped(1),
        BlockStarted(2, "thinking", "thinking"),
        Delta(2, "thinking", "hm"),
        BlockStopped(2),
        BlockStarted(3, "tool_input", "tool_use", "n", "t"),
        Delta(3, "tool_input", '{"a": 1}'),
        BlockStopped(3),
        BlockStarted(4, "server_tool", "server_tool_use", "code_execution", "s"),
        Delta(4, "tool_input", "{}"),
        BlockStopped(4),
        BlockStarted(5, "other", "container_upload"),
        BlockStopped(5),
        BlockStarted(6, "other", ""),
        BlockStopped(6),
        Metered(Usage(input_tokens=5, output_tokens=7), "tool_use"),
        Stopped("tool_use"),
    ]


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("length", "max_tokens"),
        ("stop", "end_turn"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "refusal"),
        ("max_output_tokens", "max_tokens"),
        ("STOP", "end_turn"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "refusal"),
        ("guardrail_intervened", "refusal"),
        ("model_length", "model_context_window_exceeded"),
        ("COMPLETE", "end_turn"),
        ("End_Turn", "end_turn"),
        ("end_turn", "end_turn"),
        ("brand_new", "brand_new"),
        ("", None),
        (7, None),
    ],
)
def test_stop_reasons_in_other_words_mean_what_they_mean(said: object, means: str | None) -> None:
    """Gateways leave them as they are."""
    events = wire({"type": "message_delta", "delta": {"stop_reason": said}}, {"type": "message_stop"})
    assert events == [Metered(Usage(), means), Stopped(means)]


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 31.0, "output_tokens": "42"},
        {"input_tokens": "31", "output_tokens": 42, "server_tool_use": [], "cache_creation": 0, "speed": 3},
    ],
)
def test_numbers_of_another_type_are_numbers(usage: dict[str, Any]) -> None:
    """No answer dies of how a count is written."""
    events = wire({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    assert events == [Metered(Usage(input_tokens=31, output_tokens=42), "end_turn")]


def test_counts_may_come_with_the_end() -> None:
    """In `usage`, or as Bedrock has them."""
    metrics = {"inputTokenCount": 3, "outputTokenCount": 4, "cacheReadInputTokenCount": 5, "invocationLatency": 900}
    events = wire({"type": "message_stop", "usage": {"output_tokens": 4}, "amazon-bedrock-invocationMetrics": metrics})
    assert events == [
        Metered(Usage(output_tokens=4)),
        Metered(Usage(input_tokens=3, output_tokens=4, cache_read_tokens=5)),
        Stopped(),
    ]


def test_the_last_known_stop_reason_counts() -> None:
    """Usage may come several times; a later one without a stop reason takes none away."""
    events = wire(
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 6, "input_tokens": None}},
        {"type": "message_stop"},
    )
    assert events == [
        Metered(Usage(output_tokens=5), "tool_use"),
        Metered(Usage(output_tokens=6), None),
        Stopped("tool_use"),
    ]


def test_nothing_is_said_after_a_failure() -> None:
    """A failed stream stays silent, in the same batch and in later ones."""
    translator = Translator()
    assert len(translator.translate([(b"error", b"oops"), (b"ping", b"")])) == 1
    assert translator.translate([(b"ping", b"")]) == []


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            b"error",
            (
                b'{"type":"error","error":{"type":"rate_limit_error","message":"slow","details":'
                b'{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_1"}'
            ),
            ("provider.spend_limit", "slow", "rate_limit_error", "enforced_spend_limit_reached", "req_1"),
        ),
        (
            b"",
            b'{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}}',
            ("provider.overloaded", "Overloaded", "overloaded_error", None, None),
        ),
        (
            b"",
            b'{"error":{"code":500,"message":"boom","type":"server_error"}}',
            ("provider.api_error", "boom", "server_error", None, None),
        ),
        (b"error", b"upstream died", ("provider.api_error", "upstream died", None, None, None)),
        (b"error", b"", ("provider.api_error", "an empty error, HTTP status 200", None, None, None)),
        (
            b"error",
            b'{"type":"error","error":{"type":"brand_new_error","message":"?"}}',
            ("provider.api_error", "?", "brand_new_error", None, None),
        ),
    ],
)
def test_an_error_event_is_classified_by_its_type(name: bytes, data: bytes, expected: tuple[Any, ...]) -> None:
    """An error inside a stream fails it by `error.type` and code, though the HTTP status was 200."""
    (failed,) = Translator().translate([(name, data)])
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.message, failed.type, failed.code, failed.request_id) == expected
    assert (failed.status, failed.sent, failed.billable) == (200, True, True)


@pytest.mark.parametrize(
    "wire",
    [
        {"input_tokens": "-5"},
        {"cache_creation_input_tokens": True},
        {"cache_read_input_tokens": [7]},
        {"cache_creation": {"ephemeral_5m_input_tokens": -7}},
        {"cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_1h_input_tokens": 7}},
        {"server_tool_use": {"web_search_requests": "forty"}},
        {"server_tool_use": {"hologram_requests": 40}},
        {"output_tokens_details": {"thinking_tokens": 1.5}},
    ],
)
def test_what_cannot_be_a_count_makes_the_whole_impossible(wire: dict[str, Any]) -> None:
    """Something was counted, and nobody can say what of it is billed."""
    assert neutral(wire, final=True).impossible


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"web_fetch_requests": 9, "web_search_requests": 2}, Usage(web_searches=2)),
        ({"web_search_requests": 0, "hologram_requests": 0}, Usage(web_searches=0)),
    ],
)
def test_requests_that_cost_nothing_of_their_own_are_no_mystery(wire: dict[str, int], expected: Usage) -> None:
    """Fetches are billed by their tokens; none at all is nothing."""
    assert neutral({"server_tool_use": wire}, final=True) == expected


def test_cache_writes_may_be_told_by_their_parts_alone() -> None:
    """Then their sum is what was written."""
    parts = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    assert neutral({"cache_creation": parts}, final=True) == Usage(cache_write_tokens=7, cache_write_1h_tokens=4)


@pytest.mark.parametrize(
    "odd", [{"speed": "fast"}, {"inference_geo": "us"}, {"output_tokens": -1}, {"service_tier": "x"}]
)
def test_a_sampling_that_cannot_be_priced_is_unreadable(odd: dict[str, Any]) -> None:
    """One that says another speed or region than the answer, or a count that cannot be one."""
    sampling = {"type": "message", "input_tokens": 1, "output_tokens": 1}
    assert neutral({"iterations": [sampling]}, final=True).iterations == (
        Iteration(type="message", input_tokens=1, output_tokens=1),
    )
    assert neutral({"iterations": [sampling | odd]}, final=True).iterations == (Iteration(type="unreadable"),)


@pytest.mark.parametrize("count", [-1, -99_999_999, 1_000_000_001, 2**63 - 1])
def test_a_count_that_cannot_be_true_is_unknown(count: int) -> None:
    """Negative or absurd: it is neither added to a budget nor taken from one."""
    fields = dict.fromkeys(
        ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), count
    )
    usage = fields | {
        "cache_creation": {"ephemeral_1h_input_tokens": count},
        "output_tokens_details": {"thinking_tokens": count},
    }
    assert neutral(usage, final=True) == Usage(impossible=True)


def test_an_event_may_be_named_without_having_a_type() -> None:
    """Old gateways leave the type out of the JSON: the event's name says it, and the message is whole."""
    text = {"index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
    frames: list[tuple[bytes, dict[str, Any]]] = [
        (b"message_start", {"message": {"id": "m", "model": "c", "content": []}}),
        (b"content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        (b"content_block_delta", text),
        (b"content_block_stop", {"index": 0}),
        (b"message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        (b"message_stop", {}),
    ]
    translator = Translator()
    events = translator.translate([(name, json.dumps(data).encode()) for name, data in frames])
    assert events == [
        Started("m", "c"),
        BlockStarted(0, "text", "text"),
        Delta(0, "text", "Hi"),
        BlockStopped(0),
        Metered(Usage(output_tokens=1), "end_turn"),
        Stopped("end_turn"),
    ]
    message = Assembly(translator.kept).message()
    assert message is not None
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": "Hi"}], "end_turn")


@pytest.mark.parametrize("index", ["0", 0.0])
def test_an_index_of_another_type_is_the_number_it_is(index: Any) -> None:
    """Some serializers write every number as a float or a text."""
    begin = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    piece = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": "a"}}
    end = {"type": "content_block_stop", "index": index}
    translator = Translator()
    start = {"type": "message_start", "message": {"id": "m"}}
    events = translator.translate([(b"", json.dumps(one).encode()) for one in (start, begin, piece, end)])
    assert events[1:] == [BlockStarted(0, "text", "text"), Delta(0, "text", "a"), BlockStopped(0)]
    message = Assembly(translator.kept).message()
    assert message is not None
    assert message["content"] == [{"type": "text", "text": "a"}]


def test_nan_in_a_field_that_nobody_needs_voids_nothing() -> None:
    """Python's own JSON writes it, and gateways add costs."""
    data = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7},"cost":NaN}'
    assert Translator().translate([(b"", data)]) == [Metered(Usage(output_tokens=7), "end_turn")]
    tool = b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","input":{"a":NaN}}}'
    closed = (b"", b'{"type":"content_block_stop","index":0}')
    assert Translator().translate([(b"", tool), closed])[1] == Delta(0, "tool_input", '{"a": NaN}')


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        ('{"message": "no capacity left"}', "provider.api_error", "no capacity left"),
        ('{"type": "exception", "message": "no capacity left"}', "provider.api_error", "no capacity left"),
        ("Internal Server Error", "transport.incomplete", "said last: 'Internal Server Error'"),
        ("<h1>502</h1>", "transport.incomplete", "said last: '<h1>502</h1>'"),
        ("keepalive", None, None),
        ('{"heartbeat": 1}', None, None),
        ('{"type": "usage", "total": 3}', None, None),
    ],
)
def test_a_gateways_last_words_are_kept(said: str, reason: str | None, words: str | None) -> None:
    """What is passed over in the middle is the reason where nothing more comes."""
    translator = Translator()
    translator.translate([(b"", b'{"type":"message_start","message":{"id":"m"}}'), (b"", said.encode())])
    last = translator.last_words("")
    assert (last and last.reason) == reason
    if last is not None:
        assert words is not None
        assert words in last.message


def test_words_that_were_not_the_last_mean_nothing() -> None:
    """The message's own end, OpenAI's, or a failure that was told."""
    said, begun = (b"", b'{"message": "still working"}'), (b"", b'{"type":"message_start","message":{"id":"m"}}')
    for end in (b'{"type":"message_stop"}', b"[DONE]", b'{"type":"error","error":{"type":"api_error"}}'):
        translator = Translator()
        translator.translate([begun, said, (b"", end)])
        assert translator.last_words("Bad Gateway at all") is None


@pytest.mark.parametrize(
    "body",
    [
        {"title": "Bad Gateway", "status": 502},
        {"error_code": "RATE", "error_msg": "slow down"},
        {"success": False, "message": "out of luck"},
        {"errorMessage": "boom"},
    ],
)
def test_an_object_that_only_errors_are_ends_the_stream(body: dict[str, Any]) -> None:
    """In forms of other gateways, without a type and without a name; its words are the message."""
    (failed,) = Translator().translate([(b"", json.dumps(body).encode())])
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.message in body.values()) == ("provider.api_error", True)
