"""Decisions: the first rule that matches, counted, patched, waited for, or not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.errors import PolicyError
from streamguard.events import Failed
from streamguard.retry.rules import Backoff, Retry, RetryState, Rule, decide
from streamguard.verdict import Decision, Trip

RULES = Retry(
    attempts=3,
    rules=[
        Rule(when=["json.trailing"], give_up=True),
        Rule(when=["json.*", "timeout.*"]),
        Rule(when=["stop.max_tokens"], max_uses=1, patch={"max_tokens": {"multiply": 2, "max": 8192}}),
        Rule(when=["provider.overloaded"], wait=Backoff(initial=1, factor=2, max=3), respect_retry_after=True),
        Rule(when=["stop.refusal"], wait=4, patch={"model": "other"}),
        Rule(when=["*"]),
    ],
)


def trip(reason: str) -> Trip:
    return Trip(reason=reason, message="…")


def failed(reason: str, retry_after: float | None = None) -> Failed:
    return Failed(reason=reason, message="…", retry_after=retry_after)


def again(reason: str, rule: int, attempt: int, wait: float = 0.0, patch: dict | None = None) -> Decision:
    why = f"retry.rules[{rule}]: attempt {attempt} of 3"
    return Decision(action="retry", reason=reason, why=why, rule=rule, wait=wait, patch=patch)


def no(reason: str, why: str, rule: int | None = None, retry_after: float | None = None) -> Decision:
    return Decision(action="give_up", reason=reason, why=why, rule=rule, retry_after=retry_after)


DOUBLE = {"max_tokens": {"multiply": 2, "max": 8192}}

TABLE = [
    ("first match wins", trip("json.malformed"), RetryState(attempt=1), again("json.malformed", 1, 2)),
    ("a rule that gives up", trip("json.trailing"), RetryState(attempt=1),
     no("json.trailing", "retry.rules[0] gives up on json.trailing", 0)),
    ("attempts are used up", trip("json.schema"), RetryState(attempt=3, used=(1, 1)),
     no("json.schema", "all 3 attempts are used (retry.attempts)", 1)),
    ("a patch", trip("stop.max_tokens"), RetryState(attempt=1), again("stop.max_tokens", 2, 2, patch=DOUBLE)),
    ("a rule's own count", trip("stop.max_tokens"), RetryState(attempt=2, used=(2,)),
     no("stop.max_tokens", "retry.rules[2] was used 1 of 1 times", 2)),
    ("another rule's count is its own", trip("stop.max_tokens"), RetryState(attempt=2, used=(1,)),
     again("stop.max_tokens", 2, 3, patch=DOUBLE)),
    ("full jitter", failed("provider.overloaded"), RetryState(attempt=1, jitter=0.25),
     again("provider.overloaded", 3, 2, wait=0.25)),
    ("the second wait is longer, up to its most", failed("provider.overloaded"), RetryState(attempt=2, used=(3,), jitter=0.5),
     again("provider.overloaded", 3, 3, wait=1.0)),
    ("retry-after is honoured", failed("provider.overloaded", 7.0), RetryState(attempt=1, deadline=10.0),
     again("provider.overloaded", 3, 2, wait=7.0)),
    ("a wait that does not fit", failed("provider.overloaded", 61.0), RetryState(attempt=1, now=5.0, deadline=60.0),
     no("provider.overloaded", "the wait of 61.0 s does not fit the 55.0 s that timeouts.total leaves", 3, 61.0)),
    ("a constant wait", trip("stop.refusal"), RetryState(attempt=1), again("stop.refusal", 4, 2, 4.0, {"model": "other"})),
    ("delivered output", trip("json.schema"), RetryState(attempt=1, delivered=True),
     no("json.schema", "output was already delivered (deliver: live), so the call cannot begin again unseen", 1)),
    ("an interrupt", trip("operator.interrupt"), RetryState(attempt=1),
     no("operator.interrupt", "operator.interrupt is never retried")),
    ("a spend limit", failed("provider.spend_limit"), RetryState(attempt=1),
     no("provider.spend_limit", "provider.spend_limit is never retried")),
]  # fmt: skip


@pytest.mark.parametrize(("ended", "at", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_decisions(ended, at: RetryState, expected: Decision) -> None:
    """Each end of an attempt has exactly one decision."""
    assert decide(RULES, ended, at) == expected


def test_no_rule_gives_up() -> None:
    """Without a rule about the reason there is no second attempt."""
    decision = decide(Retry(attempts=3, rules=[Rule(when="stop.*")]), trip("json.schema"), RetryState(attempt=1))
    assert decision == no("json.schema", "no rule of retry.rules is about json.schema")


@given(
    attempts=st.integers(1, 10),
    reasons=st.lists(st.sampled_from(["json.schema", "stop.max_tokens", "provider.overloaded", "x.y"]), max_size=30),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_requests_are_bounded(attempts: int, reasons: list[str], jitter: float) -> None:
    """However an always failing call fails, it sends at most `attempts` requests."""
    retry = Retry(attempts=attempts, rules=RULES.rules)
    used: list[int] = []
    sent = 1
    for reason in reasons:
        decision = decide(retry, trip(reason), RetryState(attempt=sent, used=tuple(used), jitter=jitter))
        if decision.action == "give_up":
            break
        assert decision.rule is not None
        used.append(decision.rule)
        sent += 1
    assert sent <= attempts


@given(retry=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(retry: int, jitter: float) -> None:
    """A wait is never negative, never above its most, and finite for any number of retries."""
    assert 0 <= Backoff().seconds(retry, jitter) <= Backoff().max
    assert math.isfinite(Backoff(factor=10, max=86_400).seconds(retry, jitter))


def test_give_up_stands_alone() -> None:
    """A rule that gives up cannot also wait or patch: the mistake is named."""
    with pytest.raises(PolicyError, match="give_up ends the call, so patch can have no effect"):
        Rule(when=["json.*"], give_up=True, patch={"model": "x"})


def test_policies_are_values() -> None:
    """Equal rules are equal, and hash alike."""
    assert Rule(when=["a.b"], patch={"x": {"y": 1}}) == Rule(when=("a.b",), patch={"x": {"y": 1}})
    assert hash(RULES) == hash(RULES.model_copy())


def test_attempts_without_rules_are_refused() -> None:
    """More than one attempt, and no rule that says for what: nothing would ever be asked again."""
    with pytest.raises(PolicyError, match="attempts is 3, but without rules nothing is asked again: add rules"):
        Retry(attempts=3)


def test_a_single_reason_needs_no_list() -> None:
    """`when` takes a reason as such, and equals the list of it."""
    assert Rule(when="json.*") == Rule(when=["json.*"])
    assert Rule(when="json.*").when == ("json.*",)
