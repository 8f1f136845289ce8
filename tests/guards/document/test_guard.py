"""`guards.json_document` and `guards.document_reader`: documents in streams."""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext, Document, HoldsDocument
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.request import Request
from streamguard.verdict import REASONS, Enough, Trip
from tests.data import path
from tests.guards.documents import pieces, run, said, text_events, tool_events, watch, ways

SPEC = JsonDocument()


# -- what a user reads -----------------------------------------------------------------------------------------------

MESSAGES: list[tuple[dict[str, Any], str, str, str, dict[str, Any]]] = [
    # options, text, reason, message, and of the trip and its place: what else is worth saying
    (
        {},
        '{"a": 1 "b": 2}',
        "json.malformed",
        '"\\"", expected "," or "}" (at character 8, in /a)',
        {"knob": "json", "char": 8, "offset": 8, "pointer": "/a", "keyword": "malformed"},
    ),
    (
        {},
        '{"ä": [nil]}',
        "json.malformed",
        '"i", expected the rest of null, "ull" (at character 8, in /ä/0)',
        {"knob": "json", "char": 8, "offset": 9, "pointer": "/ä/0", "keyword": "malformed"},
    ),
    (
        {},
        "}",
        "json.malformed",
        '"}", expected a value (at character 0)',
        {"knob": "json", "char": 0, "offset": 0, "pointer": "", "keyword": "malformed"},
    ),
    (
        {},
        '{"a": 1, "a": 2}',
        "json.duplicate_name",
        'the name "a" stands twice in one object (at character 11, in /a)',
        {"knob": "json.duplicate_names", "char": 11, "pointer": "/a", "keyword": "duplicate_name"},
    ),
    (
        {"max_depth": 3},
        '{"a": [[[]]]}',
        "json.depth",
        "more than 3 objects and arrays are open at once (at character 8, in /a/0/0)",
        {"knob": "json.max_depth", "limit": 3, "observed": 4, "char": 8, "keyword": "depth"},
    ),
    (
        {"max_digits": 3},
        '{"a": 1234}',
        "json.number",
        "a number with more than 3 digits (at character 9, in /a)",
        {"knob": "json.max_digits", "limit": 3, "observed": 4, "char": 9, "keyword": "number"},
    ),
    (
        {"max_bytes": 8},
        '{"a": "long"}',
        "json.size",
        "the document is larger than 8 bytes",
        {"knob": "json.max_bytes", "limit": 8, "offset": 8, "char": None},
    ),
    (
        {},
        ' [{"a": 1}]',
        "json.schema",
        'the document begins with "[", a JSON array, where json.expect is object (at character 1)',
        {"knob": "json.expect", "limit": "object", "observed": "array", "char": 1, "offset": 1, "keyword": "type"},
    ),
    (
        {"expect": "array"},
        "null",
        "json.schema",
        'the document begins with "n", a JSON null, where json.expect is array (at character 0)',
        {"knob": "json.expect", "limit": "array", "observed": "null", "char": 0},
    ),
    (
        {},
        "Here is it: {}",
        "json.preamble",
        'the answer begins with "H", which no JSON value begins with; json.preamble: skip goes on to the first bracket',
        {"knob": "json.preamble", "char": 0, "offset": 0},
    ),
    (
        {},
        "\n```json\n{}\n```",
        "json.fence",
        'the answer begins with "`", as a code fence does; json.fence: strip takes a fence off',
        {"knob": "json.fence", "char": 1, "offset": 1},
    ),
    (
        {"preamble": "skip"},
        "Da ist es:\n```json\n{}\n```",
        "json.fence",
        'a line before the document begins with "```", a code fence; json.fence: strip takes a fence off',
        {"knob": "json.fence", "char": 11, "offset": None},
    ),
    (
        {"fence": "strip"},
        "```json\n{}\n```\nDone.",
        "json.trailing",
        '"D" after the closing code fence; json.trailing: allow ignores it, cut ends the answer there',
        {"knob": "json.trailing", "char": 7, "offset": 7},
    ),
    (
        {"fence": "strip"},
        "```json\nHere: {}\n```",
        "json.preamble",
        (
            'the code fence begins with "H", which no JSON value begins with; '
            "json.preamble: skip goes on to the first bracket"
        ),
        {"knob": "json.preamble", "char": 8},
    ),
    (
        {"fence": "strip"},
        "`{}`",
        "json.fence",
        'the answer begins with "`", which opens no code fence',
        {"knob": "json.fence", "char": 1},
    ),
    (
        {},
        "{} Done.",
        "json.trailing",
        (
            '"D" after the end of the document (at character 3); '
            "json.trailing: allow ignores it, cut ends the answer there"
        ),
        {"knob": "json.trailing", "char": 3, "offset": 3, "keyword": "trailing"},
    ),
    (
        {},
        '{"a": [1, 2',
        "json.incomplete",
        "the input ended inside a number (at the end of the answer, in /a/1)",
        {"knob": "json", "char": None, "offset": "eof", "pointer": "/a/1"},
    ),
    (
        {},
        " \n",
        "json.incomplete",
        "the answer ended before a JSON document began",
        {"knob": "json", "char": None, "offset": "eof"},
    ),
    (
        {"preamble": "skip"},
        "I cannot do that.",
        "json.incomplete",
        "the answer ended before a JSON document began",
        {"knob": "json", "offset": "eof"},
    ),
]


