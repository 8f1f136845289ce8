"""What happened, as frozen records for hooks. No content of any answer is in them but what a trip's message quotes.

A hook is a callable that takes one record. It runs inside the call, between events, so it must not block. An
exception in a hook never changes a call's result: it is logged by the standard library's `streamguard` logger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from streamguard.outcome import AttemptRecord, CallRecord, Outcome
from streamguard.verdict import Decision

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


Hook = Callable[[Any], None]
"""Takes one record; see the module."""


def emit(hooks: Iterable[Hook], record: Record) -> None:
    """Hand a record to every hook."""
    for hook in hooks:
        try:
            hook(record)
        except Exception:
            _log.exception("the hook %r failed on a %s", hook, type(record).__name__)
