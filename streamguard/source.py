"""What can be asked, again and again, from scratch: `Source`, and one open attempt of it: `EventStream`.

Adapters implement these two; the engine knows nothing else of the outside. A source maps what it can name to a
`Failed` event: inside a stream as the last event of a batch, before the stream as a raised `SourceFailed`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
from typing_extensions import TypeVar

from streamguard.errors import PolicyError
from streamguard.events import Event, Failed
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.model import Deliver, Policy
from streamguard.request import Request
from streamguard.verdict import Trip

T_co = TypeVar("T_co", default=Any, covariant=True)

CLOSE_LIMIT = 0.05
"""Seconds that closing a connection may take, everything in it. A call returns at most 0.1 s after its deadline."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine asks a source for."""

    number: int
    """1-based."""
    request: Request | None
    """The request as patched for this attempt; `None` for an opaque source."""
    deadline: float
    """When the call ends at the latest, on the running backend's clock; `inf` for never."""
    connect: float | None = None
    """Seconds to connect, for sources that say `times_connection`: they end the attempt by it themselves, with
    `connect_failed`. `None` for no limit."""
    base_url: str | None = None
    """Another endpoint than the source's own, by the rule that matched; a source that has none to choose refuses it."""


class EventStream(Protocol):
    """One open attempt. The response head has arrived (or there is none to wait for)."""

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        """Batches: the events that one socket read completed; empty if it completed none (bytes, not an event).

        A read that is cancelled ends the iteration: the engine cancels one only to abort. Iteration may go on after
        `Stopped` until the socket ends, which keeps the connection for reuse.
        """

    def message(self) -> Any:
        """The provider's own message, assembled from raw frames; `None` if the source has no such form."""


class Source(Protocol):
    """A request that can be sent again and again, from scratch.

    ```python
    source = streamguard.messages(client, model="claude-haiku-4-5", max_tokens=1024, messages=chat)
    ```
    """

    @property
    def request(self) -> Request | None:
        """The request as the caller made it; `None` = opaque: patches, budgets and `schema: request` are refused."""

    @property
    def sees_bytes(self) -> bool:
        """Whether batches come for any byte, pings and comments included (needed by the `alive` clock)."""

    def open(self, attempt: Attempt) -> AbstractAsyncContextManager[EventStream]:
        """Send the attempt's request and wait for the response head. Leaving the context closes the connection, and
        may take `CLOSE_LIMIT`: then it is cancelled. A source that shields its closing bounds it by that itself.

        With `hedge`, two attempts of a call are open at once, and a context may be left by another task than entered
        it. A source that keeps one answer at a time says so by `one_at_a_time = True`.

        :param attempt: what this attempt asks for: its number, and the patch of a rule.
        :returns: the attempt's stream, to be entered once.
        """


class SourceOf(Source, Protocol[T_co]):
    """A source that knows the type of its answers."""

    @property
    def output(self) -> type[T_co] | None:
        """The type of the answer's document; `None` for plain JSON data."""


class SourceFailed(Exception):
    """Raised by a source that could not open, or broke inside a stream; the engine makes an attempt's end of it."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class MessageRefused(Exception):
    """Raised by whoever has the last word on an assembled message; the engine makes the attempt's end of it."""

    def __init__(self, trip: Trip) -> None:
        super().__init__(trip.message)
        self.trip = trip


NO_CONTINUING = (
    "retry.rules: resume: continue joins two answers, and a stream that is handed on as it came has the frames of one: "
    "use run(), stream(), or a call without stream"
)
"""Why an answer cannot be continued at some doors."""


def continues(policy: Policy) -> bool:
    """Return whether a rule continues an answer that was cut."""
    return any(rule.resume == "continue" for rule in policy.retry.rules)


def _check_hedge(source: Source, policy: Policy, deliver: Deliver) -> None:
    if deliver == "live":
        raise PolicyError("hedge: a second request needs deliver: committed or restarting; with live it is too late")
    if policy.retry.attempts == 1:
        raise PolicyError("hedge: a second request is an attempt, and retry.attempts is 1: allow 2 or more")
    if getattr(source, "one_at_a_time", False):
        raise PolicyError(
            "hedge: this source keeps one answer at a time, so it cannot be asked twice at once: use run(), stream() "
            "or a job, or hedge: null here"
        )


def check_source(source: Source, policy: Policy, deliver: Deliver = "committed") -> None:
    """Refuse what a policy asks for and a source cannot give.

    :param deliver: when output reaches the consumer of the call.
    :raises PolicyError: naming the knob.
    """
    if policy.hedge is not None:
        _check_hedge(source, policy, deliver)
    if not source.sees_bytes and policy.timeouts.alive not in (None, Timeouts().alive):
        raise PolicyError(
            "timeouts.alive: this source does not show pings, so the clock would trip on healthy silence; "
            "set timeouts.alive to null, or use messages(client, …), which reads the wire itself"
        )
    if continues(policy) and getattr(source, "shows_frames", False):
        raise PolicyError(NO_CONTINUING)
    if source.request is None:
        patched = [i for i, rule in enumerate(policy.retry.rules) if rule.patch]
        needs = [
            *(f"retry.rules[{i}].patch" for i in patched[:1]),
            *[f"retry.rules[{i}].hint" for i, rule in enumerate(policy.retry.rules) if rule.hint][:1],
            *(["budgets"] if policy.budgets else []),
            *(["hedge"] if policy.hedge else []),
            *(["json.schema: request"] if policy.json_document and policy.json_document.schema_ == "request" else []),
        ]
        if needs:
            raise PolicyError(f"{needs[0]} needs a source that shows its request; this one has none")