@pytest.mark.parametrize(("options", "text", "reason", "message", "more"), MESSAGES)
def test_every_trip_says_what_was_seen_and_where(
    options: dict[str, Any], text: str, reason: str, message: str, more: dict[str, Any]
) -> None:
    """Reason, sentence, knob, limit and place are the same however the text was cut."""
    for parts in ways(text):
        result = run(JsonDocument(**options), text_events(parts))
        trip = result.verdict
        assert isinstance(trip, Trip)
        assert (trip.reason, trip.message) == (reason, message)
        known = msgspec.structs.asdict(trip) | msgspec.structs.asdict(trip.where)
        assert {key: known[key] for key in more} == more
        assert (known["guard"], known["at"]) == ("json", float(result.event))
        assert not result.document.complete


def test_every_reason_is_in_the_closed_set() -> None:
    """No trip has a reason of its own making."""
    assert {reason for _, _, reason, _, _ in MESSAGES} <= set(REASONS)


@pytest.mark.parametrize(
    ("options", "text"), [(o, t) for o, t, reason, _, _ in MESSAGES if reason != "json.incomplete"]
)
def test_the_trip_comes_with_the_very_delta(options: dict[str, Any], text: str) -> None:
    """Cut into characters, the trip comes with the character that it names: one earlier there was none."""
    result = run(JsonDocument(**options), text_events(list(text)))
    last = result.event - 2
    assert run(JsonDocument(**options), text_events(list(text[:last]))[:-3]).verdict is None
    where = result.verdict.where
    if where.char is not None and "fence" not in text[:1] and not options:
        assert last == where.char


# -- what stands around a document -----------------------------------------------------------------------------------

AROUND = [
    ({}, ' \n{"a": 1}\t\n', ' \n{"a": 1}'),
    ({"fence": "strip"}, '{"a": 1}', '{"a": 1}'),
    ({"fence": "strip"}, '\n```json\n{"a": 1}\n```\n', '{"a": 1}'),
    ({"fence": "strip"}, '```\n{"a": 1}\n```', '{"a": 1}'),
    ({"fence": "strip"}, '``` json \r\n{"a": 1}\r\n```\r\n', '{"a": 1}'),
    ({"fence": "strip"}, '~~~~json\n{"a": 1}\n~~~~~', '{"a": 1}'),
    ({"fence": "strip"}, '```json\n{"a": 1}```', '{"a": 1}'),
    ({"fence": "strip"}, '```json\n{"a": 1}', '{"a": 1}'),  # a stop sequence took the fence away
    ({"fence": "strip"}, '```json\n{"a": 1}\n``', '{"a": 1}'),
    ({"fence": "strip", "trailing": "allow"}, '```json\n{"a": 1}\n```\nHope this helps.', '{"a": 1}'),
    ({"preamble": "skip"}, 'Here is the JSON: {"a": 1}', '{"a": 1}'),
    ({"preamble": "skip"}, '{"a": 1}', '{"a": 1}'),
    ({"preamble": "skip"}, 'In `x`, see [1] ~ 2:\n\n {"a": 1}', '{"a": 1}'),
    ({"preamble": "skip", "fence": "strip"}, 'Here:\n```json\n{"a": 1}\n```', '{"a": 1}'),
    ({"preamble": "skip", "fence": "strip"}, 'Here:\n  ```json {"a": 1}\n```\n', '{"a": 1}'),
    ({"preamble": "skip", "fence": "strip"}, '```sh\nls\n```\nand\n{"a": 1}\n', '{"a": 1}'),
    ({"preamble": "skip", "trailing": "allow"}, 'So: {"a": 1} That is {all}.', '{"a": 1}'),
    ({"trailing": "allow"}, '{"a": 1}{"a": 2}', '{"a": 1}'),
]


