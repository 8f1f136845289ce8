"""What a call looks like from outside: the outcome, and the record that errors carry too.

Plain frozen data, made by the engine. Token counts that the provider did not give are intervals and estimates, and the
fields say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Generic, Literal, cast

import msgspec
from typing_extensions import TypeVar

from streamguard.events import Failed
from streamguard.pace.limits import Limits
from streamguard.usage import Unit, UsageRange
from streamguard.verdict import Completed, Decision, Trip

T_co = TypeVar("T_co", default=Any, covariant=True)
"""What an outcome's value is; `Any` where nobody said."""


class Cost(msgspec.Struct, frozen=True):
    """Micro-USD, as an interval; `None` where a price is unknown."""

    low: int | None
    high: int | None

    @property
    def exact(self) -> bool:
        """Whether the cost is known exactly."""
        return self.low is not None and self.low == self.high

    @property
    def usd_low(self) -> Decimal | None:
        """The lower end in US dollars."""
        return None if self.low is None else Decimal(self.low) / 1_000_000

    @property
    def usd_high(self) -> Decimal | None:
        """The upper end in US dollars."""
        return None if self.high is None else Decimal(self.high) / 1_000_000

    def __add__(self, other: Cost) -> Cost:
        return Cost(_sum(self.low, other.low), _sum(self.high, other.high))


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Moments of an attempt, in seconds since it began; `None` for what did not happen."""

    head: float | None = None
    """The response head arrived."""
    first_token: float | None = None
    """The first piece of output arrived."""
    dead: float | None = None
    """The guard tripped."""
    end: float = 0.0
    """The attempt was over, connection closed."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """A trip that was not acted on: its guard is in `mode: observe`."""

    trip: Trip
    characters: int
    """Characters of output the attempt had produced at that point."""
    saved_tokens: int | None = None
    """≈ Output tokens that came after it: what acting on the trip would have saved. Known once the attempt ended."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What one limit of one budget was charged for an attempt, in `unit`."""

    budget: str
    unit: Unit
    held: int
    settled: int
    uncertain: int


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that an attempt waited before it was sent, by what for. A retry rule's own wait is not in them."""

    pace: float = 0.0
    """For its turn in the pace: the provider's limits."""
    cooldown: float = 0.0
    """For the end of a cool-down after a refusal."""
    breaker: float = 0.0
    """For an endpoint that was down."""
    warm_up: float = 0.0
    """For the row that writes the prefix it shares into the provider's cache."""
    budget: float = 0.0
    """For room in budgets, and for their ledgers."""


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, whatever became of it."""

    number: int
    """1-based."""
    patch: Mapping[str, Any] | None = None
    """What was changed in the original request for it."""
    hint: str | None = None
    """What its request said of the answer before, at the end of the last user message."""
    model: str | None = None
    """The model asked for, after the patch."""
    ended: Trip | Failed | None = None
    """Why it was aborted or failed; `None` for the attempt that was accepted."""
    completed: Completed | None = None
    """How it was accepted."""
    stop_reason: str | None = None
    """The provider's."""
    request_id: str | None = None
    """The provider's id of the message or request."""
    text: str = ""
    """The text so far: partial, unless `completed`."""
    value: Any = None
    """As much of the document's value as was finished; see `Outcome.value` for the accepted one."""
    usage: UsageRange
    cost: Cost = Cost(None, None)
    times: Times = Times()
    saved_tokens: int | None = None
    """≈ Output tokens that were not generated because of the abort: an estimate from completed answers of the same
    model in the same runtime; `None` while there are none to estimate from."""
    observed: tuple[Observed, ...] = ()
    """Trips of guards in `mode: observe`: not acted on."""
    marked: tuple[Trip, ...] = ()
    """What is wrong with an answer that a rule with `accept: marked` let pass: the first trip of each such guard."""
    decision: Decision | None = None
    """What followed, for an attempt that was not accepted; why an answer was kept, for one that is marked."""
    charged: tuple[Charge, ...] = ()
    """What each limit of each budget was charged for it."""
    limits: Limits | None = None
    """The rate limits that the provider's answer stated; `None` if it stated none."""
    waited: Waited = Waited()
    """What it waited for before it was sent."""
    hedge: Literal["won", "lost"] | None = None
    """What became of it as a second request beside another one: `won` if its answer was used. `None` for every other
    attempt; the one that a second request was faster than ended as `hedge.lost`."""

    @property
    def reason(self) -> str | None:
        """Why it ended; `None` if it was accepted."""
        return None if self.ended is None else self.ended.reason


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One call: every attempt, and their sums.

    ```python
    try:
        await streamguard.run(source, policy=policy)
    except streamguard.CallError as error:
        record = error.record
    ```
    """

    attempts: tuple[AttemptRecord, ...] = ()
    """In the order in which they ended: the last one decided the call."""
    usage: UsageRange
    """Of all attempts together."""
    cost: Cost = Cost(None, None)
    """Of all attempts together."""
    seconds: float = 0.0
    """From the entry of the call to its end, waiting included."""
    lag: float = 0.0
    """Seconds by which the latest of the call's timers was late: what the event loop was blocked for."""
    labels: Mapping[str, Any] = {}
    group: str | None = None

    @property
    def saved_tokens(self) -> int | None:
        """≈ Output tokens that all aborts together avoided; `None` if unknown for any of them."""
        aborted = [attempt.saved_tokens for attempt in self.attempts if isinstance(attempt.ended, Trip)]
        return None if any(saved is None for saved in aborted) else sum(saved for saved in aborted if saved is not None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the attempts that were not accepted ended, in order."""
        return tuple(attempt.ended.reason for attempt in self.attempts if attempt.ended is not None)


class Outcome(CallRecord, Generic[T_co], frozen=True, kw_only=True):
    """A call that succeeded. `Outcome[Invoice]` has an `Invoice` as its value.

    ```python
    outcome = await streamguard.run(source, policy=policy, output=Invoice)
    print(outcome.value, outcome.usage, outcome.cost)
    ```
    """

    completed: Completed | None
    """`whole`: read to the provider's end and fully checked. `cut`: stopped when the document closed, fully checked.
    `enough`: the named parts are complete and valid, nothing else is claimed. `None`: a guard in `mode: observe` would
    have rejected the answer, so nothing is claimed; see `attempts[-1].observed`."""
    value: T_co = cast("T_co", None)
    """The parsed and checked JSON, or the instance of the type that was asked for; `None` without a `json` section."""
    plain: Any = msgspec.UNSET
    """What `data` gives; unset where `value` is plain JSON data itself."""
    text: str = ""
    """The answer's text; with a document, the document's own text."""
    message: Any = None
    """The provider's own message object."""
    marked: tuple[Trip, ...] = ()
    """What is wrong with the answer: checks that failed and values that stand nowhere in the source, where no further
    attempt was left and the policy keeps such answers (`accept: marked`). Empty for an answer that passed everything.
    `value` and `text` are whole and valid all the same."""

    @property
    def data(self) -> Any:
        """The value as plain JSON data: the same object, unless a type was asked for."""
        return self.value if self.plain is msgspec.UNSET else self.plain
