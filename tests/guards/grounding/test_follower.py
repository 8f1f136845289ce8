"""`json.grounded`: a document dies at the first character of a value that stands nowhere in the source."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, BlockStopped, Delta, Stopped
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.grounding.spec import Grounded
from streamguard.verdict import Trip

SOURCE = """Invoice 4711 from Globex Corporation AG, Zürich, of 2 January 2026.
3 x A-17 Wid-
gets at 1.234,50 EUR each; discount -12,00. Total: 3.691,50 EUR."""


def verdict(text: str, *entries: Grounded, size: int = 0, source: Any = SOURCE, **fields: Any) -> Trip | None:
    """What becomes of a document that comes in pieces of so many characters."""
    spec = JsonDocument(grounded=entries, **fields)
    watch = spec.watch(AttemptContext(sources=SourceTexts(source)), 0.0)
    pieces = [text[at : at + size] for at in range(0, len(text), size)] if size else [text]
    for piece in pieces:
        found = watch.feed(Delta(kind="text", index=0, text=piece), 0.0)
        if isinstance(found, Trip):
            return found
    return watch.feed(Stopped("end_turn"), 0.0)  # type: ignore[return-value]  # nothing has enough here


def place(trip: Trip | None) -> tuple[Any, ...] | None:
    if trip is None:
        return None
    assert trip.where is not None
    return trip.reason, trip.where.char, trip.where.offset, trip.where.pointer


SUPPLIER = Grounded(at="/supplier")
SKU = Grounded(at="/lines/*/sku", edges="word")
AMOUNT = Grounded(at="/lines/*/amount", as_="number")
DATE = Grounded(at="/date", as_="date")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(
    ("document", "entries", "dead", "pointer"),
    [
        ('{"supplier": "GLOBEX corporation AG"}', (SUPPLIER,), None, ""),
        ('{"supplier": "Globex Corporation GmbH"}', (SUPPLIER,), "G", "/supplier"),
        (r'{"supplier": "Globex Corporation \u0047mbH"}', (SUPPLIER,), "7", "/supplier"),
        (r'{"supplier": "Z\u00fcrich"}', (SUPPLIER,), None, ""),
        (r'{"supplier": "Z\u0075\u0308rich"}', (SUPPLIER,), None, ""),
        ('{"supplier": "Zu\u0308rich"}', (SUPPLIER,), None, ""),
        ('{"supplier": "Zurich"}', (SUPPLIER,), "r", "/supplier"),
        (r'{"supplier": "\ud83d\ude00"}', (SUPPLIER,), "0", "/supplier"),
        ('{"supplier": null, "other": "Initech"}', (SUPPLIER,), None, ""),
        ('{"supplier": ""}', (SUPPLIER,), None, ""),
        ('{"supplier": 7}', (SUPPLIER,), None, ""),
        ('{"supplier": ["Initech"]}', (SUPPLIER,), None, ""),
        ('{"lines": [{"sku": "A-17 widgets"}, {"sku": "A17"}]}', (SKU,), None, ""),
        ('{"lines": [{"sku": "A-17"}, {"sku": "A-1"}]}', (SKU,), '"', "/lines/1/sku"),
        ('{"lines": [{"sku": "A-17"}, {"sku": "B-1", "padding": "and so on and on"}]}', (SKU,), "1", "/lines/1/sku"),
        ('{"lines": [{"amount": 1234.5}, {"amount": 3691.50}, {"amount": -12}]}', (AMOUNT,), None, ""),
        ('{"lines": [{"amount": 1234.5}, {"amount": 12345}]}', (AMOUNT,), "}", "/lines/1/amount"),
        ('{"lines": [{"amount": "1,234.50 €"}, {"amount": "12"}]}', (AMOUNT,), '"', "/lines/1/amount"),
        ('{"lines": [{"amount": "many"}]}', (AMOUNT,), '"', "/lines/0/amount"),
        ('{"date": "2026-01-02"}', (DATE,), None, ""),
        ('{"date": "2026-01"}', (DATE,), None, ""),
        ('{"date": "02.01.26"}', (DATE,), None, ""),
        ('{"date": "2026-01-03"}', (DATE,), '"', "/date"),
        ('{"date": "soon"}', (DATE,), '"', "/date"),
        ('{"supplier": "Globex", "date": "2025-01-02", "lines": []}', (DATE, SUPPLIER), '"', "/date"),
    ],
)  # fmt: skip
def test_where_a_document_dies(
    document: str, entries: tuple[Grounded, ...], dead: str | None, pointer: str, size: int
) -> None:
    """Which character does it, wherever the pieces end. `dead` is the last such character of the value's text."""
    trip = verdict(document, *entries, size=size)
    if dead is None:
        assert trip is None
        return
    assert trip is not None
    assert trip.where is not None
    assert isinstance(trip.where.char, int)
    assert (trip.reason, trip.where.pointer, trip.knob, trip.guard) == (
        "json.ungrounded",
        pointer,
        "json.grounded",
        "json",
    )
    assert document[trip.where.char] == dead
    assert trip.where.offset == len(document[: trip.where.char].encode())
    assert place(trip) == place(verdict(document, *entries))
    assert trip.message == verdict(document, *entries).message  # type: ignore[union-attr]  # as above


