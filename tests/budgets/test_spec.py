"""Budgets: the spec, the scopes it makes, and what a hold settles at."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.budgets.spec import (
    Aborted,
    Billed,
    BudgetSpec,
    Evidence,
    Lost,
    NotBilled,
    Scope,
    Settlement,
    all_tokens,
    settle,
)
from streamguard.budgets.upper_bound import MAX_AMOUNT, Bound
from streamguard.events import Usage
from streamguard.pricing.price import Price, worst_case

PRICE = Price(input=Decimal(1), output=Decimal(10), cache_write=Decimal(2), cache_write_1h=Decimal(2))
BOUND = Bound(input_tokens=1000, output_tokens=500, micro_usd=worst_case(PRICE, 1000, 500))
HELD = 7000


def spec(**fields: Any) -> BudgetSpec:
    """A budget with defaults for what a test does not care about."""
    return BudgetSpec.model_validate({"name": "b", "cost_usd": "5.00", **fields})


def test_a_budget_makes_one_scope_per_unit() -> None:
    """Money and tokens are counted apart, in micro-USD and tokens, under the name of who shares them."""
    assert spec(tokens=1000, window="day", per="tenant:acme").scopes() == (
        Scope(key="b/tenant:acme/micro_usd", unit="micro_usd", cap=5_000_000, window="day"),
        Scope(key="b/tenant:acme/tokens", unit="tokens", cap=1000, window="day"),
    )


@pytest.mark.parametrize(
    ("per", "key"),
    [
        ("job", "b/job:night/micro_usd"),
        ("call", "b/call/micro_usd"),
        ("team", "b/team/micro_usd"),
        ("tenant:{tenant}", "b/tenant:acme/micro_usd"),
    ],
)
def test_who_shares_a_budget(per: str, key: str) -> None:
    """A job shares by its name, a name of one's own as it is, and a label by its value."""
    assert [scope.key for scope in spec(per=per).scopes(job="night", labels={"tenant": "acme"})] == [key]


def test_a_missing_label_is_no_shared_budget() -> None:
    """A call without the label would otherwise spend from a budget that is nobody's."""
    with pytest.raises(ValueError, match="no label 'tenant'"):
        spec(per="tenant:{tenant}").scopes(labels={"tenant": ""})


