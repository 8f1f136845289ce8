"""Price a provider's own final count: all its samplings, by model, region and speed, and fees. Pure.

In charge of what `price.cost` leaves out. What the bill depends on and cannot be priced makes it unknown, never less.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamguard.events import Iteration, Usage
from streamguard.pricing.price import Price, cost
from streamguard.usage import UsageRange

TIERS = (None, "", "standard", "default", "priority", "flex", "batch", "on_demand")
"""Service tiers that cost no more than the list price (pricing page, 2026-11)."""

_FIELDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


class AnswerPrices(msgspec.Struct, frozen=True, kw_only=True):
    """The prices at which one answer may be billed: one decision for records and for ledgers."""

    asked: Price | None
    """Of the request."""
    served: Price | None = None
    """Of the model that answered, if it calls itself by another name that has a price. A name that no source knows says
    nothing: gateways answer with names of their own."""
    models: Mapping[str, Price | None] = msgspec.field(default_factory=dict)
    """Of the models that samplings name."""


def bill_range(prices: AnswerPrices, usage: UsageRange, told: Usage) -> tuple[int | None, int | None]:
    """Return what an attempt costs at the least and at the most, in micro-USD; `None` for what cannot be known.

    :param told: the provider's own counts, which are the bill where the usage is exact.
    """
    if usage.exact and usage.high.output_tokens:
        return bill(prices, told, least=True), bill(prices, told)
    low, high = (msgspec.structs.replace(end, iterations=None, impossible=False) for end in (usage.low, usage.high))
    return bill(prices, low, least=True), bill(_anywhere(prices, high), high)


def _anywhere(prices: AnswerPrices, usage: Usage) -> AnswerPrices:
    """The prices of the dearest region, where an answer has not said yet where it is made."""
    if usage.inference_geo is not None:
        return prices

    def dearest(price: Price | None) -> Price | None:
        return price if price is None or price.factor is None else price.scaled(price.factor, "anywhere")

    return AnswerPrices(asked=dearest(prices.asked), served=dearest(prices.served), models=prices.models)


def bill(prices: AnswerPrices, usage: Usage, *, least: bool = False) -> int | None:
    """Return what a final count costs, in micro-USD, rounded up; `None` if it cannot be known.

    Where the answer names another model than the request, the dearer of both counts.

    :param least: whether the least is asked for: the cheaper of both models, and the cheaper rate of cache writes whose
        lifetime is not said.
    """
    price, served, models = prices.asked, prices.served, prices.models
    if usage.impossible or price is None or usage.service_tier not in TIERS:
        return None
    fee = 0
    if usage.web_searches:
        if price.search is None:
            return None
        fee = price.search * usage.web_searches
    if not usage.iterations:
        known = [cost(one, usage, least=least) for one in (price, served) if one is not None]
        if any(one is None for one in known):
            return None
        return fee + (min if least else max)(one or 0 for one in known)
    if not _complete(usage, usage.iterations):
        return None
    for sampling in usage.iterations:
        its = price if sampling.model is None else models.get(sampling.model)
        spent = cost(its, _of(sampling, usage), least=least)
        if spent is None:
            return None
        fee += spent
    return fee


def all_tokens(usage: Usage) -> int | None:
    """Return every token of a final count; `None` if it cannot be known."""
    if usage.impossible or usage.input_tokens is None or usage.output_tokens is None:
        return None
    counts = [usage, *(one for one in usage.iterations or () if one.apart)]
    if usage.iterations:
        if not _complete(usage, usage.iterations):
            return None
        counts = list(usage.iterations)
    found = [getattr(one, name) or 0 for one in counts for name in _FIELDS]
    return None if any(count < 0 for count in found) else sum(found)


def _complete(usage: Usage, iterations: tuple[Iteration, ...]) -> bool:
    """Whether samplings with counts account for all that the answer's own counts say."""
    if any(one.input_tokens is None or one.output_tokens is None for one in iterations):
        return False
    return all(
        (getattr(usage, name) or 0) <= sum(getattr(one, name) or 0 for one in iterations if not one.apart)
        for name in _FIELDS
    )


def _of(sampling: Iteration, usage: Usage) -> Usage:
    """A sampling's count, made where and as the answer was."""
    return Usage(
        input_tokens=sampling.input_tokens,
        output_tokens=sampling.output_tokens,
        cache_read_tokens=sampling.cache_read_tokens,
        cache_write_tokens=sampling.cache_write_tokens,
        cache_write_1h_tokens=sampling.cache_write_1h_tokens,
        inference_geo=usage.inference_geo,
        speed=usage.speed,
    )
