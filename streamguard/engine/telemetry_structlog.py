"""Records as structlog events: `Runtime(hooks=[structlog_hook()])`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamguard.engine.telemetry import (
    AttemptAborted,
    AttemptStarted,
    BreakerClosed,
    BreakerOpened,
    BreakerProbed,
    BudgetDenied,
    CallCompleted,
    CallGaveUp,
    CallLeft,
    Hedged,
    Hook,
    LimitsSeen,
    Record,
    RetryScheduled,
)
from streamguard.events import Failed
from streamguard.outcome import AttemptRecord, CallRecord

RESERVED = frozenset(
    {"event", "level", "logger", "logger_name", "timestamp", "exc_info", "stack_info", "stack", "exception"}
)
"""Names that mean something to structlog's own processors: a label of such a name is logged as `label_NAME`."""

CONTENT = frozenset({"message", "pointer"})
"""Fields that may quote the answer: a trip's message some of its characters, a pointer names that the model chose."""


def structlog_hook(logger: Any = None, *, content: bool = False) -> Hook:
    """Return a hook that logs each record as one event, named `streamguard.what_happened`, with flat fields.

    Labels are fields too, under their own names; where one is taken, as `label_NAME`.

    ```python
    runtime = streamguard.Runtime(hooks=[streamguard.structlog_hook()])
    ```

    :param logger: a structlog logger; the one named `streamguard` by default.
    :param content: whether to log what may quote the answer: `message` and `pointer` of a trip. Reasons, limits,
        offsets and places in the schema stand in any case.
    """
    import structlog

    log = logger if logger is not None else structlog.get_logger("streamguard")

    def hook(record: Record) -> None:
        if type(record) not in _RENDER:
            return
        level, event, fields = _RENDER[type(record)](record)
        known = {
            "call": record.call,
            "group": record.group,
            **{name: value for name, value in fields.items() if content or name not in CONTENT},
        }
        shown = {name: value for name, value in known.items() if value is not None}
        getattr(log, level)(f"streamguard.{event}", **_labels(record.labels, known), **shown)

    return hook


def _labels(labels: Mapping[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    taken = RESERVED.union(taken)
    return {f"label_{name}" if name in taken else name: value for name, value in labels.items()}


def _attempt_fields(attempt: AttemptRecord) -> dict[str, Any]:
    ended = attempt.ended
    trip = None if isinstance(ended, Failed) else ended
    where = trip.where if trip else None
    return {
        "attempt": attempt.number,
        "reason": attempt.reason,
        "knob": trip.knob if trip else None,
        "limit": trip.limit if trip else None,
        "status": ended.status if isinstance(ended, Failed) else None,
        "request_id": attempt.request_id,
        "offset": where.offset if where else None,
        "pointer": (where.pointer or None) if where else None,
        "keyword": where.keyword if where else None,
        "schema_pointer": where.schema_pointer if where else None,
        "observed": [seen.trip.reason for seen in attempt.observed] or None,
        "seconds": round(attempt.times.end, 3),
        "saved_tokens_estimated": attempt.saved_tokens,
        "message": ended.message if ended else None,
    }


def _call_fields(record: CallRecord) -> dict[str, Any]:
    return {
        "attempts": len(record.attempts),
        "reasons": list(record.reasons) or None,
        "output_tokens_low": record.usage.low.output_tokens,
        "output_tokens_high": record.usage.high.output_tokens,
        "cost_micro_usd_high": record.cost.high,
        "seconds": round(record.seconds, 3),
    }


def _started(r: AttemptStarted) -> tuple[str, str, dict[str, Any]]:
    return "info", "attempt_started", {"attempt": r.attempt, "model": r.model}


def _limits(r: LimitsSeen) -> tuple[str, str, dict[str, Any]]:
    stated = {f"{name}_{word}": getattr(limit, word) for name, limit in r.limits for word in ("per_minute", "left")}
    return "debug", "limits_seen", {"attempt": r.attempt, "model": r.model, "reason": r.reason, **stated}


def _aborted(r: AttemptAborted) -> tuple[str, str, dict[str, Any]]:
    return "warning", "attempt_aborted", _attempt_fields(r.attempt)


def _scheduled(r: RetryScheduled) -> tuple[str, str, dict[str, Any]]:
    decision = r.decision
    fields = {"attempt": r.attempt, "reason": decision.reason, "rule": decision.rule, "wait": decision.wait}
    return "info", "retry_scheduled", {**fields, "hint": decision.hint}


def _gave_up(r: CallGaveUp) -> tuple[str, str, dict[str, Any]]:
    return "error", "gave_up", {"reason": r.reason, **_call_fields(r.record), "message": r.message}


def _left(r: CallLeft) -> tuple[str, str, dict[str, Any]]:
    return "info", "left", _call_fields(r.record)


def _completed(r: CallCompleted) -> tuple[str, str, dict[str, Any]]:
    observed = [seen.trip.reason for attempt in r.outcome.attempts[-1:] for seen in attempt.observed]
    return (
        "info",
        "completed",
        {
            "completed": r.outcome.completed,
            **_call_fields(r.outcome),
            "observed": observed or None,
            "marked": [trip.reason for trip in r.outcome.marked] or None,
        },
    )


def _denied(r: BudgetDenied) -> tuple[str, str, dict[str, Any]]:
    return "warning", "budget_denied", {"scope": r.scope, "asked": r.asked, "available": r.available, "unit": r.unit}


def _hedged(r: Hedged) -> tuple[str, str, dict[str, Any]]:
    return "info", "hedged", {"attempt": r.attempt, "result": r.result, "after": round(r.after, 3)}


def _opened(r: BreakerOpened) -> tuple[str, str, dict[str, Any]]:
    place = {"model": r.model, "base_url": r.base_url}
    return "warning", "breaker_opened", {**place, "reason": r.reason, "next_look": r.next_look}


def _probed(r: BreakerProbed) -> tuple[str, str, dict[str, Any]]:
    place = {"model": r.model, "base_url": r.base_url}
    return "info", "breaker_probed", {**place, "number": r.number, "seconds": round(r.seconds, 3)}


def _closed(r: BreakerClosed) -> tuple[str, str, dict[str, Any]]:
    return "info", "breaker_closed", {"model": r.model, "base_url": r.base_url, "seconds": round(r.seconds, 3)}


_RENDER: dict[type, Any] = {
    AttemptStarted: _started,
    LimitsSeen: _limits,
    Hedged: _hedged,
    BreakerOpened: _opened,
    BreakerProbed: _probed,
    BreakerClosed: _closed,
    AttemptAborted: _aborted,
    RetryScheduled: _scheduled,
    CallGaveUp: _gave_up,
    CallCompleted: _completed,
    CallLeft: _left,
    BudgetDenied: _denied,
}