@pytest.mark.parametrize(("options", "text", "document"), AROUND)
def test_what_may_stand_around_a_document(options: dict[str, Any], text: str, document: str) -> None:
    """Allowed decoration is taken off, and the document is the text that is left."""
    for parts in ways(text):
        result = run(JsonDocument(**options), text_events(parts))
        assert (result.verdict, result.document) == (None, Document(text=document, value={"a": 1}, complete=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fence": "strip"}, '```json\n{"a": 1}\n``` and'),
        ({"fence": "strip"}, '```json\n{"a": 1}\n`` '),
        ({"fence": "strip"}, '```json\n{"a": 1}\n``` ```'),
        ({"fence": "strip"}, '````\n{"a": 1}\n```\n'),
        ({"fence": "strip"}, '{"a": 1}\n```'),
        ({"preamble": "skip", "fence": "strip"}, '```sh\nls\n```\n{"a": 1}\n```'),
        ({"preamble": "skip"}, 'Here: {"a": 1}.'),
    ],
)
def test_what_follows_the_document_trips(options: dict[str, Any], text: str) -> None:
    """Only one closing fence and whitespace may follow."""
    outcomes = [said(run(JsonDocument(**options), text_events(parts))) for parts in ways(text)]
    assert {outcome[0].reason for outcome in outcomes} == {"json.trailing"}
    assert outcomes == outcomes[:1] * len(outcomes)


def test_prefill_is_the_beginning_of_the_document() -> None:
    """What the request put in the model's mouth is part of the document, offsets included."""
    body = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": '{"a":'}]}
    assert run(SPEC, text_events([" 1}"]), body).document == Document(text='{"a": 1}', value={"a": 1}, complete=True)
    assert run(SPEC, text_events([" x}"]), body).verdict.where.char == 6


@pytest.mark.parametrize(
    ("spec", "prefill", "reason"),
    [
        (SPEC, "Sure:", "json.preamble"),
        (SPEC, '{"a": 1,,', "json.malformed"),
        (JsonDocument(schema={"properties": {"a": {"type": "string"}}}), '{"a": 1', "json.schema"),
        (JsonDocument(expect="array"), "{", "json.preamble"),
    ],
)
def test_a_prefill_that_no_answer_can_save(spec: JsonDocument, prefill: str, reason: str) -> None:
    """It is a mistake before anything is sent; a guard that only observes lets it be, and so does one that skips."""
    context = AttemptContext(request=Request({"messages": [{"role": "assistant", "content": prefill}]}))
    with pytest.raises(PolicyError, match="puts in the assistant's mouth can never be accepted") as raised:
        Panel((spec,), context, 0.0)
    assert raised.value.problems[0].pointer == "/json"
    observing = Panel((spec.model_copy(update={"mode": "observe"}),), context, 0.0)
    observing.feed(Delta(0, "text", "{}"), 0.0)
    assert len(observing.observed) == 1
    said_before = AttemptContext(request=Request({"messages": [{"role": "assistant", "content": "Sure:"}]}))
    assert Panel((JsonDocument(preamble="skip"),), said_before, 0.0).observed == []


def test_text_blocks_are_one_document() -> None:
    """Thinking and server tools stand between the pieces and are no part of them."""
    events: list[Event] = [
        Started(),
        BlockStarted(0, "thinking"),
        Delta(0, "thinking", "I'll write {"),
        BlockStopped(0),
        BlockStarted(1, "text"),
        Delta(1, "text", '{"a"'),
        BlockStopped(1),
        BlockStarted(2, "server_tool", name="web_search"),
        Delta(2, "tool_input", '{"query'),
        BlockStopped(2),
        BlockStarted(3, "text"),
        Delta(3, "text", ": 1}"),
        BlockStopped(3),
        Stopped("end_turn"),
    ]
    assert run(SPEC, events).document == Document(text='{"a": 1}', value={"a": 1}, complete=True)
    # A server tool's input is no document either, whatever the tools are called.
    assert run(JsonDocument(where="tools"), events).document == Document(text="", value=[], complete=True)


