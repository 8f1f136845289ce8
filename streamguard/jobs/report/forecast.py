"""What a run would do and cost, before anything is sent (`--dry-run`).

In charge of the estimate, as intervals that say what they assume. The high end is what the requests allow; the low end
is what the answers so far suggest, or nothing. It sends nothing and counts no tokens of the provider's.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice

import msgspec

from streamguard.budgets.forecast import BudgetForecast, forecast_budgets, forecast_lines
from streamguard.budgets.upper_bound import Bound, bound
from streamguard.events import Usage
from streamguard.jobs.batches.lane import NOT_BATCHED
from streamguard.jobs.batches.prices import SHARE
from streamguard.jobs.input.input import Input, RowRequest
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Reservoir
from streamguard.jobs.report.shared_prefix import PrefixFinder, PrefixHint
from streamguard.jobs.store.journal_records import believed
from streamguard.jobs.store.output import Head
from streamguard.policy.model import Policy
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import Price, cost, worst_case
from streamguard.pricing.tokens import TokenScale, weigh
from streamguard.request import Request
from streamguard.terminal import aligned, fitted, printable

MOST_EXAMPLES = 1000
"""Earlier answers that are looked at, to see how long they are."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was not made. Pairs are `[low, high]`, of one attempt a row; `None` is unknown."""

    rows: int
    todo: int
    kept: int
    """Rows that have succeeded and stay."""
    failed_before: dict[str, int]
    """Rows that failed and are not asked again, by reason."""
    left_out: int
    models: dict[str, int]
    """Rows to ask, by model."""
    input_tokens: tuple[int, int]
    """≈, by the weight of the text; framing that the provider adds is not in it, and images and files are not."""
    output_tokens: tuple[int, int]
    """From the median of earlier answers (or nothing) to every answer at its `max_tokens`."""
    typical_output_tokens: int | None
    """The median of earlier answers of this job."""
    cost_usd: tuple[float, float] | None
    batch_cost_usd: tuple[float, float] | None
    """The same with every row in a Message Batch that takes it, and no bad answer."""
    unbatched: int
    """Rows that no batch takes."""
    lane: str
    """The lane that the run would take: `stream` or `batch`."""
    worst_cost_usd: float | None
    """If every row takes every attempt that the policy allows, and each costs the most that its request can."""
    attempts: int
    """That the policy allows."""
    unpriced: tuple[str, ...]
    """Models without a price."""
    shared_prefix: PrefixHint | None = None
    """What rows share and nobody caches, if that is worth knowing."""
    budgets: tuple[BudgetForecast, ...] = ()
    """What each limit of the policy's budgets would do with the rows."""


class _Answer(msgspec.Struct):
    class Own(msgspec.Struct):
        usage: dict[str, list[int | None] | bool] = {}

    streamguard: Own
    result: Head.Result


def forecast(job: Job, lane: str = "stream") -> Forecast:
    """What a run of the job would be.

    :param lane: `stream` or `batch`.
    :raises JobError: the input changed meanwhile.
    """
    book, scale = PriceBook(job.policy.prices), TokenScale()
    typical = _typical(job)
    low_in = high_in = low_out = high_out = 0
    low_cost = high_cost = worst = 0
    models: Counter[str] = Counter()
    unpriced: dict[str, None] = {}
    batch_low = batch_high = unbatched = 0
    unbounded = False
    prefixes, prices = PrefixFinder(), dict[str, Price | None]()
    for item in job.requests():
        request = Request(item.params)
        prefixes.take(item.params)
        model = request.model or "unknown"
        models[model] += 1
        weight = weigh(request.input_text)
        tokens = math.floor(weight * scale.low), math.ceil(weight * scale.high)
        most = request.max_tokens or 0
        least = min(typical or 0, most)
        low_in, high_in = low_in + tokens[0], high_in + tokens[1]
        low_out, high_out = low_out + least, high_out + most
        price = prices[model] = book.for_request(request)
        if price is None:
            unpriced[model] = None
            continue
        low = cost(price, Usage(input_tokens=tokens[0], output_tokens=least)) or 0
        high = worst_case(price, tokens[1], most, caching="no")
        low_cost, high_cost = low_cost + low, high_cost + high
        if alone := bool(NOT_BATCHED & item.params.keys()):
            unbatched += 1
        half = Decimal(1) if alone else SHARE
        batch_low, batch_high = batch_low + math.floor(low * half), batch_high + math.ceil(high * half)
        bounds = bound(request, price)
        if isinstance(bounds, Bound):
            worst += (bounds.micro_usd or 0) * job.policy.retry.attempts
        else:
            unbounded = True
    return Forecast(
        rows=job.rows,
        todo=job.todo,
        kept=job.kept,
        failed_before=dict(job.failed_before.most_common()),
        left_out=job.left_out + job.fates["unselected"],
        models=dict(models),
        input_tokens=(low_in, high_in),
        output_tokens=(low_out, high_out),
        typical_output_tokens=typical,
        cost_usd=None if unpriced else (low_cost / 1e6, high_cost / 1e6),
        batch_cost_usd=None if unpriced else (batch_low / 1e6, batch_high / 1e6),
        unbatched=unbatched,
        lane=lane,
        worst_cost_usd=None if unpriced or unbounded else worst / 1e6,
        attempts=job.policy.retry.attempts,
        unpriced=tuple(unpriced),
        shared_prefix=prefixes.hint(prices),
        budgets=_budgets(job.policy, job.requests(), book, typical),
    )


