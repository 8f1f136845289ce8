"""Documents in streams: any document, any split, and what a real model sent."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.guards.document.guard import JsonDocument
from streamguard.verdict import Enough
from tests.data import path
from tests.guards.documents import pieces, run, said, text_events, watch

SPEC = JsonDocument()


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
