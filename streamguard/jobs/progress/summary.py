"""What became of a job, in numbers: `Tally` counts while it runs, `Summary` is what it came to.

Plain data; how it is shown is `progress`'s and the command's business. Estimates are intervals, unknown is `None` and
is counted, never zero.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from streamguard.engine.telemetry import AttemptAborted, AttemptStarted, CallCompleted, LimitsSeen, RetryScheduled
from streamguard.jobs.asking import Ended
from streamguard.jobs.report.limits_seen import LimitsLog
from streamguard.outcome import AttemptRecord
from streamguard.pace.pace import PaceView
from streamguard.retry.breaker import BreakerView

LAST_ROWS = 0.75
"""Of the slowest row's time: what the last rows take once no other is left to begin, on average."""

RECENT = 256
"""Rows, and first tokens, that the live figures are made of."""


KEPT = 4096
"""Values that quantiles are made of: exact up to that many, and beyond it of a fair sample, to within 2 % of the
ranks."""


class Reservoir(Sequence[float]):
    """A fair sample of any number of values, in bounded memory (Vitter's algorithm R)."""

    def __init__(self, most: int = KEPT) -> None:
        self._values: list[float] = []
        self._most = most
        self._seen = 0
        self._dice = random.Random(0)  # noqa: S311  no secret: the same values give the same sample

    def append(self, value: float) -> None:
        """One more."""
        self._seen += 1
        if len(self._values) < self._most:
            self._values.append(value)
        elif (place := self._dice.randrange(self._seen)) < self._most:
            self._values[place] = value

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __iter__(self) -> Iterator[float]:
        return iter(self._values)


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier runs of the job left."""

    runs: int = 0
    cost: tuple[int, int | None] = (0, 0)
    """Micro-USD, as an interval, of what they asked; without an upper end if some of it is unknown."""
    failed: Mapping[str, int] = {}
    """Rows that failed and are not asked again, by reason."""
    left_out: int = 0
    """Rows that this run was told not to ask."""


class BudgetState(msgspec.Struct, frozen=True):
    """A budget of the job, as its ledger has it."""

    name: str
    unit: str
    """`micro_usd` or `tokens`."""
    spent: int
    """With what is held or uncertain."""
    cap: int


class BatchProgress(msgspec.Struct, frozen=True):
    """What is in batches whose results are still to come."""

    batches: int
    rows: int


class Example(msgspec.Struct, frozen=True):
    """A row that failed or is marked, as an example of its reason."""

    custom_id: str
    message: str
    """What was wrong, with the provider's own words."""


class Interval(msgspec.Struct):
    """A sum of intervals. What is unknown is counted apart."""

    low: int = 0
    high: int | None = 0
    """`None` as soon as one has no upper end."""
    known: int = 0
    unknown: int = 0

    def add(self, low: int | None, high: int | None) -> None:
        """One more."""
        if low is None:
            self.unknown += 1
            return
        self.known += 1
        self.low += low
        self.high = None if high is None or self.high is None else self.high + high

    @property
    def pair(self) -> tuple[int, int | None] | None:
        """`[low, high]`; with unknown parts there is no upper end, and if nothing is known, nothing."""
        if self.unknown and not self.known:
            return None
        return self.low, None if self.unknown else self.high