LOOKED_AT = 500
"""Rows that a check looks at for a prefix that they share."""


def prefix_notices(job: Job) -> list[str]:
    """Return what a check says of the beginning that a job's first rows share: nothing, or one line."""
    finder = PrefixFinder()
    for item in islice(job.requests(), LOOKED_AT):
        finder.take(item.params)
    hint = finder.hint()
    return [] if hint is None else [hint.text]


def budget_lines(policy: Policy, rows: Input, usual_output: int | None = None) -> list[tuple[str, str]]:
    """What a policy's budgets would do with all rows of a job's input, as labels and texts.

    :param usual_output: output tokens of a usual answer; `None` for a quarter of `max_tokens`.
    """
    items = rows.requests((entry, 0) for entry in rows.plan.entries())
    found = _budgets(policy, items, PriceBook(policy.prices), usual_output)
    return [line for one in found for line in forecast_lines(one)]


def _budgets(
    policy: Policy, items: Iterable[RowRequest], book: PriceBook, typical: int | None
) -> tuple[BudgetForecast, ...]:
    if not policy.budgets:
        return ()
    requests = (Request(item.params) for item in items)
    return forecast_budgets(policy.budgets, requests, book.for_request, usual_output=typical)


def _typical(job: Job) -> int | None:
    """The median length of this job's accepted answers, as far as they were counted."""
    found, decode = Reservoir(MOST_EXAMPLES), msgspec.json.Decoder(_Answer).decode
    with believed(str(job.journal.path)):
        for _, line in job.journal.lines():
            answer = decode(line)
            tokens = answer.streamguard.usage.get("output_tokens")
            if answer.result.type == "succeeded" and isinstance(tokens, list) and tokens[1] is not None:
                found.append(tokens[1])
    return round(statistics.median(found)) if found else None


def forecast_text(found: Forecast, notices: list[str], width: int | None = None) -> str:
    """The same for people.

    :param width: see `terminal.columns`.
    """
    said = [fitted(printable(notice), 0, width) for notice in notices]
    return "\n".join([*said, aligned(_lines(found), width), "nothing was sent"])


def _lines(found: Forecast) -> Iterator[tuple[str, str]]:
    yield "rows", f"{found.rows:,}"
    yield "to ask", f"{found.todo:,}" + _of(found.models)
    if found.kept:
        yield "kept", f"{found.kept:,} that have succeeded"
    if found.failed_before:
        yield "not asked", f"{sum(found.failed_before.values()):,} that failed before" + _of(found.failed_before)
    if found.left_out:
        yield "left out", f"{found.left_out:,}"
    yield "input tokens", f"≈ {_count(found.input_tokens)}"
    how = "no answers to judge by yet" if found.typical_output_tokens is None else "as the answers so far"
    yield "output tokens", f"≈ {_count(found.output_tokens)} ({how}, to every answer at max_tokens)"
    if found.cost_usd is not None:
        low, high = found.cost_usd
        yield "cost", f"≈ ${low:,.4f} to ${high:,.4f}, one attempt a row"
    if found.batch_cost_usd is not None and found.cost_usd is not None:
        yield "lane", _lanes(found, found.cost_usd, found.batch_cost_usd)
    if found.unpriced:
        yield "cost", f"unknown: no price for {', '.join(found.unpriced)}; give prices: in the policy"
    if found.worst_cost_usd is not None:
        yield (
            "at the most",
            f"${found.worst_cost_usd:,.4f}, if every row took all {found.attempts} attempts and all tokens",
        )
    if found.shared_prefix is not None:
        yield "faster", found.shared_prefix.text
    for budget in found.budgets:
        yield from forecast_lines(budget)


def _lanes(found: Forecast, streams: tuple[float, float], batches: tuple[float, float]) -> str:
    """Which lane the run takes, and what the other one would cost."""
    priced = f"≈ ${batches[0]:,.4f} to ${batches[1]:,.4f}"
    but = f" but for {found.unbatched:,} rows that no batch takes" if found.unbatched else ""
    if found.lane == "batch":
        return (
            f"batch, since --lane says so: {priced}{but}, at half the price and within 24 hours; what a batch answers "
            f"badly is streamed at the full price. Streams alone: ≈ ${streams[0]:,.4f} to ${streams[1]:,.4f}, at once"
        )
    return f"stream, since no lane is set: at once. With --lane batch {priced}{but}: half the price, within 24 hours"


def _of(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else ""


def _count(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
