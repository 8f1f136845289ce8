"""Records as structlog events: `Runtime(hooks=[structlog_hook()])`."""

from __future__ import annotations

from typing import Any

from streamguard.events import Failed
from streamguard.outcome import AttemptRecord, CallRecord
from streamguard.telemetry import (
    AttemptAborted,
    AttemptStarted,
    BudgetDenied,
    CallCompleted,
    CallGaveUp,
    Hook,
    Record,
    RetryScheduled,
)


def structlog_hook(logger: Any = None) -> Hook:
    """A hook that logs each record as one event, named `streamguard.what_happened`, with flat fields.

    The trip's message may quote a few characters of the answer, so it is left out; reasons, limits and places stand.

    :param logger: a structlog logger; the one named `streamguard` by default.
    """
    import structlog

    log = logger if logger is not None else structlog.get_logger("streamguard")

    def hook(record: Record) -> None:
        level, event, fields = _RENDER[type(record)](record)
        common = {"call": record.call, **({"group": record.group} if record.group else {}), **record.labels}
        getattr(log, level)(f"streamguard.{event}", **{**common, **fields})

    return hook


def _attempt_fields(attempt: AttemptRecord) -> dict[str, Any]:
    ended = attempt.ended
    where = None if ended is None or isinstance(ended, Failed) else ended.where
    fields = {
        "attempt": attempt.number,
        "reason": attempt.reason,
        "knob": ended.knob if ended else None,
        "limit": None if ended is None or isinstance(ended, Failed) else ended.limit,
        "status": ended.status if isinstance(ended, Failed) else None,
        "request_id": attempt.request_id,
        "offset": where.offset if where else None,
        "pointer": where.pointer if where else None,
        "seconds": round(attempt.times.end, 3),
        "saved_tokens_estimated": attempt.saved_tokens,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _call_fields(record: CallRecord) -> dict[str, Any]:
    fields = {
        "attempts": len(record.attempts),
        "reasons": list(record.reasons) or None,
        "output_tokens_low": record.usage.low.output_tokens,
        "output_tokens_high": record.usage.high.output_tokens,
        "cost_micro_usd_high": record.cost.high,
        "seconds": round(record.seconds, 3),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _started(r: AttemptStarted) -> tuple[str, str, dict[str, Any]]:
    return "info", "attempt_started", {"attempt": r.attempt, "model": r.model}


def _aborted(r: AttemptAborted) -> tuple[str, str, dict[str, Any]]:
    return "warning", "attempt_aborted", _attempt_fields(r.attempt)


def _scheduled(r: RetryScheduled) -> tuple[str, str, dict[str, Any]]:
    fields = {"attempt": r.attempt, "reason": r.decision.reason, "rule": r.decision.rule, "wait": r.decision.wait}
    return "info", "retry_scheduled", fields


def _gave_up(r: CallGaveUp) -> tuple[str, str, dict[str, Any]]:
    return "error", "gave_up", {"reason": r.reason, **_call_fields(r.record)}


def _completed(r: CallCompleted) -> tuple[str, str, dict[str, Any]]:
    return "info", "completed", {"completed": r.outcome.completed, **_call_fields(r.outcome)}


def _denied(r: BudgetDenied) -> tuple[str, str, dict[str, Any]]:
    return "warning", "budget_denied", {"scope": r.scope, "asked": r.asked, "available": r.available, "unit": r.unit}


_RENDER: dict[type, Any] = {
    AttemptStarted: _started,
    AttemptAborted: _aborted,
    RetryScheduled: _scheduled,
    CallGaveUp: _gave_up,
    CallCompleted: _completed,
    BudgetDenied: _denied,
}