class Tally:
    """The counts so far. Used on one event loop.

    :param rows: of the input.
    :param kept: rows of them that had succeeded before.
    :param clock: the running backend's; seconds.
    :param carried: what earlier runs left.
    """

    def __init__(self, rows: int, kept: int, clock: Callable[[], float], *, carried: Carried | None = None) -> None:
        self.rows = rows
        self.kept = kept
        self.carried = carried or Carried()
        self.budget: BudgetState | None = None
        """The budget that is nearest to its end, as far as somebody looked."""
        self.clock = clock
        self.start = clock()
        self.running = 0
        self.succeeded: Counter[str] = Counter()
        """By how the answer was accepted: `whole`, `cut`, `enough`, `marked` (kept, though something is wrong with it),
        or `unclaimed` (a guard that only observes would have rejected it)."""
        self.marked: Counter[str] = Counter()
        """Marked answers by the first reason that each is marked with."""
        self.failed: Counter[str] = Counter()
        """By reason."""
        self.examples: dict[str, Example] = {}
        """One row for each reason: the first."""
        self.canceled = 0
        self.attempts = 0
        self.retries: Counter[str] = Counter()
        """By the reason of the attempt that was not good enough."""
        self.output_tokens = Interval()
        self.cost = Interval()
        """Micro-USD, by row."""
        self.saved_tokens = Interval()
        """≈, by row with an abort."""
        self.lag = 0.0
        """Seconds by which the latest timer of any call was late."""
        self.first_tokens = Reservoir()
        self.row_seconds = Reservoir()
        self.recent_first_tokens: deque[float] = deque(maxlen=RECENT)
        self.cooling: Callable[[], float] = lambda: 0.0
        """Seconds for which nothing is sent after refusals; set by whoever has the runtime."""
        self.down: BreakerView | None = None
        """What is down for the longest, if rows are held for it; as of the runner's last look."""
        self.endpoint: str | None = None
        """The URL that is asked."""
        self.outages = 0
        self.outage_seconds = 0.0
        self.paces: Callable[[], Mapping[str, PaceView]] = dict
        """What each pace comes to, by its pool of models; set by whoever has the runtime."""
        self.batches: BatchProgress | None = None
        """What is in batches whose results are still to come; `None` for nothing."""
        self.waited = 0.0
        """Seconds that rows waited for the provider's limits, all together."""
        self.limits = LimitsLog()
        """What answers stated of the provider's rate limits."""
        self._ends: deque[tuple[float, int]] = deque(maxlen=RECENT)
        """When rows ended, and their output tokens, at the most."""

    # What happens

    def hook(self, record: Any) -> None:
        """For `Runtime(hooks=…)`: what happens inside of calls."""
        if isinstance(record, AttemptStarted):
            self.attempts += 1
        elif isinstance(record, RetryScheduled):
            self.retries[record.decision.reason] += 1
        elif isinstance(record, LimitsSeen):
            self.limits.take(record, self.start)
        elif isinstance(record, AttemptAborted):
            self._attempt(record.attempt)
        elif isinstance(record, CallCompleted):
            self._attempt(record.outcome.attempts[-1])

    def _attempt(self, attempt: AttemptRecord) -> None:
        self.waited += attempt.waited.pace
        if attempt.times.first_token is not None:
            self.first_tokens.append(attempt.times.first_token)
            self.recent_first_tokens.append(attempt.times.first_token)

    def looked(self, down: BreakerView | None, seconds: float) -> None:
        """The runner looked whether rows are held.

        :param down: what is down for the longest.
        :param seconds: since its last look.
        """
        if down is not None:
            self.outages += self.down is None
            self.outage_seconds += seconds
        self.down = down

    def happened(self, attempts: int, retries: Mapping[str, int], first_tokens: Sequence[float]) -> None:
        """The same of calls in another process, some at a time."""
        self.attempts += attempts
        self.retries.update(retries)
        for seconds in first_tokens:
            self.first_tokens.append(seconds)
            self.recent_first_tokens.append(seconds)

    def lost(self) -> None:
        """A row's process died: what it took is unknown. The row still runs."""
        self.output_tokens.add(None, None)
        self.cost.add(None, None)

    def returned(self, came: Ended) -> None:
        """A row's answer in a batch was no good: it is asked again."""
        self.attempts += came.spent.attempts
        self.retries[came.reason or "unknown"] += 1
        self.output_tokens.add(*came.spent.tokens)
        self.cost.add(*came.spent.cost)

    def began(self) -> None:
        """A row was taken up."""
        self.running += 1

    def put_back(self) -> None:
        """A row that was taken up was not asked for after all."""
        self.running -= 1

    def took(self, key: str, came: Ended) -> None:
        """A row ended."""
        self.running -= 1
        if came.type == "succeeded":
            self.succeeded["marked" if came.marked else came.completed or "unclaimed"] += 1
            self.marked.update(came.marked[:1])
            self._example(came.marked[:1], key, came)
        elif came.reason is None:
            self.canceled += 1
        else:
            self.failed[came.reason] += 1
            self._example((came.reason,), key, came)
        low, high = came.spent.tokens
        self.output_tokens.add(low, high)
        self.cost.add(*came.spent.cost)
        if came.saved is not None:
            self.saved_tokens.add(*came.saved, *came.saved)
        self.lag = max(self.lag, came.lag)
        self.row_seconds.append(came.seconds)
        self._ends.append((self.clock(), high or low or 0))

    def _example(self, reasons: Sequence[str], key: str, came: Ended) -> None:
        for reason in reasons:
            self.examples.setdefault(reason, Example(key, came.words))

    # What it comes to

    @property
    def done(self) -> int:
        """Rows that need no more asking: succeeded or failed, now or before."""
        return self.kept + sum(self.carried.failed.values()) + self.succeeded.total() + self.failed.total()

    @property
    def wanted(self) -> int:
        """Rows that this run is about."""
        return self.rows - self.carried.left_out

    @property
    def rate(self) -> float | None:
        """Rows per second, lately; `None` before there are two."""
        if len(self._ends) < 2:
            return None
        span = self.clock() - self._ends[0][0]
        return (len(self._ends) - 1) / span if span > 0 else None

    @property
    def token_rate(self) -> float | None:
        """≈ Output tokens per second, lately."""
        rate = self.rate
        return None if rate is None else rate * statistics.fmean(tokens for _, tokens in self._ends)

    @property
    def eta(self) -> float | None:
        """≈ Seconds to the last row: those that have not begun, at the recent rate and no faster than the limits allow;
        then the slowest of those that run. Wrong by some 8 % of a job's time, in simulated jobs."""
        rate, pace = self.rate, self.pace
        if not rate:
            return None
        if pace is not None and pace.allowed_per_second is not None:
            rate = min(rate, pace.allowed_per_second)
        left = self.wanted - self.done
        running = min(left, self.running)
        return (left - running) / rate + LAST_ROWS * self._row_quantile(1 - 1 / running if running else 0.0)

    def _row_quantile(self, share: float) -> float:
        ranked = sorted(self.row_seconds)
        return ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))] if ranked else 0.0

    @property
    def pace(self) -> PaceView | None:
        """What the pace with the most calls comes to; `None` without one."""
        return max(self.paces().values(), key=lambda view: view.inflight, default=None)

    def summary(self, stopped: Any = None) -> Summary:
        """The numbers now."""
        cost, before = self.cost.pair, self.carried.cost
        return Summary(
            rows=self.rows,
            kept=self.kept,
            succeeded=dict(self.succeeded),
            failed=dict(self.failed.most_common()),
            marked=dict(self.marked.most_common()),
            examples=dict(self.examples),
            canceled=self.canceled,
            failed_before=dict(self.carried.failed),
            left_out=self.carried.left_out,
            not_run=self.wanted - self.done - self.canceled,
            attempts=self.attempts,
            retries=dict(self.retries.most_common()),
            output_tokens=self.output_tokens.pair,
            saved_tokens=None if self.saved_tokens.unknown and not self.saved_tokens.known else self.saved_tokens.low,
            saved_unknown=self.saved_tokens.unknown,
            cost_usd=None if cost is None else (cost[0] / 1e6, None if cost[1] is None else cost[1] / 1e6),
            cost_unknown=self.cost.unknown,
            runs_before=self.carried.runs,
            cost_before_usd=(before[0] / 1e6, None if before[1] is None else before[1] / 1e6),
            seconds=self.clock() - self.start,
            first_token_seconds=Quantiles.of(self.first_tokens),
            row_seconds=Quantiles.of(self.row_seconds),
            lag_seconds=self.lag,
            waited_for_limits_seconds=round(self.waited, 3),
            pace=self.pace,
            outages=self.outages,
            outage_seconds=round(self.outage_seconds, 3),
            stopped=stopped,
        )


