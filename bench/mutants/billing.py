# ruff: noqa: ARG001, ARG005  a patch takes what the original takes
"""Mutants of what budgets hold and charge: the bound of a request, and the settlement of an attempt.

Each names the tests that must notice it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import mutant
from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic import usage as wire_usage
from streamguard.budgets import known_options, reservation, spec, upper_bound
from streamguard.budgets.spec import Billed, Lost, NotBilled, Settlement
from streamguard.budgets.stores.memory import MemoryStore
from streamguard.engine import dispatch
from streamguard.engine.streams import evidence
from streamguard.guards import metering, transcript
from streamguard.pricing import bill, input_upper, price
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import Price

_FILE = "tests/matrix/billing/test_billing.py::"
CELLS = (f"{_FILE}test_a_sample_of_cells",)
REQUESTS = (f"{_FILE}test_a_sample_of_requests",)
BOUNDS = "tests/budgets/test_upper_bound.py::"
DISPATCH = "tests/engine/test_dispatch.py::"


class _All(frozenset[Any]):
    """A set that has everything in it."""

    def __contains__(self, item: object) -> bool:
        return True

    def __rsub__(self, other: Any) -> set[Any]:
        return set()


class _Prefixes(frozenset[Any]):
    """A set that has whatever begins like one of its own."""

    def __contains__(self, item: object) -> bool:
        return str(item).startswith(tuple(name.rsplit("_", 1)[0] for name in self))


def value(name: str, owner: Any, attribute: str, new: Any, *, by: tuple[str, ...]) -> None:
    """Another value, or function, in the place of one of a module's or class's own."""
    mutant(name, by=by)(lambda: patch.object(owner, attribute, new))


# The bound

value("bound: text has a token a byte", input_upper, "text_upper", lambda text: len(text.encode()), by=REQUESTS)
value("bound: images are light", input_upper, "IMAGE_TOKENS", 1000, by=REQUESTS)
value("bound: pages are light", input_upper, "PDF_PAGE_TOKENS", 3000, by=REQUESTS)
value("bound: files are small", input_upper, "CONTEXT_WINDOW", 10_000, by=REQUESTS)
value("bound: small windows are smaller", input_upper, "_SMALL_WINDOW", 20_000, by=REQUESTS)
value("bound: blocks of any type are known", input_upper, "BLOCKS", _All(), by=REQUESTS)
value("bound: fields of blocks are all known", input_upper, "KEYS", _All(), by=REQUESTS)
value("bound: fields of tools are all known", input_upper, "TOOL_KEYS", _All(), by=REQUESTS)
value(
    "bound: tools are known by how their names begin",
    input_upper,
    "CLIENT_TOOLS",
    _Prefixes(input_upper.CLIENT_TOOLS),
    by=REQUESTS,
)
value(
    "bound: what cannot be read is nothing",
    input_upper,
    "OPAQUE_TOKENS",
    0,
    by=(f"{BOUNDS}test_what_only_the_provider_can_read_counts",),
)
value("bound: a cache of any lifetime has a price", input_upper, "LIFETIMES", _All(), by=REQUESTS)
value("bound: caches cost nothing", upper_bound, "cache_lifetime", lambda content: "no", by=REQUESTS)
value("bound: caches are short", upper_bound, "cache_lifetime", lambda content: "5m", by=REQUESTS)
value("bound: options are all known", upper_bound, "unbounded_option", lambda body: None, by=REQUESTS)
value("bound: betas are all known", upper_bound, "unbounded_beta", lambda betas: None, by=REQUESTS)
value("bound: any edit only clears", known_options, "_only_clears", lambda value: True, by=REQUESTS)
value("bound: service tiers cost the same", known_options, "_tiers", lambda model: _All(), by=REQUESTS)
value(
    "bound: citations add nothing",
    input_upper,
    "CITED_SENTENCE",
    0,
    by=(f"{BOUNDS}test_citations_add_to_each_sentence",),
)
value(
    "bound: a thinking budget is within max_tokens",
    upper_bound,
    "_most_output",
    lambda request: request.max_tokens,
    by=REQUESTS,
)


@mutant("bound: tools that come in messages are text", by=REQUESTS)
def _inline() -> Any:
    original = input_upper._Counting.tool

    def tool(self: Any, tool: object, where: str) -> None:
        if where == "tools":
            original(self, tool, where)

    return patch.object(input_upper._Counting, "tool", tool)


@mutant(
    "bound: a tool is as long as it was sent",
    by=(f"{BOUNDS}test_a_tool_counts_at_the_length_of_its_longest_rendering",),
)
def _rendering() -> Any:
    return patch.object(
        input_upper.json, "dumps", lambda value, **options: input_upper.msgspec.json.encode(value).decode()
    )


@mutant("bound: every region costs the same", by=REQUESTS)
def _regions() -> Any:
    original = price.worst_case

    def worst_case(rates: Price, *args: Any, **options: Any) -> int:
        return original(msgspec.structs.replace(rates, factor=None), *args, **options)

    return patch.object(upper_bound, "worst_case", worst_case)


@mutant("bound: long inputs cost the same", by=REQUESTS)
def _tiers() -> Any:
    def up_to(self: Price, input_tokens: int) -> Iterator[Any]:
        yield self

    return patch.object(Price, "up_to", up_to)


@mutant("bound: fast costs the same", by=REQUESTS)
def _fast() -> Any:
    original = PriceBook.price

    def found(self: PriceBook, model: Any, *, speed: str = "standard", **options: Any) -> Any:
        known = original(self, model, **options)
        return None if known is None else msgspec.structs.replace(known, speed="any")

    return patch.object(PriceBook, "price", found)


# The settlement

value("settlement: any number is a count", wire_usage, "_impossible", lambda wire: False, by=CELLS)
value(
    "settlement: counts may fall",
    transcript,
    "_fell",
    lambda before, told: False,
    by=("tests/guards/test_metering.py::test_counts_that_fall_are_an_interval",),
)
value("settlement: any input can be counted", metering, "_least_input", lambda request: 0.0, by=CELLS)
value(
    "settlement: any output can be counted",
    metering,
    "_output_can_be",
    lambda made: True,
    by=("tests/guards/test_metering.py::test_an_output_lighter_than_its_text_is_no_count",),
)
value("settlement: nothing thinks unseen", metering, "may_think", lambda request: False, by=CELLS)
value("settlement: every tier costs the same", bill, "TIERS", _All(), by=CELLS)
value(
    "settlement: a gateway's error is a refusal",
    failures,
    "_refused",
    lambda top, kind, status, message: (status or 0) >= 400,
    by=CELLS,
)
value(
    "settlement: every region costs the same",
    price,
    "rates_of",
    lambda rates, usage: msgspec.structs.replace(rates, factor=None),
    by=CELLS,
)
value(
    "settlement: nothing is made in a silence",
    metering,
    "FASTEST",
    0.0,
    by=("tests/guards/test_metering.py::test_what_may_be_made_in_a_silence_counts",),
)


@mutant(
    "settlement: cache writes are told as a sum",
    by=("tests/adapters/anthropic/test_odd_frames.py::test_cache_writes_may_be_told_by_their_parts_alone",),
)
def _parts() -> Any:
    original = wire_usage._counts

    def counts(wire: Any) -> Any:
        return original({name: told for name, told in wire.items() if name != "cache_creation"})

    return patch.object(wire_usage, "_counts", counts)


def _settling(change: Callable[..., Settlement | None]) -> Any:
    original = spec.settle

    def settle(budget: Any, unit: Any, held: int, evidence: Any, *rest: Any) -> Settlement:
        changed = change(original, budget, unit, held, evidence, *rest)
        return original(budget, unit, held, evidence, *rest) if changed is None else changed

    return patch.object(reservation, "settle", settle)


@mutant("settlement: what nobody knows is nothing", by=CELLS)
def _lost() -> Any:
    return _settling(
        lambda settle, budget, unit, held, evidence, *rest: Settlement(0) if type(evidence) is Lost else None
    )


@mutant("settlement: every backend stops at an abort", by=CELLS)
def _stops() -> Any:
    def declared(settle: Any, budget: Any, *rest: Any) -> Any:
        return settle(budget.model_copy(update={"abort_stops_billing": True}), *rest)

    return _settling(declared)


@mutant("settlement: what is uncertain is free again", by=CELLS)
def _free() -> Any:
    def settled(settle: Any, *rest: Any) -> Any:
        return Settlement(settle(*rest).settled)

    return _settling(settled)


@mutant("settlement: an aborted answer is what was seen of it, at the least", by=CELLS)
def _seen() -> Any:
    original = evidence.output_upper

    def seen(made: Any, request: Any, scale: Any, silent: float = 0.0) -> Any:
        found = original(made, request, msgspec.structs.replace(scale, high=scale.low), 0.0)
        return None if found is None else found - spec.ABORT_LAG_TOKENS

    return patch.object(evidence, "output_upper", seen)


@mutant("settlement: an aborted request was read in part", by=CELLS)
def _read() -> Any:
    original = evidence.input_upper

    def read(*args: Any) -> Any:
        found = original(*args)
        return None if found is None else msgspec.structs.replace(found, tokens=math.ceil(found.tokens / 8))

    return patch.object(evidence, "input_upper", read)


@mutant(
    "settlement: of two prices the one that was asked for",
    by=("tests/engine/test_dispatch.py::test_record_and_ledger_price_an_answer_alike",),
)
def _cheaper() -> Any:
    original = bill.bill

    def asked(prices: Any, usage: Any) -> Any:
        return original(msgspec.structs.replace(prices, served=None), usage)

    return patch.object(spec, "bill", asked)


@mutant("settlement: holds count half", by=CELLS)
def _half() -> Any:
    original = MemoryStore.reserve

    def reserve(self: Any, hold: str, amounts: Any, *rest: Any) -> Any:
        return original(self, hold, {scope: amount // 2 for scope, amount in amounts.items()}, *rest)

    return patch.object(MemoryStore, "reserve", reserve)


@mutant("settlement: every end is a refusal", by=CELLS)
def _refusals() -> Any:
    original = dispatch.evidence

    def found(*known: Any) -> Any:
        made = original(*known)
        return made if type(made) is Billed else NotBilled()

    return patch.object(dispatch, "evidence", found)