# -- ending early ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text", "length"),
    [
        ({}, '{"a": 1} and so on', 8),
        ({}, '{"a": 1}', 8),
        ({"fence": "strip"}, '```json\n{"a": 1}\n```', 8),
        ({"preamble": "skip"}, 'So: {"a": 1}.', 8),
    ],
)
def test_cut_ends_the_call_when_the_top_value_closes(options: dict[str, Any], text: str, length: int) -> None:
    """`trailing: cut` has enough on the delta with the closing brace, after the full parse."""
    for parts in ways(text):
        result = run(JsonDocument(trailing="cut", **options), text_events(parts))
        assert result.verdict == Enough("cut", length)
        assert result.document == Document(text='{"a": 1}', value={"a": 1}, complete=True)
        assert len("".join(parts[: result.event - 1])) >= text.index("}") + 1
        assert len("".join(parts[: result.event - 2])) <= text.index("}")


def test_cut_does_not_touch_what_dies_before() -> None:
    """I3: a document that died is not cut, not even if it closes in the same delta."""
    for parts in ways('{"a": tru}'):
        assert run(JsonDocument(trailing="cut"), text_events(parts)).verdict.reason == "json.malformed"


TOOLS = [{"name": "f", "input_schema": {"type": "object"}}, {"name": "g", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize(
    ("where", "body", "cut"),
    [
        ("text", None, True),
        ("text", {}, True),
        ("text", {"tools": TOOLS}, False),
        ("text", {"tools": TOOLS, "tool_choice": {"type": "none"}}, True),
        ("tool:f", None, False),
        ("tool:f", {"tools": TOOLS}, False),
        ("tool:f", {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "f"}}, False),
        ("tool:f", {"tools": TOOLS, "tool_choice": {"type": "tool", "disable_parallel_tool_use": True}}, True),
        ("tools", {"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}, True),
    ],
)
@pytest.mark.parametrize("options", [{"trailing": "cut"}, {"enough_when": ["/a"]}])
def test_no_call_ends_early_where_a_tool_call_may_follow(
    where: str, body: dict[str, Any] | None, cut: bool, options: dict[str, Any]
) -> None:
    """I3: a call with another open or later tool block is never cut."""
    if where == "tools":  # which has no one document for `enough_when`
        options = {"trailing": "cut"}
    spec = JsonDocument(where=where, **options)
    parts = list('{"a": 1, "b": 2}')
    result = run(spec, text_events(parts) if where == "text" else tool_events(("f", parts)), body)
    assert isinstance(result.verdict, Enough) is cut
    if not cut:
        assert result.document.complete


def test_an_open_tool_block_keeps_a_text_document_from_being_cut() -> None:
    """I3: a tool block that was opened before the text closes is read to its end."""
    events = [
        BlockStarted(0, "tool_input", name="f", id="1"),
        BlockStarted(1, "text"),
        Delta(1, "text", "{} and"),
        BlockStopped(0),
        Stopped("tool_use"),
    ]
    result = run(JsonDocument(trailing="cut"), events)
    assert (result.verdict, result.document.complete) == (None, True)


def test_a_second_tool_block_keeps_the_first_from_being_cut() -> None:
    """I3: not even a provider that breaks its word on parallel calls gets a call cut off."""
    body = {"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    events = [
        BlockStarted(0, "tool_input", name="f", id="1"),
        Delta(0, "tool_input", '{"a"'),
        BlockStarted(1, "tool_input", name="g", id="2"),
        Delta(0, "tool_input", ": 1}"),
        BlockStopped(0),
        Delta(1, "tool_input", "{}"),
        BlockStopped(1),
        Stopped("tool_use"),
    ]
    result = run(JsonDocument(where="tool:f", trailing="cut"), events, body)
    assert (result.verdict, result.document) == (None, Document(text='{"a": 1}', value={"a": 1}, complete=True))


@pytest.mark.parametrize(
    ("named", "text", "value", "found_by"),
    [
        (["/b"], '{"a": [1], "b": 25, "c": {"d', {"a": [1], "b": 25}, '"b": 25,'),
        (["/b", "/a"], '{"a": [1], "b": "x", "c', {"a": [1], "b": "x"}, '"x"'),
        (["/b/1/x~1y"], '{"b": [{}, {"x/y": null, "z', {"b": [{}, {"x/y": None}]}, "null"),
        (["/b"], '{"b": {"c": [1, {}]}, "b2', {"b": {"c": [1, {}]}}, "{}]}"),
        (["/b"], '{"b": "\\ud83d\\ude00\\udc00"}', {"b": "\U0001f600\udc00"}, '"}'),
    ],
)
def test_enough_when_the_named_values_are_complete(named: list[str], text: str, value: Any, found_by: str) -> None:
    """The call ends with the delta that completes the last of them; the value is what had finished by then."""
    for parts in ways(text):
        result = run(JsonDocument(enough_when=named), text_events(parts))
        assert isinstance(result.verdict, Enough)
        assert result.verdict.completed == "enough"
        assert (result.document.value, result.document.complete) == (value, False)
        before = "".join(parts[: result.event - 2])
        assert found_by not in before
        assert before + parts[result.event - 2] == text[: len(before + parts[result.event - 2])]


def test_named_values_count_even_if_the_same_delta_goes_wrong_after_them() -> None:
    """What is said does not depend on how the text was cut."""
    for parts in ways('{"a": 1, "b": oops}'):
        assert run(JsonDocument(enough_when=["/a"]), text_events(parts)).verdict.completed == "enough"


def test_a_document_that_closes_is_cut_rather_than_enough() -> None:
    """Of two good ends with the same delta the one that claims more counts."""
    spec = JsonDocument(trailing="cut", enough_when=["/a"])
    for text in ('{"a": "x"}', '{"a": "x"} and so on'):
        assert run(spec, text_events([text])).verdict == Enough("cut", 10)
        assert run(spec, text_events(list(text))).verdict == Enough("enough", 9)


def test_a_named_value_that_never_comes_is_no_reason_to_trip() -> None:
    """The whole document was accepted; the name was a hint for ending early, not a constraint."""
    result = run(JsonDocument(enough_when=["/z"]), text_events(['{"a": 1}']))
    assert (result.verdict, result.document.complete) == (None, True)


def test_enough_does_not_end_a_watch_that_only_observes() -> None:
    """A panel that does not act on it feeds on, and the document is accepted at its end."""
    for spec in (JsonDocument(trailing="cut"), JsonDocument(enough_when=["/a"])):
        state = watch(spec)
        verdicts = [
            state.feed(event, 0.0) for event in text_events(['{"a": 1, ', '"b": 2}', " "]) if type(event) in state.wants
        ]
        assert [verdict.completed for verdict in verdicts if verdict] == ["cut" if spec.trailing == "cut" else "enough"]
        assert state.document() == Document(text='{"a": 1, "b": 2}', value={"a": 1, "b": 2}, complete=True)


# -- tools -----------------------------------------------------------------------------------------------------------


def test_each_tool_input_is_a_document() -> None:
    """`where: tools`: the value is the list of inputs in the order of their blocks."""
    for parts in ways('{"x": [1, 2]}'):
        result = run(JsonDocument(where="tools"), tool_events(("f", parts), ("g", [""]), ("f", parts)))
        value = [
            {"id": "id0", "name": "f", "input": {"x": [1, 2]}},
            {"id": "id1", "name": "g", "input": {}},
            {"id": "id2", "name": "f", "input": {"x": [1, 2]}},
        ]
        assert (result.verdict, result.document.value, result.document.complete) == (None, value, True)


def test_one_tool_among_others() -> None:
    """`where: tool:NAME`: other tools' inputs are not looked at; of several calls the first one's is the value."""
    result = run(JsonDocument(where="tool:f"), tool_events(("g", ["oops"]), ("f", ['{"x": 1}']), ("f", ['{"x": 2}'])))
    assert (result.verdict, result.document) == (None, Document(text='{"x": 1}', value={"x": 1}, complete=True))


@pytest.mark.parametrize("second", ['{"x": 2', "oops", '{"x": 1} {"x": 2}', "```", "[]"])
def test_every_call_of_the_tool_is_guarded(second: str) -> None:
    """A second call that is wrong trips with its own block and name. Nothing may stand around a tool's input."""
    spec = JsonDocument(where="tool:f", fence="strip", preamble="skip", trailing="allow")
    result = run(spec, tool_events(("f", ['{"x": 1}']), ("f", [second])))
    assert isinstance(result.verdict, Trip)
    assert result.verdict.where.block == 1
    assert result.verdict.message.startswith("input of the tool 'f': ")
    assert "json.trailing: allow" not in result.verdict.message
    assert not result.document.complete


def test_a_tool_input_is_closed_with_its_block() -> None:
    """What is missing is told when the message says what comes next: its end, or another block."""
    result = run(JsonDocument(where="tools"), tool_events(("f", ['{"x": 1'])))
    assert (result.verdict.reason, result.event) == ("json.incomplete", 5)
    result = run(JsonDocument(where="tools"), tool_events(("f", ['{"x": 1']), ("f", ['{"x": 1}'])))
    assert (result.verdict.reason, result.event) == ("json.incomplete", 4)


def test_a_tool_block_that_never_stops_is_closed_with_the_message() -> None:
    """No document is left unchecked."""
    events = [event for event in tool_events(("f", ['{"x": 1'])) if not isinstance(event, BlockStopped)]
    assert run(JsonDocument(where="tools"), events).verdict.reason == "json.incomplete"


@pytest.mark.parametrize(
    ("where", "body", "message"),
    [
        ("tool:f", None, "the tool 'f' never was called, so there is no document: the answer called 'g'"),
        ("tools", {"tools": TOOLS, "tool_choice": {"type": "any"}}, None),
    ],
)
def test_a_tool_that_was_never_called(where: str, body: dict[str, Any] | None, message: str | None) -> None:
    """A named tool must be called, and so must any if the request says so."""
    events = tool_events(("g", ["{}"])) if message else text_events(["I'd rather not."])
    trip = run(JsonDocument(where=where), events, body).verdict
    assert trip.reason == "json.incomplete"
    assert trip.message == (message or "no tool was called, so there is no document: the answer called nothing")


def test_an_answer_without_tool_calls_is_fine_where_tools_are_free() -> None:
    """I4: the last answer of an agent calls nothing."""
    result = run(JsonDocument(where="tools"), text_events(["Done."]), {"tools": TOOLS})
    assert (result.verdict, result.document) == (None, Document(text="", value=[], complete=True))


# -- partial values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": {"b": [1, 2', {"a": {"b": [1]}}),
        ('{"a": "x", "b": "unfini', {"a": "x"}),
        ('{"a": "x", "b', {"a": "x"}),
        ('{"a": 1.50, "b": tr', {"a": 1.5}),
        ('{"a": -0, "b": 1e400, "c": 1E2, "d": ', {"a": 0, "b": math.inf, "c": 100.0}),
        ('{"a": "\\ud800\\u0041", "b": "\\udc00", ', {"a": "\ud800A", "b": "\udc00"}),
        ('{"a": "\ud800", ', {"a": "\ud800"}),
        ('{"a": 1e99999999999999999999, ', {"a": math.inf}),
        ('{"a": 1, "b": oops', {"a": 1}),
        ("{", {}),
        ("", None),
    ],
)
def test_a_partial_value_is_what_has_finished(text: str, value: Any) -> None:
    """An attempt that ended early still tells as much as is certain, read as `json.loads` would."""
    state = watch(SPEC)
    for event in text_events(list(text))[:-3]:
        if type(event) in state.wants and isinstance(state.feed(event, 0.0), Trip):
            break
    assert isinstance(state, HoldsDocument)
    assert state.document().value == value
    assert not state.document().complete


# -- the policy section ----------------------------------------------------------------------------------------------


def test_the_section_is_equal_and_hashable_by_content() -> None:
    """A section with a schema is frozen, and equal however it was written."""
    one = JsonDocument(schema={"type": "object", "required": ["a"]}, enough_when=["/a"])
    two = JsonDocument.model_validate({"schema": {"required": ["a"], "type": "object"}, "enough_when": ("/a",)})
    assert (one, hash(one)) == (two, hash(two))
    assert one != JsonDocument(schema={"type": "object"}, enough_when=["/a"])
    with pytest.raises(ValidationError):
        one.where = "tools"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "tool:"}, "/where: must match"),
        ({"where": "texts"}, "/where: must match"),
        ({"enough_when": ["total"]}, "'total' is no JSON Pointer"),
        ({"enough_when": ["/a"], "where": "tools"}, "enough_when needs one document"),
        ({"max_digits": 4301}, "/max_digits: must be at most 4300, got 4301"),
        ({"max_depth": 0}, "/max_depth: must be at least 1, got 0"),
        ({"max_bytes": "1"}, "/max_bytes: must be a whole number"),
        ({"schema": "requests"}, '/schema: must be "request"'),
        ({"expects": "object"}, "/expects: unknown key"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """What cannot work is said when the policy is made."""
    with pytest.raises(PolicyError, match=message):
        JsonDocument(**options)


@pytest.mark.parametrize(
    ("options", "body", "problem"),
    [
        ({}, None, "the source's request is unknown"),
        ({}, {}, "it has no structured output format"),
        ({"where": "tool:h"}, {"tools": TOOLS}, r"it has no tool 'h' with an input_schema \(there are: f, g\)"),
        ({"where": "tools"}, None, "the source's request is unknown"),
    ],
)
def test_a_schema_that_the_request_does_not_have(
    options: dict[str, Any], body: dict[str, Any] | None, problem: str
) -> None:
    """`schema: request` is refused before anything is sent."""
    with pytest.raises(PolicyError, match=problem):
        watch(JsonDocument(schema="request", **options), body)


def test_a_schema_file_that_nobody_read() -> None:
    """A name alone is no schema."""
    with pytest.raises(PolicyError, match=r"invoice\.schema\.json was not read"):
        watch(JsonDocument(schema_file="invoice.schema.json"))


# -- any document, any split -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\/`~{}[]:,\n\u2028\U0001f600'), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DECORATIONS = [
    ("{}", {}),
    (" \n{}\t\n", {}),
    ("```json\n{}\n```\n", {"fence": "strip"}),
    ("~~~\n{}\n", {"fence": "strip"}),
    ("Here it is:\n{} ", {"preamble": "skip", "expect": "object"}),
    ("So,\n```\n{}\n```", {"preamble": "skip", "fence": "strip", "expect": "object"}),
    ("{} That's it.", {"trailing": "allow"}),
    ("{} That's it.", {"trailing": "cut"}),
]
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, Any]:
    """A JSON text in one of the ways to write it, and its value."""
    value = draw(VALUES)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    return text, json.loads(text)