def test_uncertain_amounts_come_back_only_in_calibrated_budgets() -> None:
    """Strict keeps them for ever, calibrated for a day unless it says otherwise."""
    assert [scope.release_after for scope in spec().scopes()] == [None]
    assert [scope.release_after for scope in spec(mode="calibrated").scopes()] == [86_400]
    assert [scope.release_after for scope in spec(mode="calibrated", release_uncertain_after=9.0).scopes()] == [9.0]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"cost_usd": None}, "limits nothing"),
        ({"cost_usd": "0"}, "positive"),
        ({"cost_usd": 5}, "quoted"),
        ({"cost_usd": "NaN"}, "finite"),
        ({"cost_usd": "\u0661\u0662"}, "in quotes, such as"),
        ({"cost_usd": "1e3"}, "in quotes, such as"),
        ({"cost_usd": "1_000"}, "in quotes, such as"),
        ({"cost_usd": " 5 "}, "in quotes, such as"),
        ({"cost_usd": "5,00"}, "in quotes, such as"),
        ({"cost_usd": "0.0000001"}, "cost_usd must be from"),
        ({"cost_usd": "99999999999"}, "cost_usd must be from"),
        ({"tokens": 0}, "greater than 0"),
        ({"tokens": MAX_AMOUNT + 1}, "less than or equal"),
        ({"window": "week"}, "hour"),
        ({"name": "a/b"}, "letters, digits"),
        ({"ledger": "postgres://x"}, "memory:, sqlite:PATH or redis"),
        ({"ledger": "sqlite:"}, "memory:, sqlite:PATH or redis"),
        ({"release_uncertain_after": 5.0}, "strict budget never frees"),
        ({"per": "call", "ledger": "sqlite:x.db"}, "per: call"),
        ({"wait": -1.0}, "greater than or equal"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_mistakes_in_a_budget_are_named(fields: dict[str, Any], problem: str) -> None:
    """What cannot be meant is refused before anything is sent."""
    with pytest.raises(ValidationError, match=problem):
        spec(**fields)


def test_assumptions_are_said() -> None:
    """A soft budget and a promise of the backend are spelled out; a plain strict budget assumes nothing."""
    assert spec().assumptions == ()
    said = spec(mode="calibrated", abort_stops_billing=True).assumptions
    assert ["soft" in said[0], "256 output tokens" in said[1]] == [True, True]


@pytest.mark.parametrize(
    ("stops", "evidence", "money", "tokens"),
    [
        (False, NotBilled(), Settlement(0), Settlement(0)),
        (False, Billed(Usage(input_tokens=100, output_tokens=50)), Settlement(600), Settlement(150)),
        (True, Billed(Usage(input_tokens=100, output_tokens=50)), Settlement(600), Settlement(150)),
        (False, Billed(Usage(input_tokens=9000, output_tokens=0)), Settlement(9000), Settlement(9000)),
        (False, Billed(Usage(input_tokens=100)), Settlement(0, HELD), Settlement(0, HELD)),
        (False, Aborted(output_tokens=20), Settlement(0, HELD), Settlement(0, HELD)),
        (True, Aborted(output_tokens=20), Settlement(2000 + 10 * 276), Settlement(1276)),
        (True, Aborted(output_tokens=400), Settlement(HELD), Settlement(1500)),
        (True, Aborted(output_tokens=None), Settlement(0, HELD), Settlement(0, HELD)),
        (True, Aborted(output_tokens=20, disconnected=False), Settlement(0, HELD), Settlement(0, HELD)),
        (True, Lost(), Settlement(0, HELD), Settlement(0, HELD)),
    ],
)
def test_a_hold_settles_by_evidence(stops: bool, evidence: Evidence, money: Settlement, tokens: Settlement) -> None:
    """Only evidence frees: exact counts, nothing sent, or an abort where the backend is declared to stop billing."""
    budget = spec(abort_stops_billing=stops)
    assert settle(budget, "micro_usd", HELD, evidence, BOUND, PRICE) == money
    assert settle(budget, "tokens", HELD, evidence, BOUND, PRICE) == tokens


def test_a_final_count_without_a_price_keeps_the_hold() -> None:
    """An unknown cost is not 0: the money stays uncertain, the tokens are known."""
    evidence = Billed(Usage(input_tokens=1, output_tokens=2))
    assert settle(spec(), "micro_usd", HELD, evidence, BOUND, None) == Settlement(0, HELD)
    assert settle(spec(), "tokens", HELD, evidence, BOUND, None) == Settlement(3)
    aborted = settle(spec(abort_stops_billing=True), "micro_usd", HELD, Aborted(output_tokens=1), BOUND, None)
    assert aborted == Settlement(0, HELD)


def test_tokens_of_a_count() -> None:
    """All kinds of tokens count, thinking within the output; a count without input or output is unknown."""
    usage = Usage(input_tokens=1, output_tokens=10, cache_read_tokens=100, cache_write_tokens=1000, thinking_tokens=5)
    assert (all_tokens(usage), all_tokens(Usage(input_tokens=1)), all_tokens(Usage(output_tokens=1))) == (
        1111,
        None,
        None,
    )


@settings(max_examples=150, deadline=None)
@given(
    true_input=st.integers(0, 1000),
    generated=st.integers(0, 500),
    over=st.integers(0, 300),
    lag=st.integers(0, 256),
)
def test_an_abort_never_settles_below_the_bill(true_input: int, generated: int, over: int, lag: int) -> None:
    """Where the declaration holds, an upper estimate plus the lag covers whatever the backend billed."""
    billed_output = min(500, generated + lag)
    bill = true_input * 2 + billed_output * 10
    share = settle(
        spec(abort_stops_billing=True),
        "micro_usd",
        worst_case(PRICE, 1000, 500),
        Aborted(output_tokens=generated + over),
        BOUND,
        PRICE,
    )
    assert bill <= share.settled <= worst_case(PRICE, 1000, 500)
    assert share.uncertain == 0