class Quantiles(msgspec.Struct, frozen=True):
    """The median, and the value that 95 % do not exceed."""

    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles | None:
        """By nearest rank; `None` of nothing."""
        if not values:
            return None
        ranked = sorted(values)
        return cls(*(round(ranked[math.ceil(share * len(ranked)) - 1], 3) for share in (0.5, 0.95)))


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a job. Rows are of this run, but for `rows` and `kept`."""

    rows: int
    """Of the input."""
    kept: int
    """Had succeeded before, and were not asked again."""
    succeeded: dict[str, int]
    """By how the answer was accepted."""
    failed: dict[str, int]
    """By reason."""
    examples: dict[str, Example]
    """The first failure of each reason in this run, and the first answer that is marked with it."""
    canceled: int
    """Interrupted while they ran."""
    failed_before: dict[str, int]
    """Rows that failed in earlier runs and were not asked again, by reason."""
    left_out: int
    """Not asked, since this run was told so (`--limit`, `--sample`, a retry of others)."""
    not_run: int
    """Not asked, since the job was stopped."""
    attempts: int
    retries: dict[str, int]
    """By the reason of the attempt before."""
    output_tokens: tuple[int, int | None] | None
    """`[low, high]`, of all attempts."""
    saved_tokens: int | None
    """≈ Output tokens that aborts avoided, where it can be estimated."""
    saved_unknown: int
    """Rows with aborts for which it cannot."""
    cost_usd: tuple[float, float | None] | None
    """`[low, high]`; without an upper end if the cost of some row is unknown."""
    cost_unknown: int
    """Rows whose cost is unknown."""
    runs_before: int
    """Earlier runs of the job."""
    cost_before_usd: tuple[float, float | None]
    """What they cost, on top."""
    seconds: float
    first_token_seconds: Quantiles | None
    """Of all attempts that had one."""
    row_seconds: Quantiles | None
    """From a row's first attempt to its result, retries and waits included."""
    lag_seconds: float
    """By how much the latest timer was late: more than 0.05 says that this machine was too busy."""
    waited_for_limits_seconds: float = 0.0
    """Seconds that rows waited for the provider's limits, all together. The waits were before the rows, not in them."""
    pace: PaceView | None = None
    """What the limits allowed in the end; `None` without a pace, or where nobody can tell."""
    outages: int = 0
    """Times that the endpoint was down, so that rows were held."""
    outage_seconds: float = 0.0
    """≈ How long, all together."""
    marked: dict[str, int] = {}
    """Rows that succeeded and are marked with what is wrong with them, by the first reason of each."""
    stopped: Any = None
    """Why the job ended early, if it did."""

    @property
    def failures(self) -> int:
        """Rows that failed, now or before."""
        return sum(self.failed.values()) + sum(self.failed_before.values())
