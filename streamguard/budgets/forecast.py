"""Say what a budget would do with some requests, before anything is sent.

In charge of the arithmetic and its words: what is held for a request, what it usually costs, how many fit at once, and
what part of the budget can be spent before the next request no longer fits. It opens no ledger and sends nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from streamguard.budgets.spec import BudgetSpec
from streamguard.budgets.upper_bound import Bound, bound, most_input
from streamguard.events import Usage
from streamguard.pricing.price import Price, cost, micro_usd, usd
from streamguard.pricing.tokens import TokenScale
from streamguard.request import Request
from streamguard.usage import Unit

USUAL_SHARE = 4
"""An answer is taken to have a quarter of `max_tokens`, where nobody says how long answers are."""

PICTURE_MARGIN = 4
"""Images and pages are bounded at about four times what they usually come to."""


class BudgetForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of one budget, and the requests that it would meet. Amounts are in `unit`."""

    budget: str
    unit: Unit
    cap: int
    bounded: int
    """Requests that have a bound, and may be sent."""
    refused: dict[str, int]
    """Those that have none, by the reason."""
    hold: int | None
    """What is held for a request: the median. `None` where no request has a bound."""
    most: int | None
    """The largest hold."""
    usual: int | None
    """What a request usually costs: an estimate, by the text's weight and the length of answers."""
    usual_output: int | None
    """The output tokens that this rests on, the median."""

    @property
    def at_once(self) -> int | None:
        """How many requests of the usual hold fit into an untouched budget at once."""
        return None if self.hold is None else self.cap // max(1, self.hold)

    @property
    def spendable(self) -> float | None:
        """The share of the budget that can be spent before the next request no longer fits."""
        return None if self.hold is None else max(0.0, 1 - self.hold / self.cap)

    @property
    def ratio(self) -> float | None:
        """How many times its usual cost is held for a request."""
        return self.hold / self.usual if self.hold is not None and self.usual else None


def forecast_budgets(
    budgets: Sequence[BudgetSpec],
    requests: Iterable[Request],
    price_of: Callable[[Request], Price | None],
    *,
    usual_output: int | None = None,
) -> tuple[BudgetForecast, ...]:
    """Return what each limit of some budgets would do with some requests.

    :param requests: gone through once.
    :param price_of: `PriceBook.for_request`.
    :param usual_output: output tokens of a usual answer; `None` for a quarter of `max_tokens`.
    """
    limits = [(spec, unit) for spec in budgets for unit in spec.units]
    holds: list[list[int]] = [[] for _ in limits]
    costs: list[list[int]] = [[] for _ in limits]
    refused: list[Counter[str]] = [Counter() for _ in limits]
    lengths: list[int] = []
    for request in requests:
        price = price_of(request)
        usage = _usual(request, usual_output)
        lengths.append(usage.output_tokens or 0)
        for index, (spec, unit) in enumerate(limits):
            found = bound(request, price, mode=spec.mode, needs_price=spec.cost_usd is not None)
            if not isinstance(found, Bound):
                refused[index][found.why] += 1
                continue
            holds[index].append(found.of(unit) or 0)
            money = cost(price, usage)
            spent = (usage.whole_input or 0) + (usage.output_tokens or 0) if unit == "tokens" else money
            if spent is not None:
                costs[index].append(spent)
    return tuple(
        BudgetForecast(
            budget=spec.name,
            unit=unit,
            cap=(spec.tokens or 0) if unit == "tokens" else micro_usd(spec.cost_usd or Decimal(0)),
            bounded=len(holds[index]),
            refused=dict(refused[index].most_common()),
            hold=_median(holds[index]),
            most=max(holds[index], default=None),
            usual=_median(costs[index]),
            usual_output=_median(lengths),
        )
        for index, (spec, unit) in enumerate(limits)
    )


def _usual(request: Request, output: int | None) -> Usage:
    most = request.max_tokens if isinstance(request.max_tokens, int) else 0
    content = most_input(request)
    read = round(content.words * TokenScale().mid) + content.pictures // PICTURE_MARGIN
    return Usage(input_tokens=read, output_tokens=min(most, -(-most // USUAL_SHARE) if output is None else output))


def _median(numbers: list[int]) -> int | None:
    return math.ceil(statistics.median(numbers)) if numbers else None


def forecast_lines(found: BudgetForecast) -> Iterator[tuple[str, str]]:
    """The same for people: labels and texts."""

    def amount(value: int) -> str:
        return usd(value) if found.unit == "micro_usd" else f"{value:,} tokens"

    label = f"budget {found.budget}"
    if found.hold is None or found.most is None:
        why = "no request has a bound, so none would be sent" if found.refused else "there is no request to send"
        yield label, f"{amount(found.cap)}: {why}"
    else:
        usual = "unknown" if found.usual is None else f"≈ {amount(found.usual)}"
        times = "" if found.ratio is None else f", {found.ratio:,.0f} times as much as it usually costs"
        yield label, f"{amount(found.cap)}, {found.bounded:,} requests that have a bound"
        yield "  held for one", f"{amount(found.hold)} (at most {amount(found.most)}){times}"
        yield "  usual cost", f"{usual}, with {found.usual_output:,} tokens of output"
        yield "  at once", f"{found.at_once:,}"
        yield "  spendable", f"{100 * (found.spendable or 0):.1f} % before the next one no longer fits"
    for why, count in found.refused.items():
        yield "  refused", f"{count:,}: {why}"
