"""How a call that ended without an outcome is told to a client: status, type, headers and body, by its reason.

Plain data and pure functions. An error of the provider's keeps its own status and body as long as nothing was sent;
everything else is in the provider's form, with the reason in `error.details.streamguard`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from streamguard.adapters.anthropic.failures import TYPES as PROVIDER_TYPES
from streamguard.errors import CallError, ConfigError, GaveUp
from streamguard.events import Failed
from streamguard.http.refusals import TYPES, error_body
from streamguard.retry.rules import NEVER_RETRIED
from streamguard.verdict import REASONS

STATUSES: Final[Mapping[str, int]] = {
    "timeout": 504,
    "transport": 502,
    "cap": 502,
    "json": 502,
    "stop": 502,
    "repetition": 502,
    "content": 502,
    "guard": 500,
    "source": 500,
    "provider": 502,
    "provider.overloaded": 529,
    "provider.rate_limited": 429,
    "provider.timeout": 504,
    "provider.invalid_request": 400,
    "provider.authentication": 401,
    "provider.permission": 403,
    "provider.not_found": 404,
    "provider.request_too_large": 413,
    "provider.billing": 402,
    "provider.spend_limit": 402,
    "budget.denied": 402,
    "budget.unbounded": 400,
    "budget.lost": 503,
    "operator.interrupt": 503,
}
"""Reason, or the first word of one, → status. An answer that a guard rejected is a bad answer from upstream: 502."""

RETRIED: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which clients ask again by themselves."""

_OWN_TYPES: Final = {reason: kind for kind, reason in PROVIDER_TYPES.items() if kind in TYPES.values()}
"""Reason → the provider's own type of error. Other servers' words for the same are not spoken here."""


def status_of(reason: str) -> int:
    """The status of a call that ended for a reason."""
    return STATUSES.get(reason) or STATUSES.get(reason.partition(".")[0], 502)


def type_of(reason: str) -> str:
    """The type of error, in the provider's words."""
    return _OWN_TYPES.get(reason) or TYPES[status_of(reason)]


def details(error: CallError, call: str) -> dict[str, Any]:
    """What stands in `error.details.streamguard`."""
    attempts = error.attempts
    last = attempts[-1].ended if attempts else None
    found: dict[str, Any] = {
        "reason": error.reason,
        "what": REASONS.get(error.reason),
        "call": call,
        "attempts": len(attempts),
        "reasons": list(error.record.reasons),
    }
    if last is not None and not isinstance(last, Failed):
        where = last.where
        found |= {
            "knob": last.knob,
            "limit": _json_value(last.limit),
            "observed": _json_value(last.observed),
            "offset": where.offset if where else None,
            "pointer": where.pointer if where else None,
        }
    return {name: value for name, value in found.items() if value is not None}


def _json_value(value: Any) -> Any:
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)[:200]


def body_of(error: CallError, call: str) -> bytes:
    """The error as a JSON body, and as the data of an `error` event."""
    last = error.attempts[-1].ended if error.attempts else None
    provider = last if isinstance(last, Failed) and last.type is not None else None
    kind = provider.type if provider is not None and provider.type is not None else type_of(error.reason)
    message = provider.message if provider is not None else str(error)
    request_id = next((one.request_id for one in reversed(error.attempts) if one.request_id), None)
    return error_body(kind, message, details(error, call), request_id)


def event_of(body: bytes) -> bytes:
    """An `error` event."""
    return b"event: error\ndata: " + body + b"\n\n"


def final_status(status: int, configured: int | None) -> int:
    """Return the status of a failure that must not be asked again for: `configured`, if clients would after `status`.

    The Anthropic and OpenAI SDKs, the AI SDK and n8n ask again after these; only the first obey `x-should-retry`.
    """
    return configured if configured is not None and (status in RETRIED or status >= 500) else status


def retry_headers(error: CallError, *, policy_retries: bool) -> dict[str, str]:
    """What a client should do about it.

    A client that retries by itself multiplies requests; where the policy has tried already, or nothing can be won by
    asking again, the SDKs are told so (`x-should-retry`).
    """
    headers: dict[str, str] = {}
    hopeless = error.reason.startswith(tuple(pattern.rstrip("*") for pattern in NEVER_RETRIED))
    if policy_retries or hopeless or not error.reason.startswith(("provider.", "transport.")):
        headers["x-should-retry"] = "false"
    if isinstance(error, GaveUp) and error.retry_at is not None:
        seconds = (error.retry_at - datetime.now(UTC)).total_seconds()
        headers["retry-after"] = str(max(0, math.ceil(seconds)))
    return headers


def config_body(error: ConfigError | ValueError) -> bytes:
    """A policy that does not fit this request: nothing was sent."""
    return error_body("invalid_request_error", str(error), {"reason": "policy"})