def test_the_message_shows_what_was_found_and_where() -> None:
    """The longest part that the source has, and the source around it."""
    trip = verdict('{"supplier": "Globex Corporation GmbH"}', SUPPLIER)
    assert trip is not None
    assert trip.message == (
        'nowhere in the source stands "Globex Corporation G": it has "Globex Corporation ", in "Invoice 4711 from '
        'Globex Corporation AG, Zürich, of 2 January 2026. 3 x A-17…" (at character 33, in /supplier)'
    )
    assert trip.observed == "Globex Corporation "


@pytest.mark.parametrize(
    ("document", "entry", "message"),
    [
        (
            '{"a": "Xerxes"}',
            Grounded(at="/a"),
            'nowhere in the source stands "Xe": it has "X", in "Invoice 4711 from Globex',
        ),
        ('{"a": "Ω"}', Grounded(at="/a"), 'nowhere in the source stands "Ω" (at character 7, in /a)'),
        (
            '{"a": "lobe"}',
            Grounded(at="/a", edges="word"),
            '"lobe" does not stand in the source as whole words: it has "In',
        ),
        (
            '{"a": 12345}',
            Grounded(at="/a", as_="number"),
            "the source has no number 12345: the nearest it has is 4711 (at",
        ),
        (
            '{"a": 13.2}',
            Grounded(at="/a", as_="number", tolerance=0.5),
            "the source has no number 13.2 within 0.5: the nearest",
        ),
        (
            '{"a": "2026-02-30"}',
            Grounded(at="/a", as_="date"),
            '"2026-02-30" is no date, and as: date compares dates (at',
        ),
        (
            '{"a": "2026-02-01"}',
            Grounded(at="/a", as_="date"),
            'the source has no date that is "2026-02-01", however it is',
        ),
        ('{"a": "n/a"}', Grounded(at="/a", as_="number"), '"n/a" is no number, and as: number compares numbers (at'),
    ],
)
def test_messages(document: str, entry: Grounded, message: str) -> None:
    """Each says what was looked for, and what there is."""
    trip = verdict(document, entry)
    assert trip is not None
    assert trip.message.startswith(message)


@pytest.mark.parametrize(
    ("entry", "document", "lives"),
    [
        (Grounded(at="/a", ignore=()), '{"a": "globex"}', False),
        (Grounded(at="/a", ignore=["case"]), '{"a": "globex"}', True),
        (Grounded(at="/a", ignore=["case"]), '{"a": "widgets"}', False),
        (Grounded(at="/a", as_="number"), '{"a": 12}', False),
        (Grounded(at="/a", as_="number", ignore=["sign"]), '{"a": 12}', True),
        (Grounded(at="/a", as_="number", tolerance=0.01), '{"a": 1234.51}', True),
        (Grounded(at="/*"), '{"a": "Globex", "b": "Zürich"}', True),
        (Grounded(at="/*"), '{"a": "Globex", "b": "Basel"}', False),
        (Grounded(at="/*/*/1"), '{"a": [["x", "Globex"], ["y", "Basel"]]}', False),
        (Grounded(at="/a~1b"), '{"a/b": "Basel"}', False),
        (Grounded(at="/0"), '{"0": "Basel"}', False),
    ],
)
def test_options_and_pointers(entry: Grounded, document: str, lives: bool) -> None:
    """What an entry ignores, and which values it is about."""
    assert (verdict(document, entry) is None) is lives


def test_the_whole_document_may_be_a_value() -> None:
    """The empty pointer is the document."""
    assert verdict('"Globex"', Grounded(at=""), expect="any") is None
    assert place(verdict('"Basel"', Grounded(at=""), expect="any")) == ("json.ungrounded", 2, 2, "")


