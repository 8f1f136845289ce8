"""No expression holds the event loop up: evaluations are counted in steps, and a check is decided once."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest

from streamguard import Check, JsonDocument, Policy
from streamguard.guards.base import AttemptContext
from streamguard.guards.checks.program import Program
from streamguard.guards.panel import Panel
from streamguard.verdict import Trip
from tests.guards.documents import text_events

LINES = {"lines": [{"a": n} for n in range(400)], "long": "ab" * 50_000, "n": 3}
RUNAWAYS = [
    "sum(sum(x.a for x in doc.lines) for y in doc.lines) >= 0",
    "all(all(x.a + y.a >= 0 for x in doc.lines) for y in doc.lines)",
    "count(x for x in doc.lines if count(y for y in doc.lines if y.a == x.a) == 1) == 400",
    "all(doc.long == doc.long for x in doc.lines)",
    "all(doc.long in doc.long for x in doc.lines)",
    "all(lower(doc.long) == doc.long for x in doc.lines)",
]


@pytest.mark.parametrize("that", RUNAWAYS)
def test_a_runaway_is_stopped(that: str) -> None:
    """After 100,000 steps, whatever it does; it is `guard.failed`, and says why."""
    check = Check(reason="check.x", at="", that=that.replace("doc.", "it."))
    panel = Panel(Policy(json=JsonDocument(), checks=[check]).panel_guards, AttemptContext(), 0.0)
    found = [one for event in text_events([json.dumps(LINES)]) if (one := panel.feed(event, 0.0)) is not None]
    assert isinstance(found[0], Trip)
    assert found[0].reason == "guard.failed"
    assert found[0].observed == "it takes more than 100,000 steps"


@pytest.mark.parametrize(
    ("that", "at", "times"),
    [
        ("doc.n > 0", None, 1),
        ("doc.n > 0 and has(doc.missing) == False", None, 1),
        ("count(l for l in doc.lines) == 400", None, 1),
        ("it.a >= 0", "/lines/*", 400),
        ("it.a >= 0 and doc.n > 0", "/lines/*", 400),
        ("doc.none > 0", None, 1),
    ],
)
def test_it_is_decided_once(that: str, at: str | None, times: int) -> None:
    """For the document, or for each item, whatever comes before and after."""
    check = Check(reason="check.x", at=at, that=that)
    panel = Panel(Policy(json=JsonDocument(), checks=[check]).panel_guards, AttemptContext(), 0.0)
    asked: list[Any] = []
    holds = Program.holds

    def counted(self: Program, scope: Any) -> bool:
        asked.append(scope)
        return holds(self, scope)

    with patch.object(Program, "holds", counted):
        for event in text_events(list(json.dumps({**LINES, "long": "x", "more": [1, {"n": 2}], "last": 1}))):
            assert panel.feed(event, 0.0) is None
    assert len(asked) == times
