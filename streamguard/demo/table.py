"""The comparison as a person reads it: one table, and what its figures rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamguard.demo.compare import Comparison, Figures
from streamguard.demo.sides import TRIES
from streamguard.demo.simulated import LAG_TOKENS
from streamguard.terminal import printable

Row = tuple[str, str, str, str]
"""A name, both sides' figures, and what became of the first one."""

SIMULATED: Final = (
    "The provider is simulated, and so is the clock: sockets and SDK are real, seconds are the waits that there would "
    "be, and this machine's speed is not in them."
)
LOCAL: Final = "The model runs on this machine, in real time. Tokens are counted by its own server; it bills nobody."


def rows(comparison: Comparison) -> Iterator[Row]:
    """The table, row by row."""
    one, two = comparison.without, comparison.guarded
    yield "valid answers", f"{one.valid} of {one.rows}", f"{two.valid} of {two.rows}", ""
    if one.requests is not None and two.requests is not None:
        yield "requests", f"{one.requests:,}", f"{two.requests:,}", _change(one.requests, two.requests)
    else:
        yield "attempts", f"{one.attempts:,}", f"{two.attempts:,}", _change(one.attempts, two.attempts)
    yield _tokens("output tokens", one.output_tokens, two.output_tokens)
    if one.thrown_away is not None and two.thrown_away is not None:
        yield _tokens("  of them thrown away", one.thrown_away, two.thrown_away)
    if one.cost_micro_usd is not None and two.cost_micro_usd is not None:
        change = _change(one.cost_micro_usd, two.cost_micro_usd)
        yield "money", _money(one.cost_micro_usd), _money(two.cost_micro_usd), change
    yield "seconds", f"{one.seconds:,.0f}", f"{two.seconds:,.0f}", _change(one.seconds, two.seconds)
    yield "first token, p50 and p95", _first(one), _first(two), ""
    yield "a document, p50 and p95", _pair(one.row_p50, one.row_p95), _pair(two.row_p50, two.row_p95), ""
    longest = _change(one.row_longest, two.row_longest)
    yield "  the slowest", f"{one.row_longest:,.1f} s", f"{two.row_longest:,.1f} s", longest


def _tokens(name: str, one: int, two: int) -> Row:
    return name, f"{one:,}", f"{two:,}", _change(one, two)


MINUS: Final = "\N{MINUS SIGN}"


def _change(one: float, two: float) -> str:
    if not one:
        return ""
    percent = round((two / one - 1) * 100)
    return "" if not percent else f"{MINUS if percent < 0 else '+'}{abs(percent)} %"


def _money(micro: int) -> str:
    return f"${micro / 1e6:,.3f}"


def _pair(p50: float, p95: float) -> str:
    return f"{p50:,.2f} s, {p95:,.2f} s"


def _first(side: Figures) -> str:
    if side.first_token_p50 is None or side.first_token_p95 is None:
        return "none"
    return _pair(side.first_token_p50, side.first_token_p95)


def notes(comparison: Comparison, *, local: bool) -> Iterator[str]:
    """What the figures rest on, a paragraph each."""
    yield (
        f"Without guards: messages.stream() to its end, json.loads, jsonschema, up to {TRIES} tries a document; the "
        f"SDK's own timeouts (ten minutes) and retries. Again because of: {_counts(comparison.without.again)}."
    )
    yield (
        f"With guards: streamguard run with extends: streamguard:extraction, the schema, attempts: {TRIES}. "
        f"Again because of: {_counts(comparison.guarded.again)}."
    )
    yield LOCAL if local else SIMULATED
    two, price = comparison.guarded, comparison.price
    if price is not None and two.cost_micro_usd is not None and two.cost_in_full_micro_usd is not None:
        yield (
            f"Tokens and money are the provider's own count, at the price of {comparison.model} (${price.input} and "
            f"${price.output} a million, {price.source}). It bills an abort up to there, and {LAG_TOKENS} tokens more; "
            f"one that finishes and bills every answer would bill {_money(two.cost_in_full_micro_usd)} with guards."
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(name)} {count}" for name, count in counts.items()) or "nothing"


def as_object(comparison: Comparison, *, local: bool) -> dict[str, Any]:
    """The same as JSON has it."""
    from msgspec import to_builtins

    order = comparison.order
    return {
        "documents": order.documents,
        "seed": order.seed,
        "concurrency": order.concurrency,
        "model": comparison.model,
        "clock": "real" if local else "simulated",
        "without_guards": to_builtins(comparison.without),
        "with_guards": to_builtins(comparison.guarded),
    }