@QUICK
@given(documents(), st.sampled_from(DECORATIONS), st.lists(st.integers(0, 200)), st.booleans())
def test_no_valid_document_ever_trips(
    document: tuple[str, Any], decoration: tuple[str, dict[str, Any]], cuts: list[int], wrap: bool
) -> None:
    """I4: any JSON document, split anywhere, in any allowed decoration, is accepted with the value of `json.loads`."""
    text, value = document
    around, options = decoration
    if wrap or options.get("expect") == "object" or not isinstance(value, dict | list):
        text, value = f'{{"document": {text}}}', {"document": value}
    spec = JsonDocument(**({"expect": "any", "duplicate_names": "allow"} | options))
    result = run(spec, text_events(pieces(around.replace("{}", text, 1), cuts)))
    assert result.verdict is None or isinstance(result.verdict, Enough)
    assert (result.document.value, result.document.complete) == (value, True)


@QUICK
@given(documents(), st.data())
def test_a_wrong_character_trips_or_is_json(document: tuple[str, Any], data: st.DataObject) -> None:
    """I3, I4: with one character changed, added or missing, the guard accepts exactly what `json.loads` accepts."""
    text, _ = document
    at = data.draw(st.integers(0, len(text) - 1), label="at")
    char = data.draw(st.sampled_from('"\\{}[]:,0123456789-+.eE \n\ttrufalsenAN\u00e4`'), label="char")
    mutated = data.draw(
        st.sampled_from([text[:at] + char + text[at + 1 :], text[:at] + char + text[at:], text[:at] + text[at + 1 :]])
    )
    spec = JsonDocument(expect="any", duplicate_names="allow", max_digits=4300)

    def constant(name: str) -> None:
        raise ValueError(name)

    try:
        value, valid = json.loads(mutated, parse_constant=constant), True
    except ValueError:
        value, valid = None, False
    results = [run(spec, text_events(parts)) for parts in ([mutated], list(mutated))]
    assert [said(result) for result in results] == [said(results[0])] * 2
    assert (results[0].verdict is None) is valid
    assert results[0].document.complete is valid
    if valid:
        assert results[0].document.value == value


