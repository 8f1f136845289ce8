"""One job, both sides, side by side: what they cost by the provider's own count, and what they took.

In charge of setting both sides the same task on fresh connections, one side after the other, and of the figures. How
they are shown is `table`'s business.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
import msgspec

from streamguard.demo.documents import Document, documents, prompt
from streamguard.demo.local_model import LocalModel
from streamguard.demo.sides import Side, guarded, unguarded, write_job
from streamguard.demo.simulated import MAX_TOKENS, in_full, simulated
from streamguard.events import Usage
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import Price, cost
from streamguard.testing.clock import run_virtual
from streamguard.testing.record import Exchange

MODEL: Final = "claude-haiku-4-5"
"""What the simulated model is asked for, and whose price it has."""

LOCAL_MAX_TOKENS: Final = 512

GRACE: Final = 0.001
"""Real seconds that sockets are given before the simulated clock jumps. Both ends are in this process, where loopback
delivers at once; so nearly all of the demo's time is this, a thousand times and more."""

JITTER_STEPS: Final = 8
"""Random parts of waits are whole eighths, so that retries stay near the provider's grid of time."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be compared."""

    documents: int
    seed: int
    concurrency: int
    folder: Path
    """Where the guarded side's files go."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one side came to. `None` is unknown."""

    rows: int
    valid: int
    attempts: int
    """As the client counts them; what the SDK retries by itself is not among them."""
    requests: int | None
    """As the provider counts them."""
    output_tokens: int
    """Generated, by the provider's own count."""
    thrown_away: int | None
    """Of them, in answers that were not the ones accepted."""
    cost_micro_usd: int | None
    """As the provider bills: input, and output up to the abort."""
    cost_in_full_micro_usd: int | None
    """If it billed every answer to its end, whoever has gone."""
    seconds: float
    first_token_p50: float | None
    first_token_p95: float | None
    row_p50: float
    row_p95: float
    row_longest: float
    again: Mapping[str, int]
    """Why attempts were not good enough, by how often."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides."""

    model: str
    order: Order
    price: Price | None
    without: Figures
    guarded: Figures


class Reporter(Protocol):
    """Who is told how far the comparison is."""

    def say(self, text: str) -> None:
        """Something begins that takes its time."""

    def began(self, documents: int) -> None:
        """A side begins with so many documents."""

    def done(self) -> None:
        """A side is done with one document."""


def compare_simulated(order: Order, reporter: Reporter) -> Comparison:
    """The simulated model over loopback sockets, on a simulated clock: waiting takes no time."""
    asked = documents(order.documents, order.seed)
    price = PriceBook().price(MODEL)
    source = random.Random(f"{order.seed}/jitter")  # noqa: S311

    def jitter() -> float:
        return source.randrange(JITTER_STEPS) / JITTER_STEPS

    async def both() -> Comparison:
        figures = []
        for ask in (_without(MODEL, MAX_TOKENS, reporter), _guarded(MODEL, MAX_TOKENS, reporter, jitter)):
            async with simulated(asked, order.seed) as server:
                side = await ask(server.url, asked, order)
            figures.append(_figures(side, **_billed(server.exchanges, asked, side, price)))
        return Comparison(model=MODEL, order=order, price=price, without=figures[0], guarded=figures[1])

    return run_virtual(both, grace=GRACE)


def compare_local(order: Order, model: LocalModel, reporter: Reporter) -> Comparison:
    """A model on this machine, in real time. It bills nobody."""
    asked = documents(order.documents, order.seed)

    async def both() -> Comparison:
        figures = []
        for ask in (_without(model.name, LOCAL_MAX_TOKENS, reporter), _guarded(model.name, LOCAL_MAX_TOKENS, reporter)):
            before = await anyio.to_thread.run_sync(model.counted)
            side = await ask(model.url, asked, order)
            spent = (await anyio.to_thread.run_sync(model.counted)).since(before)
            unknown: dict[str, Any] = dict.fromkeys(
                ("requests", "thrown_away", "cost_micro_usd", "cost_in_full_micro_usd")
            )
            figures.append(_figures(side, output_tokens=spent.output_tokens, **unknown))
        return Comparison(model=model.name, order=order, price=None, without=figures[0], guarded=figures[1])

    return anyio.run(both)


