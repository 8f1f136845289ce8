"""Answers that are valid and wrong: each kind is a mistake that the schema allows, and how often they come is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import jsonschema
import pytest

from streamguard import Check, Grounded, JsonDocument, Policy
from streamguard.demo.documents import SCHEMA, Document, answer, documents
from streamguard.demo.simulated import spoken
from streamguard.demo.wrong_values import WRONG, wrong
from streamguard.guards.base import AttemptContext
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.panel import Panel
from streamguard.testing import answer as events
from streamguard.verdict import Trip

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SOME = documents(60, seed=11)
POLICY = Policy(
    json=JsonDocument(
        schema=dict(SCHEMA),
        grounded=[
            *(Grounded(at=f"/{name}") for name in ("supplier", "number", "note", "lines/*/what")),
            *(Grounded(at=place, as_="number") for place in ("/total", "/lines/*/price")),
            Grounded(at="/issued", as_="date"),
        ],
    ),
    checks=[Check(reason="check.total", that="abs(doc.total - sum(l.quantity * l.price for l in doc.lines)) < 0.005")],
)


def made(kind: str) -> list[tuple[Document, dict]]:
    """Every document with one thing wrong, where it can be."""
    found = [(one, wrong(one.record, kind, random.Random(f"{kind}/{one.id}"))) for one in SOME]
    return [(document, record) for document, record in found if record is not None]


def ended(document: Document, record: dict) -> str | None:
    """Why an answer is ended, if it is."""
    panel = Panel(POLICY.panel_guards, AttemptContext(sources=SourceTexts(document.text)), 0.0)
    verdicts = [panel.feed(event, 0.0) for event in events(answer(record), chunk=20)]
    return next((one.reason for one in verdicts if isinstance(one, Trip)), None)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_is_valid(kind: str) -> None:
    """It satisfies the schema and is not the record, which stays as it was; the seed decides."""
    before = json.dumps([one.record for one in SOME])
    found = made(kind)
    assert found
    assert all(VALIDATOR.is_valid(record) and record != document.record for document, record in found)
    assert found == made(kind)
    assert json.dumps([one.record for one in SOME]) == before


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        (("another company", "a digit of the number", "another day", "a line's text"), {"json.ungrounded"}),
        (("a line's price", "the total", "a note where there is none"), {"json.ungrounded"}),
        (("a line's quantity", "a line left out"), {"check.total"}),
        (("two lines' prices swapped",), {"check.total", None}),
        (("another category",), {None}),
    ],
)
def test_which_guard_ends_it(kinds: Sequence[str], reasons: set[str | None]) -> None:
    """Values that stand nowhere, sums that do not add up; what is chosen from a list passes."""
    for kind in kinds:
        assert {ended(document, record) for document, record in made(kind)} <= reasons


def test_right_answers_pass() -> None:
    """None of them is ended."""
    assert [ended(one, dict(one.record)) for one in SOME] == [None] * len(SOME)


def test_how_often_they_come() -> None:
    """About as often as asked for, and not at all unless asked for: then nothing is drawn either."""
    record = SOME[0].record
    texts = [spoken(record, random.Random(number), 0.0, 0.16).text for number in range(2_000)]
    assert 0.12 < sum(text != answer(record) for text in texts) / len(texts) < 0.18
    usual, drawn = random.Random(7), random.Random(7)
    assert spoken(record, usual, 0.0).text == answer(record)
    drawn.random()
    assert usual.getstate() == drawn.getstate()
