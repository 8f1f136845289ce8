"""Random requests against the bound: what the most expensive answer would cost, and what is held for it."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

from streamguard import Policy
from streamguard.budgets.upper_bound import Bound, bound
from streamguard.pricing.book import PriceBook
from streamguard.request import Request
from tests.matrix.billing.rates import Owed, Sampling
from tests.matrix.billing.requests import Asked, asked, strange

STRANGE_SHARE = 0.35
"""How many of the requests have a part that has no bound."""


class Found(NamedTuple):
    """What came of some requests."""

    bounded: int
    refused: Counter[str]
    """By what was strange; requests without anything strange under `""`."""
    violations: list[str]


def dearest(request: Asked, geo: str) -> Owed:
    """The most that one sampling of a request can cost: all input written to the longest cache that it asks for."""
    tokens = request.input_tokens
    where = "written_1h" if "1h" in request.lifetimes else "written_5m" if request.lifetimes else "plain"
    most = Sampling(request.model, output=request.most_output)._replace(**{where: tokens})
    return Owed((most,), speed=request.speed, geo=geo)


def reserved(seed: int, count: int) -> Found:
    """Hold random requests against their bounds."""
    chance = random.Random(seed)
    book = PriceBook(Policy().prices)
    found = Found(0, Counter(), [])
    for number in range(count):
        request = (strange if chance.random() < STRANGE_SHARE else asked)(chance)
        body = Request(request.body, betas=list(request.betas))
        held = bound(body, book.for_request(body))
        if not isinstance(held, Bound):
            found.refused[request.strange] += 1
            if not request.strange:
                found.violations.append(f"{seed}/{number}: refused, and nothing is strange: {held.why}: {request.body}")
            continue
        found = found._replace(bounded=found.bounded + 1)
        if request.strange:
            found.violations.append(f"{seed}/{number}: {request.strange} has a bound: {request.body}")
            continue
        geo = request.geo or chance.choice(("us", "global"))
        owed = dearest(request, geo)
        if owed.micro_usd > (held.micro_usd or 0) or owed.tokens > held.tokens:
            told = f"{float(owed.micro_usd):.0f} micro-USD, {owed.tokens} tokens"
            found.violations.append(f"{seed}/{number}: {told} of {held}: {request.body}")
    return found