_Ask = Callable[[str, Sequence[Document], Order], Any]


def _without(model: str, max_tokens: int, reporter: Reporter) -> _Ask:
    async def ask(url: str, asked: Sequence[Document], order: Order) -> Side:
        import anthropic

        reporter.say(f"1 of 2, without guards: {len(asked)} documents, {order.concurrency} at a time")
        reporter.began(len(asked))
        # The SDK's defaults: ten minutes without a byte, two retries of requests that fail before their stream.
        async with anthropic.AsyncAnthropic(api_key="none", base_url=url, http_client=_direct()) as client:
            return await unguarded(
                client,
                asked,
                model=model,
                max_tokens=max_tokens,
                concurrency=order.concurrency,
                done=reporter.done,
            )

    return ask


def _guarded(model: str, max_tokens: int, reporter: Reporter, jitter: Callable[[], float] = random.random) -> _Ask:
    async def ask(url: str, asked: Sequence[Document], order: Order) -> Side:
        import anthropic

        reporter.say("2 of 2, with guards: the same as a job under a policy")
        reporter.began(len(asked))
        write_job(order.folder, asked, model=model, max_tokens=max_tokens)
        async with anthropic.AsyncAnthropic(
            api_key="none", base_url=url, max_retries=0, http_client=_direct()
        ) as client:
            return await guarded(client, order.folder, jitter=jitter, concurrency=order.concurrency, done=reporter.done)

    return ask


def _direct() -> Any:
    """The SDK's own HTTP client, but past any proxy of the environment's: those do not lead to this machine."""
    import anthropic

    return anthropic.DefaultAsyncHttpxClient(mounts={"all://127.0.0.1": None})


def _billed(
    exchanges: Sequence[Exchange], asked: Sequence[Document], side: Side, price: Price | None
) -> dict[str, Any]:
    """The provider's own count and bill."""
    ids = {prompt(document): document.id for document in asked}
    last: dict[str, Exchange] = {}
    for exchange in exchanges:
        last[ids[exchange.body["messages"][0]["content"]]] = exchange
    # A valid document's last answer is the one that was accepted.
    kept = sum(exchange.bill.output_tokens for id_, exchange in last.items() if id_ in side.valid)
    output = sum(exchange.bill.output_tokens for exchange in exchanges)
    return {
        "requests": len(exchanges),
        "output_tokens": output,
        "thrown_away": output - kept,
        "cost_micro_usd": _cost(price, [exchange.bill.usage for exchange in exchanges]),
        "cost_in_full_micro_usd": _cost(
            price, [msgspec.structs.replace(one.bill.usage, output_tokens=in_full(one)) for one in exchanges]
        ),
    }


def _cost(price: Price | None, usages: Sequence[Usage]) -> int | None:
    costs = [cost(price, usage) for usage in usages]
    return sum(one for one in costs if one is not None) if None not in costs else None


def _figures(side: Side, **counted: Any) -> Figures:
    first = sorted(side.first_tokens)
    rows = sorted(side.row_seconds)
    return Figures(
        rows=side.rows,
        valid=len(side.valid),
        attempts=side.attempts,
        seconds=side.seconds,
        first_token_p50=_quantile(first, 50),
        first_token_p95=_quantile(first, 95),
        row_p50=_quantile(rows, 50) or 0.0,
        row_p95=_quantile(rows, 95) or 0.0,
        row_longest=max(rows, default=0.0),
        again=dict(side.again.most_common()),
        **counted,
    )


def _quantile(ordered: Sequence[float], percent: int) -> float | None:
    if len(ordered) < 2:
        return ordered[0] if ordered else None
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]
