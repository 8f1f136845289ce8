"""Make the one typed error that a call ends in, from how its last attempt ended and what was decided."""

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
