"""The gates that `bench.pace` compares: a fixed number at a time, AIMD, the AWS SDKs' adaptive rate, and the product's.

In charge of the others' rules, each written anew from its documentation, and of driving the product's `Pace` as the
engine does.
"""

from __future__ import annotations

import math

from bench.pace_world import Row
from streamguard.pace.limits import Limits
from streamguard.pace.pace import Pace
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
