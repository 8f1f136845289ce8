"""A policy as tables."""

from __future__ import annotations

from streamguard.policy.explain import Consequence, Row, explain
from streamguard.policy.file import load_policy, loads_policy
from streamguard.policy.model import Policy
from streamguard.retry.rules import RetryState, decide
from streamguard.verdict import REASONS, Trip


def test_default_policy() -> None:
    """The default policy has its clocks and its end, and gives up on everything."""
    table = explain(Policy())
    assert (table.mode, table.deliver, table.attempts) == ("enforce", "committed", 1)
    assert (table.caps, table.json, table.content, table.repetition, table.guards, table.budgets) == ((),) * 6
    assert Row("timeouts.progress", "60 s", "default") in table.clocks
    assert Row("timeouts.total", "off", "default") in table.clocks
    assert [row.reason for row in table.reasons] == list(REASONS)
    assert {row.decision for row in table.reasons} == {"give up"}


def test_rows() -> None:
    """Each knob has its path, its value with unit and whether the policy says so."""
    table = explain(
        loads_policy(
            "mode: observe\ntimeouts: {total: 1200.5}\ncaps: {characters: 100000, cost_usd: '0.04'}\n"
            "json: {schema: {type: object}, enough_when: [/a, /b]}\nbudgets: [{name: n, tokens: 5000}]\n"
        )
    )
    assert table.mode == "observe"
    assert Row("timeouts.total", "1,200.5 s", "set") in table.clocks
    assert Row("caps.characters", "100,000", "set") in table.caps
    assert Row("caps.cost_usd", "$0.04", "set") in table.caps
    assert Row("json.schema", "given, 1 keys", "set") in table.json
    assert Row("json.enough_when", "/a, /b", "set") in table.json
    assert Row("json.assert_formats", "no", "default") in table.json
    assert Row("json.mode", "the policy's", "default") in table.json
    assert Row("budgets[0].tokens", "5,000", "set") in table.budgets[0]


def test_consequences() -> None:
    """Each reason has its first rule, and in words what that rule does."""
    policy = loads_policy(
        """\
content: [{reason: content.sorry, pattern: sorry}]
retry:
  attempts: 4
  rules:
    - {when: [json.schema], give_up: true}
    - {when: [json.*, content.*], wait: none}
    - {when: [stop.max_tokens], max_uses: 1, patch: {max_tokens: {multiply: 2, max: 8192}, temperature: null}}
    - {when: [provider.rate_limited], wait: {initial: 0.5, factor: 2, max: 1.5}, respect_retry_after: true}
    - {when: [stop.refusal], wait: 2.5, patch: {model: other}}
    - {when: ["*"], wait: {initial: 1, jitter: none}, max_uses: 2}
"""
    )
    rows = {row.reason: (row.decision, row.rule, row.detail) for row in explain(policy).reasons}
    assert rows["json.schema"] == ("give up", 0, "the rule says so")
    assert rows["json.malformed"] == ("retry", 1, "up to 3 times, at once")
    assert rows["content.sorry"] == ("retry", 1, "up to 3 times, at once")
    assert rows["stop.max_tokens"] == (
        "retry", 2, "once, at once, with max_tokens times 2, at most 8,192, no temperature",
    )  # fmt: skip
    assert rows["provider.rate_limited"] == (
        "retry", 3, "up to 3 times, after a random part of 0.5 s, 1 s, 1.5 s, or as long as the provider asks",
    )  # fmt: skip
    assert rows["stop.refusal"] == ("retry", 4, "up to 3 times, after 2.5 s, with model other")
    assert rows["guard.failed"] == ("retry", 5, "up to 2 times, after 1 s, 2 s")
    assert rows["operator.interrupt"] == ("give up", None, "never retried")


def test_the_table_says_what_the_engine_does() -> None:
    """For every reason of a shipped policy the table and `decide` agree, rule by rule."""
    policy = load_policy("streamguard:extraction")
    for row in explain(policy).reasons:
        decision = decide(policy.retry, Trip(reason=row.reason, message=""), RetryState(attempt=1))
        assert row == Consequence(
            reason=row.reason,
            meaning=REASONS[row.reason],
            decision="retry" if decision.action == "retry" else "give up",
            rule=decision.rule,
            detail=row.detail,
        )
