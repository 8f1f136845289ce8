"""What budgets would do with requests that are not sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from streamguard.budgets.forecast import BudgetForecast, forecast_budgets, forecast_lines
from streamguard.budgets.spec import BudgetSpec
from streamguard.budgets.upper_bound import Bound, bound
from streamguard.pricing.price import Price
from streamguard.request import Request

PRICE = Price(input=Decimal(1), output=Decimal(10))
MONEY = BudgetSpec(name="a", cost_usd=Decimal(1))
TOKENS = BudgetSpec(name="b", tokens=10_000)


def request(max_tokens: int, **fields: Any) -> Request:
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "abcd " * 100}]}
    return Request(body | fields)


def held(max_tokens: int) -> Bound:
    found = bound(request(max_tokens), PRICE)
    assert isinstance(found, Bound)
    return found


def test_each_limit_has_a_forecast() -> None:
    """The median hold, the largest, what a request usually costs, and requests that have no bound by their reason."""
    requests = [request(1000), request(1000), request(8000), request(1000, fallbacks=[{}])]
    money, tokens = forecast_budgets([MONEY, TOKENS], requests, lambda _: PRICE)
    assert money == BudgetForecast(
        budget="a",
        unit="micro_usd",
        cap=1_000_000,
        bounded=3,
        refused={"'fallbacks' may make the provider work more than once; leave it out, or say mode: calibrated": 1},
        hold=held(1000).micro_usd,
        most=held(8000).micro_usd,
        usual=2606,
        usual_output=250,
    )
    assert (tokens.unit, tokens.cap, tokens.hold, tokens.usual) == ("tokens", 10_000, held(1000).tokens, 356)
    assert (money.at_once, tokens.at_once) == (1_000_000 // (money.hold or 1), 10_000 // held(1000).tokens)
    assert money.spendable == 1 - (money.hold or 0) / 1_000_000
    assert money.ratio == (money.hold or 0) / 2606


def test_an_answers_usual_length_can_be_said() -> None:
    """It is never longer than `max_tokens`."""
    (found,) = forecast_budgets([MONEY], [request(1000), request(10)], lambda _: PRICE, usual_output=100)
    assert (found.usual_output, found.usual) == (55, 656)


def test_what_cannot_be_bounded_is_said() -> None:
    """Without a price nothing is held, and nothing would be sent; tokens need none."""
    money, tokens = forecast_budgets([MONEY, TOKENS], [request(10)], lambda _: None)
    assert (money.hold, money.at_once, money.spendable, money.ratio) == (None, None, None, None)
    assert list(forecast_lines(money)) == [
        ("budget a", "$1.00: no request has a bound, so none would be sent"),
        ("  refused", "1: the price of model 'm' is unknown; add prices: for it"),
    ]
    assert tokens.hold == held(10).tokens


def test_no_request_at_all_is_said() -> None:
    """A job with nothing left to ask is told so, and not that its requests have no bound."""
    found = forecast_budgets([MONEY], [], lambda _: PRICE)
    assert [line for one in found for line in forecast_lines(one)] == [
        ("budget a", "$1.00: there is no request to send")
    ]


def test_lines_for_people() -> None:
    """Amounts in their unit, and what the estimate rests on."""
    (found,) = forecast_budgets([TOKENS], [request(1000)], lambda _: PRICE)
    hold = f"{held(1000).tokens:,} tokens"
    assert list(forecast_lines(found)) == [
        ("budget b", "10,000 tokens, 1 requests that have a bound"),
        ("  held for one", f"{hold} (at most {hold}), 7 times as much as it usually costs"),
        ("  usual cost", "≈ 356 tokens, with 250 tokens of output"),
        ("  at once", "3"),
        ("  spendable", "74.1 % before the next one no longer fits"),
    ]
