"""What a provider's own final count costs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from streamguard.events import Iteration, Usage
from streamguard.pricing.bill import AnswerPrices, all_tokens, bill
from streamguard.pricing.price import Price

PRICE = Price(
    input=Decimal(2), output=Decimal(10), speed="standard", inference_geo="global", factor=Decimal("1.1"), search=10_000
)
DEAR = Price(input=Decimal(20), output=Decimal(100))
COMPACTION = Iteration(type="compaction", input_tokens=100, output_tokens=10)
MESSAGE = Iteration(type="message", input_tokens=1000, output_tokens=100)


def used(**fields: object) -> Usage:
    """A thousand tokens read and a hundred made."""
    return Usage(**{"input_tokens": 1000, "output_tokens": 100, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (used(), 3000),
        (used(inference_geo="us"), 3300),
        (used(inference_geo="global", speed="standard"), 3000),
        (used(inference_geo="not_available"), 3000),
        (used(speed="fast"), None),
        (used(web_searches=3), 33_000),
        (used(impossible=True), None),
        (used(iterations=(MESSAGE, COMPACTION)), 3300),
        (used(iterations=(COMPACTION,)), None),
        (used(iterations=(MESSAGE, Iteration(type="advisor_message", model="dear", input_tokens=10, output_tokens=1))), 3300),
        (used(iterations=(MESSAGE, Iteration(type="advisor_message", model="new", input_tokens=10, output_tokens=1))), None),
        (used(iterations=(Iteration(type="unreadable"),)), None),
    ],
)  # fmt: skip
def test_every_sampling_region_speed_and_fee_is_in_it(usage: Usage, micro: int | None) -> None:
    """What cannot be priced makes the whole unknown, never less."""
    assert bill(AnswerPrices(asked=PRICE, models={"dear": DEAR, "new": None}), usage) == micro


def test_the_dearer_of_two_models_counts() -> None:
    """The one that was asked for, and the one that answered."""
    assert bill(AnswerPrices(asked=PRICE, served=DEAR), used()) == 30_000
    assert bill(AnswerPrices(asked=DEAR, served=PRICE), used()) == 30_000
    assert bill(AnswerPrices(asked=None), used()) is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (used(cache_read_tokens=5, cache_write_tokens=7), 1112),
        (used(iterations=(MESSAGE, COMPACTION)), 1210),
        (used(cache_read_tokens=-990), None),
        (used(impossible=True), None),
        (Usage(input_tokens=1), None),
    ],
)
def test_tokens_of_all_samplings(usage: Usage, tokens: int | None) -> None:
    """Each count is looked at by itself: a negative one makes the sum unknown."""
    assert all_tokens(usage) == tokens
