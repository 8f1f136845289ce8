"""What happened, as frozen records for hooks.

The records hold content: the text and the value of attempts (`attempt.text`, `attempt.value`), and the outcome with its
value and message. Whoever sends records to where content may not go takes `without_content(record)`. The structlog hook
logs no content by itself.

A hook is a callable that takes one record. It runs inside the call, between events, so it must not block. An
exception in a hook never changes a call's result: it is logged by the standard library's `streamguard` logger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from streamguard.outcome import AttemptRecord, CallRecord, Outcome
from streamguard.pace.limits import Limits
from streamguard.verdict import REASONS, Decision, Trip

_log = logging.getLogger("streamguard")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all records have."""

    call: str
    """The call's id, unique in its process."""
    labels: Mapping[str, Any] = {}
    group: str | None = None


class AttemptStarted(Record, frozen=True, kw_only=True):
    """A request is about to be sent."""

    attempt: int
    model: str | None


class LimitsSeen(Record, frozen=True, kw_only=True):
    """The head of a response stated the provider's rate limits."""

    attempt: int
    model: str | None
    sent: float
    """When the request was sent, in seconds on the running backend's clock."""
    at: float
    """When the head came, on the same clock."""
    reason: str | None = None
    """Why the provider refused the request, if it did."""
    limits: Limits


class AttemptAborted(Record, frozen=True, kw_only=True):
    """An attempt tripped or failed; its connection is closed."""

    attempt: AttemptRecord


class RetryScheduled(Record, frozen=True, kw_only=True):
    """The policy asks again."""

    attempt: int
    """The number of the attempt to come."""
    decision: Decision


class CallGaveUp(Record, frozen=True, kw_only=True):
    """The call ended without an outcome."""

    reason: str
    message: str
    record: CallRecord


class CallCompleted(Record, frozen=True, kw_only=True):
    """The call has its outcome."""

    outcome: Outcome


class CallLeft(Record, frozen=True, kw_only=True):
    """The consumer left before the call was over: it broke out, raised or was cancelled. Nothing is claimed."""

    record: CallRecord


class BudgetDenied(Record, frozen=True, kw_only=True):
    """A budget has no room; the request was not sent."""

    scope: str
    asked: int
    available: int | None
    unit: str


class Hedged(Record, frozen=True, kw_only=True):
    """A second request was sent beside the first, and one of the two is over."""

    attempt: int
    """The number of the second request."""
    result: Literal["won", "lost"]
    """Whether its answer was used."""
    after: float
    """Seconds from the first request to the second."""


class BreakerOpened(Record, frozen=True, kw_only=True):
    """An endpoint counts as down: nothing is sent there but one request at a time that looks."""

    model: str | None
    base_url: str | None
    """`None` for the source's own."""
    reason: str
    """Of the attempt that opened the breaker."""
    next_look: float
    """Seconds until the first look."""


class BreakerProbed(Record, frozen=True, kw_only=True):
    """A request is about to be sent that looks whether an endpoint is back."""

    model: str | None
    base_url: str | None
    number: int
    """The look's number, from 1."""
    seconds: float
    """Since the breaker opened."""


class BreakerClosed(Record, frozen=True, kw_only=True):
    """An endpoint that was down answers again."""

    model: str | None
    base_url: str | None
    seconds: float
    """Since the breaker opened."""


def without_content(record: Record) -> Record:
    """Return a record without what an answer said: no text, value or message, no words and pointers of a trip.

    Reasons, places as numbers, limits, tokens, money, times and labels stay.
    """
    replace = msgspec.structs.replace
    if isinstance(record, AttemptAborted):
        return replace(record, attempt=_bare_attempt(record.attempt))
    if isinstance(record, CallCompleted):
        bare = {"value": None, "plain": msgspec.UNSET, "text": "", "message": None}
        return replace(record, outcome=replace(_bare_call(record.outcome), **bare))
    if isinstance(record, CallGaveUp):
        return replace(record, message=REASONS.get(record.reason, record.reason), record=_bare_call(record.record))
    return replace(record, record=_bare_call(record.record)) if isinstance(record, CallLeft) else record


R = TypeVar("R", bound=CallRecord)


def _bare_call(record: R) -> R:
    return msgspec.structs.replace(record, attempts=tuple(map(_bare_attempt, record.attempts)))


def _bare_attempt(attempt: AttemptRecord) -> AttemptRecord:
    observed = tuple(msgspec.structs.replace(seen, trip=_bare_trip(seen.trip)) for seen in attempt.observed)
    ended = attempt.ended
    if isinstance(ended, Trip):
        ended = _bare_trip(ended)
    return msgspec.structs.replace(attempt, text="", value=None, ended=ended, observed=observed)


def _bare_trip(trip: Trip) -> Trip:
    where = None if trip.where is None else msgspec.structs.replace(trip.where, pointer=None)
    said = REASONS.get(trip.reason, trip.reason)
    return msgspec.structs.replace(trip, message=said, where=where, observed=_number(trip.observed))


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else None


Hook = Callable[[Any], None]
"""Takes one record; see the module."""


def emit(hooks: Iterable[Hook], record: Record) -> None:
    """Hand a record to every hook."""
    for hook in hooks:
        try:
            hook(record)
        except Exception:
            _log.exception("the hook %r failed on a %s", hook, type(record).__name__)
