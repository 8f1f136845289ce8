"""The gates that `bench.pace` compares: a fixed number at a time, AIMD, the AWS SDKs' adaptive rate, and the product's.

In charge of the others' rules, each written anew from its documentation, and of driving the product's `Pace` as the
engine does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import msgspec

from bench.pace_world import Row
from streamguard.pace.limits import Limits
from streamguard.pace.pace import Pace
from streamguard.pace.reports import Began, Late, Refused, Report, Seen, Settled
from streamguard.pace.sharing import Ask, SharedState, Step, alone, take_step
from streamguard.pace.spec import PaceSpec

BYTES_A_TOKEN = 1.1
"""How far off the engine's guess of input is here."""


class Fixed:
    """So many at a time, as `--concurrency` is. A row that waits for its retry keeps its place."""

    def __init__(self, most: float = 8) -> None:
        self.most, self.busy = float(most), 0

    def ask(self, now: float, row: Row) -> float:  # noqa: ARG002
        if row.turn is None:
            if self.busy >= int(self.most):
                return math.inf
            self.busy += 1
            row.turn = True
        return 0.0

    def sent(self, now: float, row: Row) -> None: ...
    def head(self, now: float, row: Row, limits: Limits | None) -> None: ...

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:  # noqa: ARG002
        if row.attempts >= 3:
            self.busy -= 1

    def ended(self, now: float, row: Row) -> None:  # noqa: ARG002
        self.busy -= 1


class _Concurrency:
    """A number at a time that changes; who waits for a retry has no place."""

    def __init__(self, start: float, most: float) -> None:
        self.limit, self.most, self.busy = float(start), most, 0

    def ask(self, now: float, row: Row) -> float:  # noqa: ARG002
        if self.busy >= int(self.limit):
            return math.inf
        self.busy += 1
        return 0.0

    def sent(self, now: float, row: Row) -> None: ...
    def head(self, now: float, row: Row, limits: Limits | None) -> None: ...

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:  # noqa: ARG002
        self.busy -= 1

    def ended(self, now: float, row: Row) -> None:  # noqa: ARG002
        self.busy -= 1


class AimdSlowStart(_Concurrency):
    """inspect-ai's adaptive connections: doubled per round trip until the first refusal, then 0.7 of it on each refusal
    and one more per round trip."""

    def __init__(self, start: float = 8, most: float = 512) -> None:
        super().__init__(start, most)
        self.slow_start, self.cut_at = True, -math.inf

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:
        super().refused(now, row, status, limits)
        self.slow_start = False
        if row.sent_at > self.cut_at:
            self.limit, self.cut_at = max(1.0, self.limit * 0.7), now

    def ended(self, now: float, row: Row) -> None:
        if self.busy > self.limit / 2:
            self.limit = min(self.most, self.limit + (1.0 if self.slow_start else 1.0 / self.limit))
        super().ended(now, row)


class AwsAdaptive(_Concurrency):
    """The AWS SDKs' `adaptive` retry mode: a rate that a refusal cuts to 0.7 and a cubic brings back, never over twice
    what was measured."""

    BETA, CUBIC = 0.7, 0.4

    def __init__(self, most: float = 512) -> None:
        super().__init__(most, most)
        self.rate, self.tokens, self.refilled = 0.0, 0.0, 0.0
        self.top, self.throttled_at = 0.0, 0.0
        self.measured, self.counted, self.bucket = 0.0, 0, 0.0

    def ask(self, now: float, row: Row) -> float:
        if self.rate > 0:
            self.tokens = min(max(1.0, self.rate), self.tokens + (now - self.refilled) * self.rate)
            self.refilled = now
            if self.tokens < 1 - 1e-9:
                return (1 - self.tokens) / self.rate + 1e-6
        wait = super().ask(now, row)
        if self.rate > 0 and not wait:
            self.tokens -= 1
        return wait

    def _measure(self, now: float) -> None:
        bucket = math.floor(now * 2) / 2
        self.counted += 1
        if bucket > self.bucket:
            self.measured = 0.8 * self.counted / (bucket - self.bucket) + 0.2 * self.measured
            self.counted, self.bucket = 0, bucket

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:
        super().refused(now, row, status, limits)
        self._measure(now)
        self.top = self.measured if not self.rate else min(self.measured, self.rate)
        if not self.rate:
            self.refilled = now
        self.rate, self.throttled_at = max(0.5, self.top * self.BETA), now

    def ended(self, now: float, row: Row) -> None:
        super().ended(now, row)
        self._measure(now)
        if self.rate:
            window = (self.top * (1 - self.BETA) / self.CUBIC) ** (1 / 3)
            cubic = self.CUBIC * (now - self.throttled_at - window) ** 3 + self.top
            self.rate = max(0.5, min(cubic, 2 * self.measured))


