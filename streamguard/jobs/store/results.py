"""Result lines: what came of a row → one line of JSON, in the shape of a Message Batch's results and a bit more.

In charge of the shape alone; where lines go is `output`'s business. `result` is what readers of batch results know;
everything else stands under `streamguard`. Tokens and cost are intervals `[low, high]`, `null` where nothing is known.

A line is ASCII, so that nothing in it can end it early or move a terminal's cursor, and so that lone surrogates, which
JSON can say and UTF-8 cannot, survive.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from streamguard.errors import CallError, Interrupted
from streamguard.events import COUNTS, Failed
from streamguard.jobs.store.resume import POISON
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome
from streamguard.verdict import Decision, Trip


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a job adds to each of its lines."""

    policy: str
    """The policy's name, as the job was given it."""
    partials: bool = False
    """Whether the text of attempts that were not accepted is written out."""
    message: bool = True
    """Whether the provider's whole message is written out."""
    text: bool = False
    """Whether an answer without a document is written as its text."""
    batch: str | None = None
    """The provider's id of the batch that the answer came in; `None` for a call."""


def result_line(custom_id: str, came: Outcome | CallError, about: About, fingerprint: str) -> bytes:
    """The line for a row, with its line end.

    :param fingerprint: of what was asked, so that a later run can tell whether this result answers its question.
    """
    record = came.record if isinstance(came, CallError) else came
    own = {
        **_accepted(came, about),
        **_marked_with(came),
        "attempts": [_attempt(attempt, about) for attempt in record.attempts],
        "reasons": list(record.reasons),
        "usage": _usage(record),
        "cost_usd": _cost(record.cost),
        "saved_tokens": record.saved_tokens,
        "ms": round(record.seconds * 1000),
        "policy": about.policy,
        "fingerprint": fingerprint,
        **({} if about.batch is None else {"batch": about.batch}),
    }
    line = {"custom_id": custom_id, "result": _result(came, about), "streamguard": own}
    return dumps(line).encode("ascii") + b"\n"


def poison_line(custom_id: str, deaths: int, fingerprint: str, *, again: str = "streamguard retry") -> bytes:
    """The line for a row that is not asked any more, because the process died whenever it was under way.

    :param again: what a person does to have it asked again.
    """
    why = f"not asked: the process died {deaths} times while this row was under way; to ask it again: {again}"
    error = {"type": "error", "error": {"type": POISON, "message": why}}
    own: dict[str, Any] = {"output": None, "completed": None, "attempts": [], "reasons": [], "fingerprint": fingerprint}
    line = {"custom_id": custom_id, "result": {"type": "errored", "error": error}, "streamguard": own}
    return dumps(line).encode("ascii") + b"\n"


def outcome_of(came: Outcome | CallError) -> tuple[str, str | None]:
    """The result's type, and the reason of one that failed."""
    if isinstance(came, Outcome):
        return "succeeded", None
    return ("canceled", None) if isinstance(came, Interrupted) else ("errored", came.reason)


def _accepted(came: Outcome | CallError, about: About) -> dict[str, Any]:
    if isinstance(came, CallError):
        return {"output": None, "completed": None}
    return {"output": came.text if about.text else came.data, "completed": came.completed}


def _marked_with(came: Outcome | CallError) -> dict[str, Any]:
    """What is wrong with an answer that was kept all the same."""
    if isinstance(came, CallError) or not came.marked:
        return {}
    return {"marked": [_mark(trip) for trip in came.marked]}


def _mark(trip: Trip) -> dict[str, Any]:
    return {"reason": trip.reason, "message": trip.message, "pointer": trip.where.pointer if trip.where else None}


def _result(came: Outcome | CallError, about: About) -> dict[str, Any]:
    if isinstance(came, Outcome) and not about.message:
        return {"type": "succeeded"}
    if isinstance(came, Outcome):
        return {"type": "succeeded", "message": _message(came.message)}
    if isinstance(came, Interrupted):
        return {"type": "canceled"}
    # The batch API's ErrorResponse; its readers look at error.error.type.
    return {"type": "errored", "error": {"type": "error", "error": {"type": came.reason, "message": str(came)}}}


