"""What a record says an attempt cost, at both ends."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard import Policy, run
from streamguard.pricing.price import Prices, PriceSpec
from streamguard.testing import Script, ScriptedSource, faults, wire

PRICE = PriceSpec(input="1", output="5", cache_read="0.1", cache_write="1.25", cache_write_1h="2")


@pytest.mark.parametrize(
    ("lifetimes", "cost"),
    [
        ({}, (1_250, 2_000)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 0}}, (1_250, 1_250)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 1000}}, (2_000, 2_000)),
    ],
    ids=["unsaid", "five minutes", "an hour"],
)
def test_a_cache_of_unsaid_lifetime_costs_between_both_rates(
    run_virtual: Any, lifetimes: dict[str, Any], cost: tuple[int, int]
) -> None:
    """Which rate it was nobody knows, so the cost is no exact one; a budget is charged the dearer."""
    counts = {"input_tokens": 0, "cache_creation_input_tokens": 1000, "output_tokens": 2, **lifetimes}
    source = ScriptedSource(Script.of(wire.text_stream("Hi", usage=counts)))
    policy = Policy(prices=Prices({wire.MODEL: PRICE}))
    outcome = run_virtual(lambda: run(source, policy=policy))
    assert (outcome.cost.low, outcome.cost.high) == tuple(micro + 10 for micro in cost)
    assert outcome.cost.exact == (cost[0] == cost[1])


@pytest.mark.parametrize(("asked", "served"), [("dear", "cheap"), ("cheap", "dear")])
def test_another_model_that_answers_makes_the_cost_an_interval(run_virtual: Any, asked: str, served: str) -> None:
    """A fallback is billed by the model that answered; a gateway's name for the same model is no other bill."""
    counts = {"input_tokens": 1000, "output_tokens": 100}
    frames = wire.text_stream("Hi", usage=counts)
    frames[0] = wire.message_start(model=served, usage={"input_tokens": 1000})
    source = ScriptedSource(Script.of(frames), request={**faults.request(), "model": asked})
    prices = Prices({"dear": PriceSpec(input="10", output="50"), "cheap": PriceSpec(input="1", output="5")})
    outcome = run_virtual(lambda: run(source, policy=Policy(prices=prices)))
    assert (outcome.cost.low, outcome.cost.high) == (1_500, 15_000)
