"""A whole call whose answers do not pass a check."""

from __future__ import annotations

import json

import anyio
import pytest

import streamguard
from streamguard import Check, JsonDocument, Outcome, Policy, Retry, Rule
from streamguard.errors import CallError
from streamguard.testing import scripted

RIGHT = json.dumps({"lines": [{"amount": 1}, {"amount": 2.5}], "total": 3.5})
WRONG = RIGHT.replace("3.5", "4")


def asked(*answers: str, observe: bool = False) -> Outcome:
    """Ask for a document whose total must be right, twice at most."""
    check = Check(
        reason="check.total",
        that="doc.total == sum(l.amount for l in doc.lines)",
        mode="observe" if observe else None,
    )
    policy = Policy(
        json=JsonDocument(), checks=[check], retry=Retry(attempts=2, rules=[Rule(when=["check.*"], max_uses=1)])
    )
    source = scripted.script(*(scripted.answer(text) for text in answers))

    async def run() -> Outcome:
        return await streamguard.run(source, policy=policy)

    return anyio.run(run)


def test_a_wrong_sum_is_asked_for_again() -> None:
    """The first answer is thrown away, the second one stands."""
    outcome = asked(WRONG, RIGHT)
    assert (outcome.value["total"], outcome.reasons) == (3.5, ("check.total",))


def test_the_same_wrong_sum_twice_is_said() -> None:
    """The error says what was seen, and that the source may be wrong."""
    with pytest.raises(CallError) as caught:
        asked(WRONG, WRONG)
    assert caught.value.record.reasons == ("check.total", "check.total")
    said = str(caught.value)
    assert "doc.total is 4, sum(l.amount for l in doc.lines) is 3.5" in said
    decision = caught.value.record.attempts[-1].decision
    assert decision is not None
    assert "the attempt before failed in the same way, so the source itself may be wrong" in decision.why


def test_an_observed_check_is_recorded_and_the_answer_stands() -> None:
    """Nothing is asked again, and the trip is on the record."""
    outcome = asked(WRONG, observe=True)
    assert outcome.value["total"] == 4
    assert [seen.trip.reason for seen in outcome.attempts[-1].observed] == ["check.total"]
