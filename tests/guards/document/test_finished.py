"""Finished values of a document: which are told, with which text, and at which character."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events import Delta
from streamguard.files.json_pointer import Path, parse_pointer
from streamguard.guards.document.finished import ON_THE_WAY, Finished
from streamguard.guards.document.guard import JsonDocument
from streamguard.viability.compile import compile_schema
from streamguard.viability.syntax.scanner import SyntaxPrefix
from tests.guards.documents import text_events, tool_events, watch, ways

Told = tuple[int, str, str | None, int]
"""The number of the place, the pointer, the text, and how many characters it takes."""


def told(text: str, parts: list[str], places: list[Path], *, schema: Any = None) -> list[Told]:
    """What a subscription to some places is told of a document in pieces."""
    finished = Finished((tuple(places),))
    prefix = SyntaxPrefix() if schema is None else compile_schema(schema).prefix()
    prefix.values = finished
    for part in parts:
        finished.feed(part)
        assert prefix.feed(part) is None
    return [
        (number, value.pointer, None if number == ON_THE_WAY else value.text, value.at)
        for number, value in finished.queues[0]
    ]


def naive(text: str, places: list[Path]) -> list[Told]:
    """The same by looking at the whole document, value by value, with another parser's spans."""
    found: list[tuple[int, Told]] = []

    def walk(value: Any, path: tuple[str, ...], begin: int) -> int:
        end = begin
        kind = text[begin]
        if kind == "[":
            end += 1
            for index, item in enumerate(value):
                end = walk(item, (*path, str(index)), end)
                end += 1
            end = end if value else end + 1
        elif kind == "{":
            end += 1
            for name, item in value.items():
                end = walk(item, (*path, name), end + len(json.dumps(name)) + 1)
                end += 1
            end = end if value else end + 1
        else:
            end += len(json.dumps(value))
        at = end + (kind in "-0123456789")
        for number, place in enumerate(places):
            if len(place) == len(path) and all(p in ("*", q) for p, q in zip(place, path, strict=True)):
                found.append((end, (number, "".join(f"/{one}" for one in path), text[begin:end], at)))
        if any(
            len(place) > len(path) and all(p in ("*", q) for p, q in zip(place, path, strict=False)) for place in places
        ):
            found.append((end, (ON_THE_WAY, "".join(f"/{one}" for one in path), None, at)))
        return end

    walk(json.loads(text), (), 0)
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


NAMES = st.sampled_from(["a", "b", "lines", "0"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-50, 50), st.sampled_from(["", "x", 'é"\\', "12"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=16,
)
PLACES = st.lists(
    st.lists(st.sampled_from(["a", "b", "lines", "0", "*"]), max_size=3).map(tuple), min_size=1, max_size=3, unique=True
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4), PLACES, st.integers(0, 99))
def test_wanted_values_are_told_as_they_close(value: dict[str, Any], places: list[Path], seed: int) -> None:
    """At every split, with and without a schema, the same values are told at the same characters."""
    text = json.dumps(value, separators=(",", ":"))
    expected = naive(text, places)
    for parts in ways(text, seed):
        assert told(text, parts, places) == expected
        assert told(text, parts, places, schema={"type": "object", "properties": {"a": {}}}) == expected


def test_numbers_are_exact_decimals() -> None:
    """A value is read once, and a number is what is written."""
    finished = Finished(((("a",),),))
    prefix = SyntaxPrefix()
    prefix.values = finished
    text = '{"a":[0.1,12345678901234567890.5,true,"é"]}'
    finished.feed(text)
    prefix.feed(text)
    value = finished.queues[0][0][1]
    assert value.value == [Decimal("0.1"), Decimal("12345678901234567890.5"), True, "é"]
    assert value.value is value.value


def test_a_number_no_decimal_can_hold_is_an_error() -> None:
    """An exponent beyond all bounds is said in words."""
    finished = Finished(((("a",),),))
    prefix = SyntaxPrefix()
    prefix.values = finished
    finished.feed('{"a":1e99999999999999999999}')
    prefix.feed('{"a":1e99999999999999999999}')
    with pytest.raises(ValueError, match="the number 1e99999999999999999999 is out of range"):
        _ = finished.queues[0][0][1].value


def pointers(state: Any, number: int) -> Iterator[str]:
    for document in state.followed(number):
        yield from (f"{document.block} {value.pointer}" for _, value in document.take())


@pytest.mark.parametrize("prefill", ["", '{"a": 1, "b'])
def test_a_watch_tells_what_its_events_have_completed(prefill: str) -> None:
    """Read ahead or not, nothing is told before its event, and a prefill counts."""
    text = '{"a": 1, "b": [2, 3], "c": 4}'[len(prefill) :]
    body = {"messages": [{"role": "assistant", "content": prefill}]} if prefill else None
    for ahead in (False, True):
        state = watch(JsonDocument(), body)
        number = state.subscribe([parse_pointer(place) for place in ("/a", "/b/*", "/c")])
        seen = list(pointers(state, number))
        events = text_events(text)
        if ahead:
            state.ahead([event for event in events if isinstance(event, Delta)])
        found: list[list[str]] = []
        for event in events:
            if type(event) in state.wants:
                assert state.feed(event, 0.0) is None
                found.append(list(pointers(state, number)))
        told = [seen, *[one for one in found if one]]
        early = [["None /a"]] if prefill else [[], ["None /a"]]
        assert told == [*early, ["None /b/0"], ["None /b/1", "None /b"], ["None /c", "None "]]
        assert state.followed(number)[0].accepted


def test_each_call_of_a_tool_is_its_own_document() -> None:
    """Two inputs are told apart by their block."""
    state = watch(JsonDocument(where="tools"))
    number = state.subscribe([("a",)])
    for event in tool_events(("x", ['{"a":', "1}"]), ("y", ['{"a":2}'])):
        if type(event) in state.wants:
            state.feed(event, 0.0)
    assert list(pointers(state, number)) == ["0 /a", "0 ", "1 /a", "1 "]
