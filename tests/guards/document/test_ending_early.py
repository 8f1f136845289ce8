"""Documents in streams: when a call ends before its stream does."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.events import BlockStarted, BlockStopped, Delta, Stopped
from streamguard.guards.base import Document
from streamguard.guards.document.guard import JsonDocument
from streamguard.verdict import Enough
from tests.guards.documents import run, text_events, tool_events, watch, ways

SPEC = JsonDocument()


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
