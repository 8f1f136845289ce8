"""`guards.document.followers`: what follows a document beside its schema is told alike, and the earliest failure counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.guards.document.followers import together
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.reader import DocumentReader
from streamguard.models.following import Failure
from streamguard.verdict import Trip

DOCUMENT = json.dumps({"a": [{"b": "x" * 40, "c": 1.5}, []], "d": "é\n"}, ensure_ascii=False)


class Recording:
    """Writes down what it is told."""

    def __init__(self, *, told: bool, fail_at: int | None = None) -> None:
        self.failure: Failure | None = None
        self.seen: list[Any] = []
        self.spans: list[tuple[int, int]] = []
        self.reached = 0
        self._told = told
        self._fail_at = fail_at
        self._open: list[int] = []

    def feed(self, text: str) -> None:
        pass

    def read(self, until: int) -> None:
        self.reached = until
        if self._fail_at is not None and until > self._fail_at and self.failure is None:
            self.failure = Failure("no", "", "test", self._fail_at, reason="json.model")

    def begin(self, key: str | int | None, at: int, kind: int) -> bool:
        self.seen.append(key)
        self._open.append(at)
        return self._told

    def end(self, at: int) -> None:
        self.spans.append((self._open.pop(), at))


def fed(pieces: list[str], *followers: Recording) -> Trip | None:
    reader = DocumentReader(JsonDocument().plan(None), may_end=False, followers=followers)
    for piece in pieces:
        if isinstance(verdict := reader.feed(piece), Trip):
            return verdict
    return reader.finish()


@pytest.mark.parametrize("pieces", [[DOCUMENT], list(DOCUMENT), [DOCUMENT[:30], DOCUMENT[30:]]])
def test_values_inside_are_told_where_that_is_wanted(pieces: list[str]) -> None:
    """Every value is told with its key and its span, however the document comes in pieces."""
    one = Recording(told=True)
    assert fed(pieces, one) is None
    values = [json.loads(DOCUMENT[begin:end]) for begin, end in one.spans]
    document = json.loads(DOCUMENT)
    first = document["a"][0]
    assert one.seen == [None, "a", 0, "b", "c", 1, "d"]
    assert values == ["x" * 40, 1.5, first, [], document["a"], "é\n", document]
    assert one.reached == len(DOCUMENT)


def test_one_that_wants_to_be_told_is_enough() -> None:
    """Of two followers both are told what one of them wants."""
    one, other = Recording(told=False), Recording(told=True)
    assert fed([DOCUMENT], one, other) is None
    assert one.seen == other.seen == [None, "a", 0, "b", "c", 1, "d"]


@pytest.mark.parametrize("order", [(12, 7), (7, 12)])
def test_the_earliest_failure_counts(order: tuple[int, int]) -> None:
    """Whichever follower has it."""
    trip = fed([DOCUMENT], *(Recording(told=False, fail_at=at) for at in order))
    assert trip is not None
    assert trip.where is not None
    assert (trip.reason, trip.where.char, trip.message) == ("json.model", 7, "no (at character 7)")


def test_what_is_no_json_before_a_failure_counts_first() -> None:
    """A document that is dead at an earlier character is dead of that."""
    trip = fed(['{"a": x "b": 1}'], Recording(told=False, fail_at=9))
    assert trip is not None
    assert trip.reason == "json.malformed"


def test_none_and_one() -> None:
    """A single follower is told without a detour."""
    one = Recording(told=False)
    assert (together(()), together((one,))) == (None, one)
