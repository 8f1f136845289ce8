"""What a guard says: nothing, `Trip` or `Enough`; and the closed set of reasons.

Verdicts are values, never exceptions: a guard has no opinion on what follows from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Completed = Literal["whole", "cut", "enough"]
"""How an answer was accepted: read to its end, stopped when its document closed, or stopped when the named parts
stood."""

REASONS: dict[str, str] = {
    "timeout.connect": "no response head in time",
    "timeout.first_token": "no output in time",
    "timeout.progress": "output stalled, though the connection may be alive",
    "timeout.alive": "no byte arrived in time, not even a keep-alive",
    "timeout.attempt": "one attempt took too long",
    "timeout.total": "the call took too long",
    "timeout.min_rate": "output too slow over a window",
    "cap.output_tokens": "more output tokens than allowed",
    "cap.thinking_tokens": "more thinking tokens than allowed",
    "cap.characters": "more characters than allowed",
    "cap.events": "more events than allowed",
    "cap.tool_calls": "more tool calls than allowed",
    "cap.cost": "costs more than allowed",
    "json.malformed": "no continuation is JSON",
    "json.schema": "no continuation satisfies the schema",
    "json.model": "the type's own validators refuse it",
    "json.ungrounded": "a value that stands nowhere in the source",
    "json.duplicate_name": "a name stands twice in one object",
    "json.fence": "the document stands in a code fence",
    "json.preamble": "text before the document",
    "json.trailing": "text after the document",
    "json.depth": "nested too deeply",
    "json.number": "a number with too many digits",
    "json.size": "the document is larger than allowed",
    "json.incomplete": "the answer ended inside the document",
    "stop.max_tokens": "cut off at max_tokens",
    "stop.refusal": "the model refused",
    "stop.pause": "the provider paused the turn",
    "stop.context_window": "the context window is full",
    "stop.empty": "an answer without content",
    "stop.not_allowed": "a known stop reason that the policy does not accept",
    "stop.unknown": "a stop reason nobody knows, or none",
    "transport.connect": "no connection",
    "transport.pool": "no free connection in the client's own pool",
    "transport.reset": "the connection broke",
    "transport.incomplete": "the stream ended before the message did",
    "transport.decode": "bytes that are no event stream",
    "transport.event_too_large": "one event larger than allowed",
    "provider.overloaded": "the provider is overloaded",
    "provider.rate_limited": "the provider limits the rate",
    "provider.api_error": "the provider failed",
    "provider.timeout": "the provider timed out",
    "provider.invalid_request": "the provider rejects the request",
    "provider.authentication": "the provider rejects the key",
    "provider.permission": "the key may not do this",
    "provider.not_found": "no such model or endpoint",
    "provider.request_too_large": "the request is too large",
    "provider.billing": "the provider's billing refuses",
    "provider.spend_limit": "the provider's spend limit is reached",
    "provider.unknown": "an error of the provider that nobody knows",
    "repetition.whitespace": "a run of whitespace",
    "repetition.loop": "the same text over and over",
    "guard.failed": "a guard of one's own raised",
    "source.error": "the source raised something unexpected",
    "budget.denied": "the budget has no room",
    "budget.unbounded": "the request's cost has no bound",
    "budget.lost": "the ledger was lost while the stream ran",
    "hedge.lost": "another request of the same call was faster",
    "operator.interrupt": "somebody interrupted",
}
"""Every reason this package gives, with what it means. `content.*`, `check.*` and the prefixes of one's own guards come
on top."""

OWN_PREFIXES = ("content.", "check.")
"""Prefixes whose reasons are named by the policy itself."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The place in the stream that a verdict is about. What is unknown or does not apply is `None`."""

    event: int | None = None
    """0-based index of the event, of all events of the attempt, that brought the verdict about."""
    block: int | None = None
    """Index of the content block."""
    offset: int | Literal["eof"] | None = None
    """Byte offset from the document's start, of the UTF-8 text; `eof` if only the end of input decides."""
    char: int | None = None
    """The same, in characters (Unicode code points)."""
    pointer: str | None = None
    """JSON Pointer of the value."""
    keyword: str | None = None
    """The JSON Schema keyword that no continuation can satisfy."""
    schema_pointer: str | None = None
    """JSON Pointer of that keyword in the schema."""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A guard's reason to abort the attempt.

    ```python
    if isinstance(attempt.ended, streamguard.Trip):
        print(attempt.ended.reason, attempt.ended.message, attempt.ended.where)
    ```
    """

    reason: str
    """A key of `REASONS`, or a dotted name under a prefix of your own."""
    message: str
    """One sentence for a person: what was seen, and what would have been right."""
    knob: str | None = None
    """The policy key that decides this, such as `timeouts.progress`."""
    limit: Any = None
    """The knob's value, in the knob's unit."""
    observed: Any = None
    """What was seen instead, in the same unit."""
    at: float | None = None
    """When, on the running backend's clock, in seconds."""
    where: Where | None = None
    estimated: bool = False
    """Whether `observed` is an estimate (tokens and cost before the provider's own count)."""
    guard: str | None = None
    """The name of the guard."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Enough(msgspec.Struct, frozen=True):
    """A guard has what was asked for: the call can complete without paying for the rest."""

    completed: Literal["cut", "enough"]
    length: int | None = None
    """Characters of the document's text that count."""


Verdict = Trip | Enough
"""What a guard may say."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from the end of an attempt, and why.

    ```python
    for attempt in error.attempts:
        if attempt.decision is not None:
            print(attempt.decision.why)  # "all 3 attempts are used (retry.attempts)"
    ```
    """

    action: Literal["retry", "give_up", "accept"]
    """`accept`: the answer is kept, and marked with what is wrong with it."""
    reason: str
    """Why the attempt ended; or what its answer is marked with."""
    why: str
    """The decision in one sentence."""
    rule: int | None = None
    """0-based index of the rule that matched; `None` if none did."""
    wait: float = 0.0
    """Seconds to wait before the next attempt."""
    patch: Mapping[str, Any] | None = None
    """What changes in the original request for the next attempt."""
    hint: str | None = None
    """What the next request says of the last answer, if the rule has a hint."""
    base_url: str | None = None
    """Where the next attempt goes, if not to the source's own endpoint."""
    budget_left: Mapping[str, int] = {}
    """What the call's budgets have left after this attempt, by scope, in the scope's unit (micro-USD or tokens)."""
    retry_after: float | None = None
    """When giving up: in how many seconds to come back, as the provider says, or as the wait that did not fit."""