def test_the_schema_speaks_first_at_an_earlier_character() -> None:
    """Whatever dies first is the reason, in one piece and in many."""
    schema = {"properties": {"a": {"maxLength": 3}, "b": {"type": "string"}}}
    document = '{"a": "Globex", "b": "Basel"}'
    for size in (0, 1):
        assert place(verdict(document, Grounded(at="/b"), size=size, schema=schema)) == ("json.schema", 10, 10, "/a")
        late = place(verdict('{"b": "Basel", "a": "Globex"}', Grounded(at="/b"), size=size, schema=schema))
        assert late == ("json.ungrounded", 8, 8, "/b")


def test_what_is_no_json_is_no_value() -> None:
    """A control character inside a string is what kills it."""
    trip = verdict('{"a": "Glo\nbex"}', Grounded(at="/a"))
    assert place(trip) == ("json.malformed", 10, 10, "/a")


def test_the_input_of_a_tool() -> None:
    """Each call's input is held against the source."""
    spec = JsonDocument(where="tools", grounded=[SUPPLIER])
    watch = spec.watch(AttemptContext(sources=SourceTexts(SOURCE)), 0.0)
    found = []
    for index, name in enumerate(("Globex", "Basel")):
        watch.feed(BlockStarted(index=index, kind="tool_input", id=f"t{index}", name="save"), 0.0)
        found.append(watch.feed(Delta(kind="tool_input", index=index, text=json.dumps({"supplier": name})), 0.0))
        watch.feed(BlockStopped(index=index), 0.0)
    assert found[0] is None
    assert isinstance(found[1], Trip)
    assert (found[1].reason, found[1].where and found[1].where.block) == ("json.ungrounded", 1)


def test_a_prefill_counts() -> None:
    """What the request puts in the model's mouth is the beginning of the value."""
    from streamguard.request import Request

    body = {"messages": [{"role": "user", "content": SOURCE}, {"role": "assistant", "content": '{"supplier": "Glo'}]}
    request = Request(body)
    spec = JsonDocument(grounded=[SUPPLIER])
    watch = spec.watch(AttemptContext(request=request, sources=SourceTexts(request=request)), 0.0)
    assert watch.feed(Delta(kind="text", index=0, text="be"), 0.0) is None
    trip = watch.feed(Delta(kind="text", index=0, text="l"), 0.0)
    assert isinstance(trip, Trip)
    assert place(trip) == ("json.ungrounded", 19, 19, "/supplier")


def test_without_a_source_nothing_is_sent() -> None:
    """The policy is refused, with the entry that needs it."""
    with pytest.raises(PolicyError) as refused:
        JsonDocument(grounded=[SUPPLIER, Grounded(at="/x", in_="row.text")]).watch(
            AttemptContext(sources=SourceTexts("given")), 0.0
        ) and JsonDocument(grounded=[SUPPLIER]).watch(AttemptContext(), 0.0)
    assert str(refused.value.problems[0]) == (
        "/json/grounded/0/in: values at /supplier need a source: the source of this call shows no request to read it "
        "from: give source_text="
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"at": "x"}, '\'x\' is no JSON Pointer: it is empty or begins with "/", and "~" stands only in ~0 and ~1'),
        ({"at": "/x", "tolerance": 1}, "tolerance is about numbers: it needs as: number"),
        ({"at": "/x", "ignore": ["sign"]}, "ignore: sign is about numbers: it needs as: number"),
        (
            {"at": "/x", "in": "rows.text"},
            "/in: must be request, or row.FIELD for a field of a job's row, such as row.text, not 'rows.text'",
        ),
        ({"at": "/x", "between": ["a", "b"]}, "between cuts the source out of the request: it needs in: request"),
        ({"at": "/x", "in": "request", "between": ["a"]}, 'between must be two marks, such as ["<doc>", "</doc>"]'),
        ({"at": "/x", "in": "request", "between": ["a", ""]}, 'between must be two marks, such as ["<doc>", "</doc>"]'),
        ({"at": "/x", "as": "number", "edges": "word"}, "edges is about texts, and this is as: number"),
        (
            {"at": "/x", "as": "number", "ignore": ["case"]},
            "ignore: case is about texts, and this is as: number; of numbers only sign can be ignored",
        ),
        (
            {"at": "/x", "as": "date", "ignore": ["sign"]},
            "ignore: sign is about texts, and this is as: date; of dates nothing",
        ),
    ],
)
def test_entries_that_cannot_be(fields: dict[str, Any], problem: str) -> None:
    """Each mistake in the words that a policy file gets."""
    with pytest.raises(PolicyError) as refused:
        Grounded(**fields)
    assert [str(one) for one in refused.value.problems] == [f"Grounded: {problem}"]
