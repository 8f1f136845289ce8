"""`guards.document_reader`: how a document meets a schema's final judgement, by schemas made up for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from streamguard.guards.document.reader import DocumentReader, Plan
from streamguard.verdict import Enough, Trip, Where
from streamguard.viability.syntax.protocol import Dead, Prefix
from streamguard.viability.syntax.scanner import SyntaxPrefix
from tests.guards.documents import ways


class Judged:
    """A schema that lets every prefix live and judges the whole by a function."""

    def __init__(self, valid: Callable[[Any], bool], **options: Any) -> None:
        self.valid = valid
        self.options = options
        self.judged: list[Any] = []

    def prefix(self) -> Prefix:
        return SyntaxPrefix(**self.options)

    def validate(self, value: Any) -> Dead | None:
        self.judged.append(value)
        if self.valid(value):
            return None
        return Dead(
            offset="eof", char="eof", pointer="/a", keyword="maximum", schema_pointer="/p/maximum", message="too much"
        )


PLAN = Plan(
    expect="any",
    opens="any",
    schema=None,
    parts={},
    framed=True,
    fence="reject",
    preamble="reject",
    trailing="reject",
    duplicate_names="reject",
    max_depth=64,
    max_digits=400,
    max_bytes=None,
)


def _read(texts: list[str], **options: Any) -> tuple[Trip | Enough | None, DocumentReader]:
    reader = DocumentReader(msgspec.structs.replace(PLAN, **options), may_end=True)
    for text in texts:
        verdict = reader.feed(text)
        if verdict is not None:
            return verdict, reader
    return reader.finish(), reader


REFUSED = Trip(
    reason="json.schema",
    message="too much (in the finished document, in /a)",
    knob="json.schema",
    where=Where(offset="eof", pointer="/a", keyword="maximum", schema_pointer="/p/maximum"),
    guard="json",
)


@pytest.mark.parametrize("trailing", ["reject", "cut"])
def test_the_final_judgement_decides(trailing: str) -> None:
    """I3: a document with no dead prefix that the schema refuses as a whole is not accepted, and not cut."""
    for parts in ways('{"a": 1}'):
        schema = Judged(lambda value: False)
        verdict, reader = _read(parts, schema=schema, trailing=trailing)
        assert (verdict, reader.complete, reader.value) == (REFUSED, False, {"a": 1})
        assert schema.judged == [{"a": 1}]
        assert reader.finish() is None


def test_the_whole_is_judged_once() -> None:
    """A valid document is parsed and judged one time, at its end."""
    schema = Judged(lambda value: value == {"a": 1})
    assert _read(list('{"a": 1}'), schema=schema)[0] is None
    assert schema.judged == [{"a": 1}]


def test_a_document_that_died_is_not_judged() -> None:
    """What is dead needs no second opinion."""
    schema = Judged(lambda value: True)
    assert _read(list('{"a": 1'), schema=schema)[0].reason == "json.incomplete"
    assert _read(list('{"a": x}'), schema=schema)[0].reason == "json.malformed"
    assert schema.judged == []


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (
            '{"a": 1, "a": 2}',
            "json.duplicate_name",
            'the name "a" stands twice in one object (at the end of the answer)',
        ),
        (
            "[" + "9" * 5000 + "]",
            "json.number",
            "the document holds a number that cannot be read: ",
        ),
    ],
)
def test_the_full_parse_does_not_trust_the_scan(text: str, reason: str, message: str) -> None:
    """I3: what a prefix let pass is still not accepted if the strict parse refuses it."""
    schema = Judged(lambda value: True, duplicate_names="allow", max_digits=None)
    trip, reader = _read([text], schema=schema)
    assert (trip.reason, trip.message.startswith(message), reader.complete, schema.judged) == (reason, True, False, [])


def test_a_named_value_is_judged_by_its_own_schema() -> None:
    """I3: `enough` holds only values that are valid by their own subschemas; the first one is asked about once."""
    for parts in ways('{"a": 1, "b": 2}'):
        valid, invalid = Judged(lambda value: value == 1), Judged(lambda value: False)
        verdict, reader = _read(parts, parts={("a",): valid})
        assert (verdict.completed, reader.value, reader.complete) == ("enough", {"a": 1}, False)
        assert valid.judged == [1]
        verdict, reader = _read(parts, parts={("a",): invalid})
        assert (verdict, reader.value, reader.complete) == (None, {"a": 1, "b": 2}, True)
        assert invalid.judged == [1]


def test_feeding_after_a_verdict_changes_nothing() -> None:
    """A reader that has spoken is silent."""
    verdict, reader = _read(["{]"])
    assert verdict.reason == "json.malformed"
    assert (reader.feed("{]"), reader.finish(), reader.text) == (None, None, "{]")


@pytest.mark.parametrize("size", [0, 1, 5, 17])
def test_the_size_is_counted_in_bytes(size: int) -> None:
    """The largest document that is allowed is read, and one byte more trips, whatever the characters weigh."""
    for char in ("x", "ä", "€", "\U0001f600"):
        text = f'["{char * size}"]'
        limit = len(text.encode())
        for parts in ways(text):
            assert _read(parts, max_bytes=limit)[0] is None
            trip = _read(parts, max_bytes=limit - 1)[0]
            assert (trip.reason, trip.limit, trip.where) == ("json.size", limit - 1, Where(offset=limit - 1))
            assert limit - 1 < trip.observed <= limit
