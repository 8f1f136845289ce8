"""What is found across a policy's sections."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamguard.budgets.spec import BudgetSpec
from streamguard.files import yaml
from streamguard.guards.caps import Caps
from streamguard.policy.checks import Finding, check_policy
from streamguard.policy.file import loads_policy
from streamguard.policy.model import Policy
from streamguard.pricing.price import Price
from streamguard.retry.rules import Retry, Rule


def rules(*lines: str, attempts: int = 3) -> Policy:
    """A policy in code: what a file says wrongly would not load."""
    items = yaml.load("rules:\n" + "".join(f"  - {line}\n" for line in lines)).data["rules"]
    return Policy(retry=Retry(attempts=attempts, rules=items))


def at(rule: int, *path: str | int) -> tuple[str | int, ...]:
    return ("retry", "rules", rule, *path)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (rules("{when: [json.*]}", "{when: [stop.*]}"), []),
        (rules("{when: [json.*, stop.*]}", "{when: [json.schema, stop.empty]}"),
         [Finding("warning", at(1), "never reached: retry.rules[0] decides all its reasons before")]),
        (rules("{when: [json.*]}", "{when: [stop.*]}", "{when: [stop.empty, json.depth]}"),
         [Finding("warning", at(2), "never reached: retry.rules[0] and retry.rules[1] decides all its reasons before")]),
        (rules("{when: ['*']}", "{when: [mine.*]}"), []),
        (rules("{when: [content.*]}", "{when: [content.x]}"), []),
        (rules("{when: [budget.*, timeout.total]}"),
         [Finding("warning", at(0), "timeout.total, budget.denied, budget.unbounded …: never retried, whatever a rule says")]),
        (rules("{when: [budget.*], give_up: true}"), []),
        (rules("{when: [json.*]}", attempts=1),
         [Finding("warning", ("retry", "rules"), "no effect: attempts is 1, so nothing is asked again")]),
        (rules("{when: [stop.*], patch: {}}"), [Finding("warning", at(0, "patch"), "empty, so it changes nothing")]),
        (rules("{when: [stop.*], patch: {max_tokens: {multiply: 2}}}"),
         [Finding("warning", at(0, "patch", "max_tokens"), "multiply without max: the model's own limit is the only ceiling")]),
        (rules("{when: [stop.*], patch: {max_tokens: {multiply: 1, max: 5}}}"),
         [Finding("warning", at(0, "patch", "max_tokens", "multiply"), "multiply 1 changes nothing")]),
        (rules("{when: [stop.*], patch: {max_tokens: '5', top_k: 0, model: '', messages: null}}"),
         [Finding("error", at(0, "patch", "max_tokens"), "max_tokens must be a positive whole number or {multiply: …, max: …}"),
          Finding("error", at(0, "patch", "top_k"), "top_k must be a positive whole number or {multiply: …, max: …}"),
          Finding("error", at(0, "patch", "model"), "model must be a model's name"),
          Finding("error", at(0, "patch", "messages"), "null removes messages, and no request goes without it")]),
        (rules("{when: [stop.*], patch: {temperature: null, metadata: {a: 1}, max_tokens: 5}}"), []),
        (Policy(retry=Retry(attempts=2, rules=[Rule(when=["stop.*"], patch={"timeout": 5, "extra_body": {"top_k": 0}})])),
         [Finding("error", at(0, "patch", "timeout"), "timeout is an option of the SDK's, no field of a request's body, and cannot be patched"),
          Finding("error", at(0, "patch", "extra_body", "top_k"), "top_k must be a positive whole number or {multiply: …, max: …}")]),
        (loads_policy("timeouts: {total: 30, attempt: 40}"),
         [Finding("warning", ("timeouts", "attempt"), "total (30 s) ends before attempt (40 s) can")]),
        (loads_policy("timeouts: {total: 30}"), []),
        (Policy(budgets=[BudgetSpec(name=name, tokens=1) for name in "aba"]),
         [Finding("error", ("budgets", 2, "name"), "name 'a' is that of budgets[0] too, in the same ledger; give it another")]),
        (Policy(budgets=[BudgetSpec(name="a", tokens=1), BudgetSpec(name="a", tokens=1, per="call")]), []),
    ],
)  # fmt: skip
def test_findings(policy: Policy, expected: list[Finding]) -> None:
    """Rules and clocks that can have no effect are warned of; those that can are not."""
    assert check_policy(policy) == expected


PRICE = Price(input=Decimal(3), output=Decimal(15))
PAID = 'caps: {cost_usd: "0.1"}\n'


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        (PAID, "known", []),
        (PAID, None, []),
        ("caps: {characters: 5}\n", "new", []),
        (PAID + "prices: {new: {input: '1', output: '2'}}\n", "new", []),
        (PAID, "new", [("caps", "cost_usd")]),
        ("budgets: [{name: a, tokens: 5}, {name: b, cost_usd: '1'}]\n", "new", [("budgets", 1, "cost_usd")]),
        (PAID + "retry: {attempts: 2, rules: [{when: [stop.refusal], patch: {model: new}}]}\n", "known", [("caps", "cost_usd")]),
    ],
)  # fmt: skip
def test_money_needs_a_price(text: str, model: str | None, expected: list[tuple[Any, ...]]) -> None:
    """A knob in money is an error for a model without a price, patched-in models included."""
    found = check_policy(loads_policy(text), price_of=lambda name: PRICE if name == "known" else None, model=model)
    what = 'no price is known for model "new"; add prices: {new: {input: "…", output: "…"}}'
    assert found == [Finding("error", path, what) for path in expected]


@pytest.mark.parametrize(
    ("rates", "missing"),
    [
        ("cache_read: '1', cache_write: '2'", None),
        ("cache_read: '1'", "no cache_write"),
        ("cache_write: '1'", "no cache_read"),
        ("", "no cache_read and no cache_write"),
    ],
)
def test_a_budget_in_money_wants_cache_rates(rates: str, missing: str | None) -> None:
    """Without them a cached answer keeps its whole hold; a budget in tokens has no use for them."""
    prices = "prices: {m: {input: '1', output: '2'" + (f", {rates}" if rates else "") + "}}\n"
    found = check_policy(loads_policy("budgets: [{name: b, cost_usd: '1'}]\n" + prices))
    what = f"has {missing}: an answer that uses a cache cannot be charged"
    assert [(one.level, one.path, one.problem.startswith(what)) for one in found] == (
        [] if missing is None else [("warning", ("prices", "m"), True)]
    )
    assert check_policy(loads_policy("budgets: [{name: b, tokens: 5}]\n" + prices)) == []


def test_without_a_price_book_prices_are_left_to_others() -> None:
    """A file can be checked without looking any price up."""
    assert check_policy(Policy(caps=Caps(cost_usd=Decimal("0.1"))), model="new") == []


def test_a_job_needs_an_end() -> None:
    """Where nobody watches, a call without an end is an error."""
    what = "total is missing: nobody watches here, so every call needs an end, in seconds"
    assert check_policy(Policy(), needs_total=True) == [Finding("error", ("timeouts", "total"), what)]
    assert check_policy(loads_policy("timeouts: {total: 100}"), needs_total=True) == []


def test_an_opaque_source() -> None:
    """What needs the request is an error where the source does not show it."""
    policy = loads_policy(
        "json: {schema: request}\nbudgets: [{name: a, tokens: 5}]\n"
        "retry: {attempts: 2, rules: [{when: [stop.refusal], patch: {model: m}}]}\n"
    )
    assert check_policy(policy) == []
    assert check_policy(policy, sees_request=False) == [
        Finding("error", at(0, "patch"), "an opaque source has no request to patch"),
        Finding("error", ("budgets",), "an opaque source has no request whose cost could be bounded"),
        Finding("error", ("json", "schema"), "an opaque source has no request to read a schema from"),
    ]
