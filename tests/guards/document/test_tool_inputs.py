"""Documents in streams: the inputs of tools, values so far, and the policy section."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from streamguard.errors import PolicyError
from streamguard.events import BlockStopped
from streamguard.guards.base import Document, HoldsDocument
from streamguard.guards.document.guard import JsonDocument
from streamguard.verdict import Trip
from tests.guards.documents import run, text_events, tool_events, watch, ways

SPEC = JsonDocument()
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}, {"name": "g", "input_schema": {"type": "object"}}]


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
