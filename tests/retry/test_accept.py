"""Rules that keep an answer and mark it: what they may be about, and when they do."""

from __future__ import annotations

import pytest

from streamguard.errors import PolicyError
from streamguard.policy.checks import check_policy
from streamguard.policy.explain import explain
from streamguard.policy.file import loads_policy
from streamguard.retry.rules import Retry, RetryState, Rule, accepted
from streamguard.verdict import Decision, Trip

RULES = Retry(
    attempts=3,
    rules=[
        Rule(when="check.house", max_uses=0, accept="marked"),
        Rule(when="check.*", max_uses=1, accept="marked"),
        Rule(when="json.ungrounded", wait=5, accept="marked"),
        Rule(when="json.*"),
    ],
)


def trip(reason: str, observed: str = "doc.total is 4") -> Trip:
    return Trip(reason=reason, message="…", observed=observed)


KEPT = "the answer is kept, and marked (accept: marked)"
TWICE = "; the attempt before failed in the same way, so the source itself may be wrong"


@pytest.mark.parametrize(
    ("reason", "state", "why"),
    [
        ("check.total", RetryState(attempt=1), None),
        ("check.total", RetryState(attempt=2, used=(1,)), f"retry.rules[1] was used 1 of 1 times; {KEPT}"),
        ("check.total", RetryState(attempt=2, used=(3,)), None),
        ("check.total", RetryState(attempt=3, used=(3, 3)), f"all 3 attempts are used (retry.attempts); {KEPT}"),
        (
            "check.total",
            RetryState(attempt=2, used=(1,), before=trip("check.total")),
            f"retry.rules[1] was used 1 of 1 times{TWICE}; {KEPT}",
        ),
        (
            "check.total",
            RetryState(attempt=1, delivered=True),
            f"output was already delivered (deliver: live), so the call cannot begin again unseen; {KEPT}",
        ),
        ("check.house", RetryState(attempt=1), f"retry.rules[0] was used 0 of 0 times; {KEPT}"),
        ("json.ungrounded", RetryState(attempt=2), None),
        (
            "json.ungrounded",
            RetryState(attempt=2, now=1, deadline=4),
            f"the wait of 5.0 s does not fit the 3.0 s that timeouts.total leaves; {KEPT}",
        ),
        ("json.schema", RetryState(attempt=3), None),
        ("guard.failed", RetryState(attempt=3), None),
    ],
)
def test_when_an_answer_is_kept(reason: str, state: RetryState, why: str | None) -> None:
    """Where its rule would not ask again, and only then; the decision says which rule and why."""
    rule = {"check.house": 0, "json.ungrounded": 2}.get(reason, 1)
    expected = None if why is None else Decision(action="accept", reason=reason, why=why, rule=rule)
    assert accepted(RULES, trip(reason), state) == expected


@pytest.mark.parametrize(
    ("when", "wrong"),
    [
        (["check.*"], None),
        (["check.total", "json.ungrounded"], None),
        (["house.*"], None),
        (["json.*"], "json.*"),
        (["json.malformed"], "json.malformed"),
        (["check.*", "*"], "*"),
        (["*.total"], "*.total"),
        (["content.secret"], "content.secret"),
        (["stop.max_tokens", "transport.*"], "stop.max_tokens, transport.*"),
        (["timeout.total"], "timeout.total"),
    ],
)
def test_what_may_be_kept(when: list[str], wrong: str | None) -> None:
    """Never an answer that was cut, is no document, or breaks the schema."""
    if wrong is None:
        assert Rule(when=when, accept="marked").accept == "marked"
        return
    with pytest.raises(PolicyError) as refused:
        Rule(when=when, accept="marked")
    assert str(refused.value).endswith(
        "accept: marked keeps a document that is whole and valid: let the rule be about check.* and json.ungrounded "
        f"alone, not about {wrong}"
    )


def test_a_rule_that_never_asks_again() -> None:
    """`max_uses: 0` is for rules that keep the answer at once; elsewhere it says what to write."""
    with pytest.raises(PolicyError, match="max_uses: 0 never asks again: write give_up: true, or accept: marked"):
        Rule(when="check.*", max_uses=0)
    with pytest.raises(PolicyError, match="give_up ends the call, so accept can have no effect"):
        Rule(when="check.*", give_up=True, accept="marked")


def test_the_table_of_decisions() -> None:
    """`check --explain` tells of each reason whether it is asked again, and that the answer is then kept."""
    policy = loads_policy(
        "json: {}\nchecks: [{reason: check.total, that: doc.total > 0}, {reason: check.now, that: doc.total > 1}]\n"
        "retry: {attempts: 3, rules: [{when: check.now, max_uses: 0, accept: marked},"
        " {when: check.*, max_uses: 1, accept: marked}]}\n"
    )
    rows = {row.reason: (row.decision, row.detail) for row in explain(policy).reasons if row.reason.startswith("check")}
    assert rows == {
        "check.total": ("retry", "once, at once, then the answer is kept and marked"),
        "check.now": ("mark", "the answer is kept"),
    }


def test_one_attempt_is_no_mistake() -> None:
    """A policy that asks once and keeps what it gets has rules with an effect."""
    policy = loads_policy(
        "json: {}\nchecks: [{reason: check.total, that: doc.total > 0}]\n"
        "retry: {rules: [{when: check.*, accept: marked}]}\n"
    )
    assert check_policy(policy) == []
    assert [row.decision for row in explain(policy).reasons if row.reason == "check.total"] == ["mark"]
