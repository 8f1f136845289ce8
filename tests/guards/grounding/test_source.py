"""`guards.grounding.source`: which text is the source of a call, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.guards.grounding.normal_form import normal_form
from streamguard.guards.grounding.search import Search
from streamguard.guards.grounding.source import NoSource, SourceText, SourceTexts
from streamguard.request import Request


def request(content: Any, **fields: Any) -> Request:
    return Request({"model": "m", "messages": [{"role": "user", "content": content}], **fields})


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("plain", "plain"),
        ([text("a"), text("b")], "a\nb"),
        (
            [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}}, text("q")],
            "doc\nq",
        ),
        ([{"type": "document", "source": {"type": "content", "content": [text("x")]}}], "x"),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [text("r")]}], "r"),
        ([{"type": "tool_result", "tool_use_id": "t", "content": "r"}], "r"),
        ([{"type": "search_result", "source": "u", "title": "t", "content": [text("s")]}], "s"),
    ],
)
def test_the_text_of_a_request(content: Any, expected: str) -> None:
    """All text that the user's messages bring."""
    assert SourceTexts(request=request(content)).find(None).text == expected


def test_only_the_users_messages_count() -> None:
    """Neither the system prompt nor what the assistant said is a source."""
    body = {
        "system": "S",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "A"},
            {"role": "user", "content": "two"},
        ],
    }
    assert SourceTexts(request=Request(body)).find("request").text == "one\ntwo"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (
            request([text("a"), {"type": "image", "source": {"type": "url", "url": "u"}}]),
            "the request has an image, whose text nobody here knows: give source_text=, or between",
        ),
        (
            request([{"type": "document", "source": {"type": "file", "file_id": "f"}}]),
            (
                "the request has a document that is no text (a PDF, or a reference to a file), whose text nobody here "
                "knows: give source_text=, or between"
            ),
        ),
        (
            request([{"type": "document", "source": {"type": "content", "content": [{"type": "image"}]}}]),
            "the request has an image, whose text nobody here knows: give source_text=, or between",
        ),
        (
            request([{"type": "container_upload", "file_id": "f"}]),
            "the request has a file by reference, whose text nobody here knows: give source_text=, or between",
        ),
        (
            request([{"type": "new_thing"}]),
            "the request has a block of type 'new_thing', whose text nobody here knows: give source_text=, or between",
        ),
        (
            request("a", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
            "the server tool web_search_20250305 brings text of its own while the answer is written: give source_text=",
        ),
        (
            request("a", mcp_servers=[{"type": "url", "url": "u", "name": "n"}]),
            "an MCP server brings text of its own while the answer is written: give source_text=",
        ),
        (None, "the source of this call shows no request to read it from: give source_text="),
    ],
)
def test_where_nobody_knows_the_source(request_: Request | None, problem: str) -> None:
    """An image, a file, a tool that brings text, an opaque source: refused, unless the text is given."""
    with pytest.raises(NoSource) as refused:
        SourceTexts(request=request_).find(None)
    assert str(refused.value) == problem
    assert SourceTexts("given", request_).find(None).text == "given"


@pytest.mark.parametrize(
    "tools",
    [
        [{"name": "f", "input_schema": {"type": "object"}}],
        [{"type": "custom", "name": "f", "input_schema": {}}],
        [{"type": "bash_20250124", "name": "bash"}],
    ],
)
def test_tools_whose_results_the_caller_sends(tools: list[Any]) -> None:
    """They bring no text while the answer is written."""
    assert SourceTexts(request=request("a", tools=tools)).find(None).text == "a"


def test_between_marks() -> None:
    """Only what stands between them, every time, whatever else the request has."""
    asked = request([text("Example: Globex. <doc>one</doc> and <doc>two"), text("</doc> <doc"), {"type": "image"}])
    assert SourceTexts(request=asked).find("request", ("<doc>", "</doc>")).text == "one\ntwo\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("nothing", "the request's user messages do not have '<doc>'"),
        ("<doc>open", "the request's user messages have '<doc>' without '</doc>' behind it"),
    ],
)
def test_marks_that_are_not_there(content: str, problem: str) -> None:
    """A source that cannot be cut out is none."""
    with pytest.raises(NoSource) as refused:
        SourceTexts(request=request(content)).find("request", ("<doc>", "</doc>"))
    assert str(refused.value) == problem


ROW = {"text": "T", "doc": {"body": "B", "n": 3}, "tags": ["x"]}


@pytest.mark.parametrize(
    ("place", "expected"), [(None, "T"), ("row.text", "T"), ("row.doc.body", "B"), ("request", "R")]
)
def test_a_rows_fields(place: str | None, expected: str) -> None:
    """The field that is named; without a name, the row's text."""
    assert SourceTexts(ROW, request("R")).find(place).text == expected


def test_a_row_without_a_text_leaves_the_request() -> None:
    """Where no field is named."""
    assert SourceTexts({"id": 1}, request("R")).find(None).text == "R"


@pytest.mark.parametrize(
    ("given", "place", "problem"),
    [
        (ROW, "row.body", "row.body is missing, so there is no source to hold values against"),
        (ROW, "row.doc", "row.doc is an object, no text, so there is no source to hold values against"),
        (ROW, "row.doc.n", "row.doc.n is a number, no text, so there is no source to hold values against"),
        (ROW, "row.tags", "row.tags is an array, no text, so there is no source to hold values against"),
        (None, "row.text", "row.text is a field of a job's row, and this call has none: give source_text="),
    ],
)
def test_fields_that_are_no_text(given: Any, place: str, problem: str) -> None:
    """A source must be a text."""
    with pytest.raises(NoSource) as refused:
        SourceTexts(given, request("R")).find(place)
    assert str(refused.value) == problem


def test_what_is_worked_out_is_kept_for_the_call() -> None:
    """The same text is put into a form once, wherever it came from."""
    texts, form = SourceTexts({"text": "A B", "b": "A B"}), normal_form(("case",))
    first = texts.find("row.text")
    assert first is texts.find("row.b")
    assert first.in_form(form) is first.in_form(form)
    assert first.numbers is first.numbers


@pytest.mark.parametrize("length", [10, 5_000, 20_000])
def test_the_place_of_a_part(length: int) -> None:
    """What is shown is the part of the source itself, with a little on either side, however long the source is."""
    source = "é ﬁ -\n " * (length // 7) + "Here stands Müller & Söhne, in " + "Zürich " * length
    text_, form = SourceText(source), normal_form(("case", "dashes", "quotes", "space"))
    search = Search(text_.in_form(form), form)
    assert search.feed("muller") == 2
    shown = text_.around(form, search.at, search.length)
    assert "Here stands Müller" in shown
    assert len(shown) < 100


def test_a_word_that_is_broken_by_a_soft_hyphen_is_whole() -> None:
    """At the end of a line, whichever way lines end; elsewhere the hyphen shows nothing and takes nothing along."""
    form = normal_form(("case", "dashes", "quotes", "space"))
    text_ = SourceText("Corpo\u00ad\r\n  ration, soft\u00ad hyphen")
    assert text_.in_form(form) == "corporation, soft hyphen"
