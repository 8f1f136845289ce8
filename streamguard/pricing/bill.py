"""Price a provider's own final count: all its samplings, by model, region and speed, and fees. Pure.

In charge of what `price.cost` leaves out. What the bill depends on and cannot be priced makes it unknown, never less.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamguard.events import Iteration, Usage
from streamguard.pricing.price import Price, cost

_FIELDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def bill(
    price: Price | None,
    usage: Usage,
    *,
    served: Price | None = None,
    models: Mapping[str, Price | None] | None = None,
) -> int | None:
    """Return what a final count costs, in micro-USD, rounded up; `None` if it cannot be known.

    :param price: of the request.
    :param served: of the model that answered, if it is another one: the dearer of both counts.
    :param models: prices of the models that samplings name.
    """
    if usage.impossible or price is None:
        return None
    fee = 0
    if usage.web_searches:
        if price.search is None:
            return None
        fee = price.search * usage.web_searches
    if not usage.iterations:
        known = [cost(price, usage), *([] if served is None else [cost(served, usage)])]
        return None if any(one is None for one in known) else fee + max(one or 0 for one in known)
    if not _complete(usage, usage.iterations):
        return None
    for sampling in usage.iterations:
        its = price if sampling.model is None else (models or {}).get(sampling.model)
        spent = cost(its, _of(sampling, usage))
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
