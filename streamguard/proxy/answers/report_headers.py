"""What a call cost and what is left, as `x-streamguard-*` headers; or as an SSE comment where the head has gone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import anyio

from streamguard.budgets.spec import BudgetSpec
from streamguard.engine.runtime import Runtime
from streamguard.errors import StreamguardError
from streamguard.outcome import CallRecord, Cost, Outcome

_log = logging.getLogger("streamguard.proxy")

PREFIX = "x-streamguard-"

BALANCE_SECONDS = 1.0
"""For which a ledger may be asked what is left."""


def report(call: str, record: CallRecord, left: Mapping[str, str] | None = None) -> dict[str, str]:
    """A call's headers: what is known by now.

    :param left: budget → what it has left; see `budgets_left`.
    """
    headers = {"call": call, "attempts": str(max(1, len(record.attempts)))}
    reasons = record.reasons
    if reasons:
        headers["reason"] = reasons[-1]
    if isinstance(record, Outcome):
        headers["completed"] = record.completed or "unclaimed"
        if record.marked:
            headers["marked"] = ", ".join(dict.fromkeys(trip.reason for trip in record.marked))
    if record.attempts and (cost := shown_cost(record.cost)) is not None:
        headers["cost-usd"] = cost
    if left:
        headers["budget-left"] = ", ".join(f"{name};{amount}" for name, amount in left.items())
    return {PREFIX + name: value for name, value in headers.items()}


def beginning(call: str, record: CallRecord) -> dict[str, str]:
    """The headers of a response that begins before its call has ended."""
    headers = {PREFIX + "call": call, PREFIX + "attempts": str(len(record.attempts) + 1)}
    if record.reasons:
        headers[PREFIX + "reason"] = record.reasons[-1]
    return headers


def as_comment(headers: Mapping[str, str]) -> bytes:
    """The same in a stream: clients read over comments."""
    return "".join(f": {name}: {value}\n" for name, value in headers.items()).encode("ascii", "replace") + b"\n"


def as_list(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The same for ASGI."""
    return [(name.encode("ascii"), value.encode("ascii", "replace")) for name, value in headers.items()]


def shown_cost(cost: Cost) -> str | None:
    """US dollars; `low..high` where the provider did not give the final count."""
    if cost.low is None or cost.high is None:
        return None
    low, high = (f"{Decimal(value) / 1_000_000:.6f}" for value in (cost.low, cost.high))
    return low if cost.exact else f"{low}..{high}"


def visible(budgets: Iterable[BudgetSpec], *, alone: bool) -> tuple[BudgetSpec, ...]:
    """The budgets whose balance a client may see: its own, or all if there are no others.

    :param alone: whether nobody needs a token.
    """
    return tuple(spec for spec in budgets if spec.per != "call" and (alone or "{client}" in spec.per))


async def budgets_left(runtime: Runtime, budgets: Sequence[BudgetSpec], labels: Mapping[str, str]) -> dict[str, str]:
    """What budgets have left, by name; without those that cannot be asked now."""
    left: dict[str, str] = {}
    with anyio.move_on_after(BALANCE_SECONDS):
        for spec in budgets:
            try:
                account = await runtime.accounts.for_call([spec], job=runtime.job, labels=labels)
                amounts = await account.left()
            except (StreamguardError, ValueError) as error:
                _log.warning("the balance of budget %s is unknown: %s", spec.name, error)
                continue
            parts = [
                f"usd={Decimal(amount) / 1_000_000:.6f}" if key.endswith("/micro_usd") else f"tokens={amount}"
                for key, amount in amounts.items()
            ]
            left[spec.name] = ";".join(parts)
    return left
