"""`guards.json_document` and `guards.document_reader`: documents in streams."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Started, Stopped
from streamguard.guards.base import AttemptContext, Document
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.request import Request
from streamguard.verdict import REASONS, Trip
from tests.guards.documents import run, said, text_events, ways

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
