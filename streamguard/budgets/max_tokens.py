"""Lower a request's `max_tokens` to what its caps and its budget allow. Pure.

The provider's own limit is the only ceiling on output that holds before the fact; caps judged on the stream come
late, by the width of an estimate. It is lowered, never raised, and never to where the request would be refused: not
below the thinking budget, which `max_tokens` has to exceed.
"""

from __future__ import annotations

from streamguard.budgets.upper_bound import Bound, most_input
from streamguard.guards.base import Mode
from streamguard.guards.caps import Caps
from streamguard.pricing.input_upper import cache_lifetime
from streamguard.pricing.price import Price, affordable_output
from streamguard.request import Request

KNOB = "caps.output_tokens"


def within_caps(request: Request, caps: Caps | None, mode: Mode) -> tuple[Request, str | None]:
    """The request with its output capped, and the knob that did it, if one did.

    :param mode: for caps that have none of their own.
    """
    ceiling = caps.output_tokens if caps is not None else None
    if caps is None or (caps.mode or mode) == "observe" or ceiling is None:
        return request, None
    lowered = _lowered(request, ceiling)
    return (request, None) if lowered is None else (lowered, KNOB)


def within_budget(
    request: Request, original: Request, bounds: Bound, price: Price | None, unit: str, available: int
) -> Request | None:
    """A retry's request that asks for more output than the original did, lowered to what `available` pays for.

    `None` if not even the original's `max_tokens` fits: an answer that is cut off is money lost, so no request is
    lowered below what the caller asked for.
    """
    least = original.max_tokens
    if least is None or request.max_tokens is None or request.max_tokens <= least:
        return None
    beyond = max(0, bounds.output_tokens - request.max_tokens)  # a thinking budget on top
    if unit == "tokens":
        most = available - bounds.input_tokens - beyond
    elif price is not None:
        caching = cache_lifetime(most_input(request))
        most = affordable_output(price, available, bounds.input_tokens, caching=caching) - beyond
    else:
        return None
    return _lowered(request, most) if most >= least else None


def _lowered(request: Request, ceiling: int) -> Request | None:
    asked = request.max_tokens
    thinking = request.body.get("thinking")
    floor = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if type(asked) is not int or asked <= ceiling or (type(floor) is int and ceiling <= floor):
        return None
    return request.patched({"max_tokens": ceiling})
