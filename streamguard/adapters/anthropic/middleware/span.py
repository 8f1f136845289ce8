"""The SDK's OpenTelemetry span of a call, and what a guard knows about it.

In charge of three facts on that span: how many attempts there were, which of them were aborted and why, and why the
call was given up. It makes no span of its own, and touches no other: where the SDK traces nothing, nothing is done.
"""

from __future__ import annotations

from typing import Any, Final

from streamguard.outcome import CallRecord

SCOPE: Final = "com.anthropic.sdk.python"
"""The name under which the SDK makes spans."""


def current() -> Any:
    """The span of the call that is being made; `None` if the SDK made none."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    span = trace.get_current_span()
    scope = getattr(span, "instrumentation_scope", None)
    return span if span.is_recording() and getattr(scope, "name", None) == SCOPE else None


def noted(span: Any, record: CallRecord, reason: str | None = None) -> None:
    """Write on the span what became of the call.

    :param reason: why it was given up; `None` if it was not.
    """
    if span is None or not span.is_recording():
        return
    for attempt in record.attempts:
        if attempt.ended is not None:
            facts = {"streamguard.attempt": attempt.number, "streamguard.reason": attempt.ended.reason}
            span.add_event("streamguard.attempt_aborted", facts)
    span.set_attribute("streamguard.attempts", len(record.attempts))
    if reason is not None:
        span.set_attribute("streamguard.reason", reason)