@QUICK
@given(documents(), st.integers(0, 400))
def test_no_prefix_is_accepted(document: tuple[str, Any], at: int) -> None:
    """I3: an object or array that was cut off is never accepted, and its partial value is no surprise."""
    text = f'{{"document": {document[0]}}}'
    cut = text[: at % len(text)]
    result = run(JsonDocument(duplicate_names="allow"), text_events(list(cut)))
    assert result.verdict.reason == "json.incomplete"
    assert not result.document.complete
    json.dumps(result.document.value)


# -- cost ------------------------------------------------------------------------------------------------------------


def test_cost_per_delta_does_not_grow() -> None:
    """I8: in a string of two megabytes a piece of eight characters costs the same at the end as at the start."""
    state = watch(JsonDocument(enough_when=["/z"]))
    state.feed(Delta(0, "text", '{"a": "'), 0.0)
    piece = Delta(0, "text", "12345678")
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(50_000):
            state.feed(piece, 0.0)
        rounds.append(time.perf_counter() - start)
    assert min(rounds[3:]) < 4 * min(rounds[:2])


# -- streams of a real model -----------------------------------------------------------------------------------------


def _sse(raw: bytes) -> list[Event]:
    """Events of a recorded stream: enough of SSE for recordings that are known to be well formed."""
    events: list[Event] = []
    for frame in raw.decode().split("\n\n")[:-1]:  # what a blank line does not end is no frame
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
        data = json.loads(lines.get("data", "null")) or {}
        match data.get("type"):
            case "message_start":
                events.append(Started())
            case "content_block_start":
                block = data["content_block"]
                kind = {"tool_use": "tool_input"}.get(block["type"], block["type"])
                events.append(BlockStarted(data["index"], kind, block["type"], block.get("name"), block.get("id")))
            case "content_block_delta" if data["delta"]["type"] == "text_delta":
                events.append(Delta(data["index"], "text", data["delta"]["text"]))
            case "content_block_delta" if data["delta"]["type"] == "input_json_delta":
                events.append(Delta(data["index"], "tool_input", data["delta"]["partial_json"]))
            case "content_block_stop":
                events.append(BlockStopped(data["index"]))
            case "message_delta":
                events.append(Metered(Usage(), data["delta"]["stop_reason"]))
            case "message_stop":
                events.append(Stopped())
    return events


