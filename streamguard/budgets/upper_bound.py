"""How much one request can cost at the most, known before it is sent. Pure.

In charge of the upper bound that a budget holds while an attempt runs, and of saying why a request has none. It knows
the shape of a Messages API request; it does not know budgets, ledgers or what was spent.

A hard budget is only as good as this bound, so it errs upwards everywhere: fields and tools it does not know are
unbounded, not free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from streamguard.budgets.known_options import unbounded_beta, unbounded_option
from streamguard.pricing.input_upper import (
    FRAMING_BOUND,
    ContentUpper,
    cache_lifetime,
    content_upper,
    input_upper_bound,
)
from streamguard.pricing.price import GLOBAL, Price, worst_case
from streamguard.request import Request
from streamguard.usage import Unit

BudgetMode = Literal["strict", "calibrated"]

COUNT_MARGIN = 20
"""A counted input may be larger by one part in so many: the count is "an estimate", which differs "by a small amount"
(token-counting page, 2026-11)."""

_FEWEST = 0.3
"""Tokens that a text of weight 1 cannot have fewer of: half of what is all but impossible. A count below it is none."""

MAX_AMOUNT = 2**53 - 1
"""No amount or cap is larger: beyond it the doubles that Redis scripts count in lose digits. (USD 9 billion.)"""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one attempt can cost."""

    input_tokens: int
    """Cache reads and writes included."""
    output_tokens: int
    """Thinking included."""
    micro_usd: int | None
    """`None` if the price is unknown."""
    soft: bool = False
    """Whether it rests on an estimate: a calibrated bound is no bound."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens

    def of(self, unit: Unit) -> int | None:
        """The bound in a unit."""
        return self.micro_usd if unit == "micro_usd" else self.tokens


class Unbounded(msgspec.Struct, frozen=True, kw_only=True):
    """Why the cost of a request has no upper bound."""

    why: str
    """One sentence that says what in the request is unbounded, or unknown, and what would help."""


def bound(
    request: Request | None,
    price: Price | None,
    *,
    mode: BudgetMode = "strict",
    needs_price: bool = True,
    counted: int | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> Bound | Unbounded:
    """The most that sending `request` once can cost.

    `strict` holds for any provider who reads what was sent and runs no more than was asked for: input tokens are at
    most `text_upper` of all text, framing, and maxima for images by their size and for documents by their pages, or a
    Claude model's window; output is at most `max_tokens`, plus the thinking budget, which interleaved thinking may
    spend on top; every input token may be a cache write at the dearest rate that the request asks for. `calibrated`
    takes the estimates it is given instead.

    :param price: USD per million tokens for this very request (`PriceBook.for_request`).
    :param needs_price: whether money is limited at all; token budgets need no price.
    :param counted: the provider's own count of the input, made for this request; `None` for none.
    :param input_tokens: an upper estimate of the input, for `calibrated`.
    :param output_tokens: an upper estimate of the output, for `calibrated`.
    """
    if request is None:
        return Unbounded(why="the source does not show its request, so nothing bounds its cost")
    problem = _unpriced(request, price) if needs_price else None
    most_output = _most_output(request)
    if isinstance(most_output, Unbounded):
        return most_output
    if problem is None and mode == "strict":
        problem = _unbounded(request)
    if problem is not None:
        return Unbounded(why=problem)
    try:
        content = most_input(request)
        tokens = input_upper_bound(content, request.body)
    except (TypeError, ValueError, RecursionError) as error:
        return Unbounded(why=f"the request is no plain JSON, so its size is unknown ({error})")
    if mode == "strict" and content.why is not None:
        return Unbounded(why=content.why)
    if counted is not None and counted >= content.words * _FEWEST + content.floor:
        tokens = min(tokens, counted + counted // COUNT_MARGIN + FRAMING_BOUND)
    if mode == "calibrated":
        tokens = min(tokens, input_tokens) if input_tokens is not None else tokens
        most_output = min(most_output, output_tokens) if output_tokens is not None else most_output
    caching = cache_lifetime(content)
    money = None if price is None else worst_case(price, tokens, most_output, caching=caching)
    if max(money or 0, tokens + most_output) > MAX_AMOUNT:
        return Unbounded(why=f"the request could cost more than a ledger can count ({MAX_AMOUNT})")
    return Bound(input_tokens=tokens, output_tokens=most_output, micro_usd=money, soft=mode == "calibrated")


def _unpriced(request: Request, price: Price | None) -> str | None:
    if price is None:
        return f"the price of model {request.model!r} is unknown; add prices: for it"
    speed = request.body.get("speed") or "standard"
    if price.speed not in ("any", speed):
        return f"the price of model {request.model!r} is for speed {price.speed!r}, and the request asks for {speed!r}"
    geo = request.body.get("inference_geo")
    if geo not in (None, *GLOBAL) and price.inference_geo not in ("any", geo):
        return (
            f"the price of model {request.model!r} is for inference_geo {price.inference_geo!r}, and the request asks "
            f"for {geo!r}"
        )
    return None


def _most_output(request: Request) -> int | Unbounded:
    limit = request.max_tokens
    if type(limit) is not int or limit < 0:
        return Unbounded(why=f"max_tokens must be a whole number to bound the output, not {limit!r}")
    thinking = request.body.get("thinking")
    extra = thinking.get("budget_tokens") if isinstance(thinking, Mapping) and thinking.get("type") == "enabled" else 0
    if type(extra) is not int or extra < 0:
        return Unbounded(why=f"thinking.budget_tokens must be a whole number to bound the output, not {extra!r}")
    return limit + extra


def _unbounded(request: Request) -> str | None:
    """What in the request may make the provider sample, and bill, more than once."""
    if (option := unbounded_option(request.body)) is not None:
        return f"{option}; leave it out, or say mode: calibrated"
    for named in (request.betas, request.body.get("betas")):
        if (beta := unbounded_beta(named)) is not None:
            return f"beta {beta!r} may change what is billed; leave it out, or say mode: calibrated"
    return None


def most_input(request: Request) -> ContentUpper:
    """Return the most tokens of what the model reads. Worked out once a request.

    :raises TypeError, ValueError, RecursionError: it is no plain JSON.
    """
    return content_upper(request.body, request.known)