def _message(message: Any) -> Any:
    """The provider's message as JSON, if the source has one."""
    dump = getattr(message, "model_dump", None)
    return message if dump is None else dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)


def _attempt(attempt: AttemptRecord, about: About) -> dict[str, Any]:
    ended, times = attempt.ended, attempt.times
    trip = ended if isinstance(ended, Trip) else None
    failed = ended if isinstance(ended, Failed) else None
    where = trip.where if trip else None
    text = {"text": attempt.text} if about.partials and attempt.completed is None else {}
    return {
        "number": attempt.number,
        "model": attempt.model,
        "patch": None if attempt.patch is None else dict(attempt.patch),
        "completed": attempt.completed,
        "reason": attempt.reason,
        "message": ended.message if ended else None,
        "knob": trip.knob if trip else None,
        "limit": _as_json(trip.limit) if trip else None,
        "observed": _as_json(trip.observed) if trip else None,
        "offset": where.offset if where else None,
        "pointer": where.pointer if where else None,
        "keyword": where.keyword if where else None,
        "status": failed.status if failed else None,
        "stop_reason": attempt.stop_reason,
        "request_id": attempt.request_id,
        "output_tokens": [attempt.usage.low.output_tokens, attempt.usage.high.output_tokens],
        "saved_tokens": attempt.saved_tokens,
        "cost_usd": _cost(attempt.cost),
        "first_token_seconds": _seconds(times.first_token),
        "seconds": _seconds(times.end),
        "decision": _decision(attempt.decision),
        **({} if attempt.hint is None else {"hint": attempt.hint}),
        **text,
    }


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    """What followed from an attempt that was not accepted."""
    if decision is None:
        return None
    where = {} if decision.base_url is None else {"base_url": decision.base_url}
    return {
        "action": decision.action,
        "rule": decision.rule,
        "wait_seconds": _seconds(decision.wait),
        "patch": None if decision.patch is None else dict(decision.patch),
        "why": decision.why,
        **({} if decision.hint is None else {"hint": decision.hint}),
        **where,
    }


def _as_json(value: Any) -> Any:
    """A limit or what was observed, as JSON: numbers and texts as they are, anything else in words."""
    return value if isinstance(value, int | float | str | None) else str(value)


def _usage(record: CallRecord) -> dict[str, Any]:
    low, high = record.usage.low, record.usage.high
    counts = {name: [getattr(low, name), getattr(high, name)] for name in COUNTS}
    known = {name: pair for name, pair in counts.items() if pair != [None, None] or name in _ALWAYS}
    return {**known, "exact": record.usage.exact}


_ALWAYS = ("input_tokens", "output_tokens")


def _cost(cost: Cost) -> list[float | None] | None:
    """US dollars, exact to the micro-dollar; `None` without a price."""
    if cost.low is None and cost.high is None:
        return None
    return [None if micro is None else micro / 1_000_000 for micro in (cost.low, cost.high)]


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def dumps(value: Any) -> str:
    """One line of strict JSON, in ASCII.

    A number too large for a float, which JSON can say and Python reads as infinity, is written as one that reads the
    same (`1e999`), since `Infinity` is no JSON.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        mark = secrets.token_hex(16)
        text = json.dumps(_with_infinities(value, mark), separators=(",", ":"), allow_nan=False)
        return text.replace(f'"{mark}+"', "1e999").replace(f'"{mark}-"', "-1e999")


def _with_infinities(value: Any, mark: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else mark + ("+" if value > 0 else "-")
    if isinstance(value, Mapping):
        return {key: _with_infinities(item, mark) for key, item in value.items()}
    return [_with_infinities(item, mark) for item in value] if isinstance(value, list | tuple) else value
