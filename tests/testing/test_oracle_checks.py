"""The oracle of checks: by itself as right as Python's own evaluation, and in agreement with the guards everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import Check, JsonDocument, Policy
from streamguard.events import Delta
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.testing.oracle.checked import check_causes, complete
from streamguard.testing.oracle.documents import Documents
from streamguard.testing.oracle.reading import Said
from streamguard.verdict import Trip
from tests.guards.checks.test_verdicts import CASES, DOCUMENTS
from tests.guards.documents import Written, text_events, ways

KNOWN = [case for case in CASES if not any(word in case.that for word in ("date", "distinct", "max(", "doc.lines[doc"))]
FUNCTIONS = [
    (["/total", "/lines"], lambda total, lines: total >= len(lines)),
    (["/lines/*/qty", "/total"], lambda qty, total: None if qty <= total else "too many"),
    (["/rates/*"], lambda rate: rate < 10),
]


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS)
def test_it_reads_what_is_complete(made: dict[str, Any]) -> None:
    """The values that each beginning has whole, in order."""
    written = Written(made)
    for length in range(len(written.text) + 1):
        said = [("".join(f"/{part}" for part in path)) for path, _ in complete(written.text[:length])]
        assert said == list(written.complete(length))


def spoken(policy: Policy, parts: list[str]) -> set[tuple[str, int]]:
    """What the oracle says about a document in pieces: the reasons, each with the piece."""
    documents = Documents(policy.json_document, None, framed=True, may_end=False)
    deltas = [Said(float(n), n, "delta", (0, "text", part)) for n, part in enumerate(parts)]
    texts = ["".join(parts[: n + 1]) for n in range(len(parts))]
    return {(str(one.reasons[0]), int(one.earliest.number)) for one in check_causes(policy, documents, deltas, texts)}


def tripped(policy: Policy, parts: list[str]) -> set[tuple[str, int]]:
    """What the guards say."""
    panel = Panel(policy.panel_guards, AttemptContext(), 0.0)
    events = text_events(parts)
    deltas = [event for event in events if isinstance(event, Delta)]
    for event in events:
        found = panel.feed(event, 0.0)
        if isinstance(found, Trip):
            return {(found.reason, next(n for n, one in enumerate(deltas) if one is event))}
    return set()


@pytest.mark.parametrize("number", range(len(KNOWN) + len(FUNCTIONS)))
@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.integers(0, 99))
def test_it_agrees_with_the_guards(number: int, made: dict[str, Any], seed: int) -> None:
    """About each expression and function, on documents right and wrong, with the piece that decides."""
    if number < len(KNOWN):
        case = KNOWN[number]
        check: Any = Check(reason="check.x", that=case.that, at=case.at)
    else:
        needs, function = FUNCTIONS[number - len(KNOWN)]
        check = streamguard.check(needs=needs, reason="check.x")(function)
    policy = Policy(json=JsonDocument(), checks=[check])
    for parts in ways(json.dumps(made), seed):
        assert spoken(policy, parts) == tripped(policy, parts)
