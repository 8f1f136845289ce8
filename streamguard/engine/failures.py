"""Make the one typed error that a call ends in, from how its last attempt ended and what was decided; and the trips of
budgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from streamguard.budgets.ledger import Denied
from streamguard.errors import BudgetExhausted, CallError, DeadlineExceeded, GaveUp, Interrupted
from streamguard.events import Failed
from streamguard.outcome import CallRecord
from streamguard.verdict import Decision, Trip


def call_error(end: Trip | Failed, decision: Decision, record: CallRecord, denied: Denied | None) -> CallError:
    """Return the error of a call that ends without an outcome.

    :param end: how the last attempt ended.
    :param denied: the denial of a budget, if one ended the call.
    """
    if end.reason == "timeout.total":
        return DeadlineExceeded(end.message, reason=end.reason, record=record, knob="timeouts.total")
    if end.reason == "operator.interrupt":
        by = str(end.observed) if isinstance(end, Trip) else "unknown"
        return Interrupted(end.message, reason=end.reason, record=record, by=by)
    if end.reason == "budget.denied" and denied is not None:
        before = f"; before it: {', '.join(record.reasons[:-1])}" if len(record.attempts) > 1 else ""
        return BudgetExhausted(
            end.message + before,
            reason=end.reason,
            record=record,
            scope=denied.scope,
            asked=denied.asked,
            available=denied.available,
            unit=denied.unit,
        )
    attempts = len(record.attempts)
    later = decision.retry_after
    tries = "the first attempt" if attempts == 1 else f"{attempts} attempts"
    return GaveUp(
        f"gave up after {tries}: {end.reason}: {end.message}; {decision.why}",
        reason=end.reason,
        record=record,
        retry_at=None if later is None else datetime.now(UTC) + timedelta(seconds=later),
    )


def lost_trip(why: str) -> Trip:
    """Nothing may be spent, because nobody counts it any more."""
    return Trip(
        reason="budget.lost", message=f"without its ledger nothing may be spent: {why}", knob="budgets", guard="budgets"
    )


def denied_trip(denied: Denied) -> Trip:
    """A budget has no room."""

    def amount(value: int) -> str:
        return f"${value / 1_000_000:.6f}" if denied.unit == "micro_usd" else f"{value} tokens"

    message = (
        f"not sent: the request may cost up to {amount(denied.asked)}, and budget {denied.scope} has "
        f"{amount(denied.available)} left of {amount(denied.cap)}"
    )
    if denied.held:
        message += f" ({amount(denied.held)} are held by calls that run)"
    return Trip(
        reason="budget.denied",
        message=message,
        knob="budgets",
        limit=denied.cap,
        observed=denied.asked,
        guard="budgets",
    )
