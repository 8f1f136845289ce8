"""`guards.json_document` with schemas: which schema judges which document, and what a trip says."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import msgspec
import pytest

from streamguard.errors import SchemaError
from streamguard.guards.base import Document
from streamguard.guards.document.guard import JsonDocument
from streamguard.verdict import Enough, Trip
from tests.data import path
from tests.guards.documents import run, said, text_events, tool_events, watch, ways

INVOICE = {
    "type": "object",
    "properties": {
        "total": {"$ref": "#/$defs/money"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
        "kind": {"enum": ["invoice", "credit"]},
    },
    "required": ["total"],
    "$defs": {"money": {"type": "number", "minimum": 0}, "line": {"required": ["price"]}},
}
VALID = '{"lines": [{"price": 1}], "kind": "credit", "total": 12.5}'


@pytest.mark.parametrize(
    ("text", "message", "more"),
    [
        (
            '{"total": "12"}',
            "(at character 10, in /total)",
            {"pointer": "/total", "keyword": "type", "char": 10, "offset": 10},
        ),
        (
            '{"kind": "invoicing", "total": 1}',
            "(at character 16, in /kind)",
            {"pointer": "/kind", "keyword": "enum", "schema_pointer": "/properties/kind/enum", "char": 16},
        ),
        (
            '{"kind": "invoice"}',
            "(at character 18)",
            {"pointer": "", "keyword": "required", "schema_pointer": "/required", "char": 18},
        ),
        ("[]", "(at character 0)", {"pointer": "", "keyword": "type", "schema_pointer": "/type", "char": 0}),
    ],
)
def test_a_schema_dead_prefix_trips(text: str, message: str, more: dict[str, Any]) -> None:
    """The first byte after which nothing can satisfy the schema, its keyword and place, however the text is cut."""
    results = [run(JsonDocument(schema=INVOICE), text_events(parts)) for parts in ways(text)]
    trip = results[0].verdict
    assert isinstance(trip, Trip)
    assert (trip.reason, trip.knob, trip.guard) == ("json.schema", "json.schema", "json")
    known = msgspec.structs.asdict(trip.where)
    assert {key: known[key] for key in more} == more
    assert trip.message.endswith(message)
    assert [said(result) for result in results] == [said(results[0])] * len(results)


@pytest.mark.parametrize("options", [{}, {"trailing": "cut"}, {"fence": "strip"}, {"duplicate_names": "allow"}])
def test_a_valid_document_is_accepted(options: dict[str, Any]) -> None:
    """I4: no prefix of a valid document trips."""
    for parts in ways(VALID):
        result = run(JsonDocument(schema=INVOICE, **options), text_events(parts))
        assert not isinstance(result.verdict, Trip)
        assert result.document == Document(text=VALID, value=json.loads(VALID), complete=True)


@pytest.mark.parametrize(
    ("schema", "options", "text", "reason"),
    [
        ({"type": "array"}, {}, "[]", None),
        ({"enum": ["a", 1]}, {}, '"a"', None),
        ({"type": "array"}, {"expect": "object"}, "[]", "json.schema"),
        ({}, {"expect": "object"}, "[]", "json.schema"),
        ({}, {}, "null", None),
        ({"type": "array"}, {"preamble": "skip"}, "As {name} says: [1]", None),
        ({"type": "object"}, {"preamble": "skip"}, "As [1] says: {}", None),
        ({"minItems": 1}, {"preamble": "skip"}, "As [1] says: {}", "json.trailing"),
        ({"type": "integer"}, {}, "12", None),
        ({"type": "integer", "maximum": 10}, {}, "12", "json.schema"),
    ],
)
def test_the_schema_says_what_is_expected(schema: Any, options: dict[str, Any], text: str, reason: str | None) -> None:
    """Without `expect` the schema alone decides what the top value is, and what a preamble is searched for."""
    for parts in ways(text):
        verdict = run(JsonDocument(schema=schema, **options), text_events(parts)).verdict
        assert (verdict and verdict.reason) == reason


def test_an_unsatisfiable_schema_is_refused() -> None:
    """Nothing is sent that cannot succeed."""
    with pytest.raises(SchemaError, match="no document can satisfy this schema"):
        watch(JsonDocument(schema={"type": "object", "required": ["a"], "properties": {"a": False}}))


def test_a_schema_is_compiled_once() -> None:
    """All attempts of equal sections share it."""
    one, two = JsonDocument(schema=INVOICE), JsonDocument(schema=dict(reversed(INVOICE.items())))
    assert one.plan(one.own_schema()) is one.plan(one.own_schema())
    assert (one, hash(one)) == (two, hash(two))


def _tools(**schemas: Any) -> dict[str, Any]:
    return {"tools": [{"name": name, "input_schema": schema} for name, schema in schemas.items()]}


def test_the_schema_of_the_request() -> None:
    """`schema: request` takes the structured output format for text, in either of its places."""
    spec = JsonDocument(schema="request")
    for body in (
        {"output_config": {"format": {"type": "json_schema", "schema": {"required": ["a"]}}}},
        {"output_format": {"type": "json_schema", "schema": {"required": ["a"]}}},
    ):
        assert run(spec, text_events(["{}"]), body).verdict.reason == "json.schema"
        assert run(spec, text_events(['{"a": 1}']), body).document.complete


@pytest.mark.parametrize(
    ("calls", "block"),
    [
        ([("f", '{"a": 1}'), ("g", '{"a": "x"}')], None),
        ([("f", '{"a": 1}'), ("g", '{"a": 1}')], 1),
        ([("f", '{"a": "x"}')], 0),
        ([("bash", '{"a": []}')], None),  # a tool of the provider's own making: no schema, syntax only
        ([("f", "")], 0),  # nothing at all is {}
    ],
)
def test_each_tool_has_its_own_schema(calls: list[tuple[str, str]], block: int | None) -> None:
    """`where: tools` with `schema: request` judges each input by the schema of its tool."""
    kinds = {"f": "integer", "g": "string"}
    body = _tools(**{name: {"properties": {"a": {"type": kind}}, "required": ["a"]} for name, kind in kinds.items()})
    body["tools"].append({"name": "bash", "type": "bash_20250124"})
    result = run(JsonDocument(where="tools", schema="request"), tool_events(*calls), body)
    assert (result.verdict and result.verdict.where.block) == block
    if result.verdict is None:
        assert [each["input"] for each in result.document.value] == [json.loads(text) for _, text in calls]


def test_one_tool_by_the_schema_of_the_request() -> None:
    """`where: tool:NAME` takes the schema of that tool."""
    spec = JsonDocument(where="tool:f", schema="request")
    body = _tools(f={"required": ["a"]}, g={"required": ["b"]})
    trip = run(spec, tool_events(("f", ['{"b": 1}'])), body).verdict
    assert (trip.reason, trip.where.keyword) == ("json.schema", "required")
    assert trip.message.startswith("input of the tool 'f': ")


def test_enough_when_with_subschemas() -> None:
    """Named values are judged in the context of the whole schema, references included."""
    spec = JsonDocument(schema=INVOICE, enough_when=["/total", "/lines/0"])
    for parts in ways('{"lines": [{"price": 1}, {"x'):
        assert run(spec, text_events(parts)[:-3]).verdict is None
    for parts in ways('{"lines": [{"price": 1}], "total": 3, "x'):
        result = run(spec, text_events(parts))
        assert isinstance(result.verdict, Enough)
        assert result.document.value == {"lines": [{"price": 1}], "total": 3}
    schemas = spec.plan(spec.own_schema()).parts
    assert schemas["total",].validate(-1).keyword == "minimum"
    assert schemas["lines", "0"].validate({"cost": 1}).keyword == "required"
    assert schemas["lines", "0"].validate({"price": 1}) is None


def test_recorded_streams_by_their_schema() -> None:
    """Streams of a real model: the verdicts of an independent judge, and no dead character later than it saw."""
    analysis = json.loads(path("real_sse", "analysis.json").read_text())
    schema = json.loads(path("advisories", "advisory.schema.json").read_text())
    archive = zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip"))
    verdicts, later, same = {}, {}, 0
    for stream in analysis:
        frames = archive.read(f"{stream['name']}.sse").decode().split("\n\n")
        datas = [json.loads(frame.split("data: ", 1)[1]) for frame in frames if "data: " in frame]
        deltas = [data["delta"]["text"] for data in datas if data["type"] == "content_block_delta"]
        trip = run(JsonDocument(schema=schema), text_events(deltas)).verdict
        verdicts[stream["name"]] = "ok" if trip is None else "dead"
        if trip is not None:
            same += trip.where.char == stream["schema_dead_char"]
            if trip.where.char > stream["schema_dead_char"]:
                later[stream["name"]] = (trip.where.char, stream["schema_dead_char"], trip.message)
    assert verdicts == {stream["name"]: stream["schema"] for stream in analysis}
    assert later == {}
    # The judge does not know that a comma promises a ninth item, or that used-up items of an enum leave fewer.
    assert same >= sum(verdict == "dead" for verdict in verdicts.values()) - 6