@pytest.mark.parametrize(
    ("name", "where", "reason", "complete", "names"),
    [
        ("text_json_answer", "text", None, True, ["invoice_no", "supplier", "currency", "lines"]),
        ("max_tokens_truncated", "text", "json.incomplete", False, ["invoice_no", "supplier", "currency", "lines"]),
        ("thinking_text", "text", "json.preamble", False, None),
        ("error_overloaded_midstream", "text", "json.preamble", False, None),
        ("tool_use_fine_grained", "tool:write_file", None, True, ["path", "mode", "content"]),
        ("tool_use_fine_grained", "tool:write", "json.incomplete", False, None),
        ("dropped_no_message_stop", "tool:write_file", None, False, ["path"]),
    ],
)
def test_transcripts(name: str, where: str, reason: str | None, complete: bool, names: list[str] | None) -> None:
    """Documented wire forms: text, fine-grained tool input, cut off, dropped."""
    result = run(JsonDocument(where=where), _sse(path("sse", f"{name}.sse").read_bytes()))
    assert (result.verdict and result.verdict.reason, result.document.complete) == (reason, complete)
    assert (result.document.value and list(result.document.value)[: len(names or ())]) == names


def test_sixty_recorded_streams() -> None:
    """Verdict, dead character and delta (from 1) are those of an independent judge for streams of a real model."""
    analysis = json.loads(path("real_sse", "analysis.json").read_text())
    archive = zipfile.ZipFile(io.BytesIO(path("real_sse", "gemma270m-advisories.zip").read_bytes()))
    found, expected = {}, {}
    for stream in analysis:
        events = _sse(archive.read(f"{stream['name']}.sse"))
        result = run(SPEC, events)
        deltas = [index for index, event in enumerate(events) if type(event) is Delta]
        trip = result.verdict
        if trip is None:
            found[stream["name"]] = ("ok", None, None)
        elif trip.where.char is None:
            found[stream["name"]] = ("truncated", None, None)
        else:
            found[stream["name"]] = ("dead", trip.where.char, 1 + deltas.index(result.event))
        expected[stream["name"]] = (stream["syntax"], stream.get("syntax_dead_char"), stream.get("syntax_dead_delta"))
    assert len(analysis) == 60
    assert found == expected