class Paced:
    """The product's pace, driven as the engine drives it."""

    def __init__(self, spec: PaceSpec | None = None) -> None:
        self.pace = Pace((spec or PaceSpec()).knobs())

    def ask(self, now: float, row: Row) -> float:
        if row.turn is None:
            turn = self.pace.turn(now, input_tokens=row.input * BYTES_A_TOKEN, max_tokens=row.max_tokens)
            if not turn.given:
                return turn.wait
            row.turn = (now + turn.wait, turn.cost)
        return max(0.0, row.turn[0] - now)

    def sent(self, now: float, row: Row) -> None: ...

    def head(self, now: float, row: Row, limits: Limits | None) -> None:
        if limits is not None:
            self.pace.seen(now, limits)
        self.pace.began(
            now,
            sent=row.sent_at,
            seconds=now - row.sent_at,
            cost=row.turn[1],
            guessed=row.input * BYTES_A_TOKEN,
            counted=row.input,
        )

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:
        cost, row.turn = row.turn[1], None
        if limits is not None:
            self.pace.seen(now, limits)
        if status:
            self.pace.refused(now, sent=row.sent_at, cost=cost, limited=status == 429)
        else:
            self.pace.settled(now, cost=cost, output=-1.0, seconds=now - row.sent_at)
            self.pace.late(now, sent=row.sent_at)

    def ended(self, now: float, row: Row) -> None:
        self.pace.settled(now, cost=row.turn[1], output=row.output, seconds=now - row.sent_at)


class Store:
    """A store of a shared pace, in simulated time, with the moments at which it is away."""

    def __init__(self, away: Sequence[tuple[float, float]] = ()) -> None:
        self.state, self.steps = SharedState(), 0
        self._away = away

    def gone(self, now: float) -> bool:
        """Whether nobody reaches it."""
        return any(begin <= now < end for begin, end in self._away)


class PacedShared:
    """The product's shared pace, driven as `engine.pacing.shared` drives it: reports ride along with the next turn, and
    a program whose store is away goes on by itself."""

    def __init__(self, store: Store, name: str, spec: PaceSpec | None = None) -> None:
        spec = spec or PaceSpec()
        self._store, self._name = store, name
        self._knobs = msgspec.structs.replace(spec.knobs(shared=True), most=math.inf)
        self._most, self._inflight = spec.most, 0
        self._alone = Pace(spec.knobs())
        self._reports: list[Report] = []
        self._last: Step | None = None
        self._away = False

    def _step(self, now: float, ask: Ask | None) -> Step | None:
        if self._store.gone(now):
            if not self._away and self._last is not None:
                self._alone.state = alone(copy.deepcopy(self._last), self._last.now, inflight=self._inflight)
            self._away = True
            return None
        self._away = False
        self._store.steps += 1
        told, self._reports = self._reports, []
        self._last = take_step(
            self._store.state, self._knobs, now, program=self._name, heard_at=now, reports=told, ask=ask
        )
        return self._last

    def ask(self, now: float, row: Row) -> float:
        if row.turn is None:
            if self._inflight >= self._most:
                return math.inf
            guessed = row.input * BYTES_A_TOKEN
            step = self._step(now, Ask(input_tokens=guessed, max_tokens=row.max_tokens, patient=True))
            turn = step.turn if step else self._alone.turn(now, input_tokens=guessed, max_tokens=row.max_tokens)
            assert turn is not None
            if not turn.given:
                return turn.wait
            self._inflight += 1
            row.turn = (now + turn.wait, turn.cost, step is None)
        return max(0.0, row.turn[0] - now)

    def _report(self, now: float, row: Row, report: Report) -> None:
        own = row.turn[2]
        if own or isinstance(report, Seen):
            report.tell(self._alone, now)
        if not own:
            self._reports.append(report)
        if report.ends:
            self._inflight -= 1
            if not own and self._away:
                self._alone.state.inflight = max(0.0, self._alone.state.inflight - 1)

    def sent(self, now: float, row: Row) -> None: ...

    def head(self, now: float, row: Row, limits: Limits | None) -> None:
        if limits is not None:
            self._report(now, row, Seen(at=now, limits=limits))
        guessed, took = row.input * BYTES_A_TOKEN, now - row.sent_at
        began = Began(at=now, sent=row.sent_at, seconds=took, cost=row.turn[1], guessed=guessed, counted=row.input)
        self._report(now, row, began)

    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None:
        if limits is not None:
            self._report(now, row, Seen(at=now, limits=limits))
        if status:
            refused = Refused(at=now, sent=row.sent_at, cost=row.turn[1], limited=status == 429)
            self._report(now, row, refused)
        else:
            self._report(now, row, Late(at=now, sent=row.sent_at, cost=row.turn[1]))
        row.turn = None

    def ended(self, now: float, row: Row) -> None:
        settled = Settled(at=now, cost=row.turn[1], output=row.output, seconds=now - row.sent_at)
        self._report(now, row, settled)
