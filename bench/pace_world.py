"""A provider and programs that ask it, in simulated time: what `bench.pace` measures paces in.

In charge of the loop and of the world outside: rows of random size, an account with rate limits
(`streamguard.testing.rate_limits`), a server of one's own that decodes so many answers together, and programs that each
ask as fast as their gate lets them. Refusals go through the package's own cool-down. Nothing sleeps.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from streamguard.pace.limits import Limits
from streamguard.retry.cooldown import Cooldown
from streamguard.testing.rate_limits import RateLimits

INF = math.inf
WAY = 0.03
"""Seconds of a request's way to the provider, and of an answer's way back."""

REFUSING = 0.09
"""Seconds that a refusal takes beside the way."""


@dataclass(eq=False)
class Row:
    """One request, and what is to come of it, which its sender does not know."""

    input: int
    output: int
    max_tokens: int
    first_token: float
    speed: float
    asked_at: float = INF
    sent_at: float = 0.0
    attempts: int = 0
    turn: Any = None
    """What the gate keeps about it."""


@dataclass
class Load:
    """What rows are like: means, with lognormal spread."""

    input: float
    output: float
    max_tokens: int = 2048
    spread: float = 0.6
    first_token: float = 0.9
    speed: float = 80.0

    def row(self, dice: random.Random) -> Row:
        """Draw one."""
        length = self.output * math.exp(dice.gauss(-(self.spread**2) / 2, self.spread))
        return Row(
            input=round(self.input * math.exp(dice.gauss(-0.045, 0.3))),
            output=round(min(self.max_tokens, max(8.0, length))),
            max_tokens=self.max_tokens,
            first_token=self.first_token * math.exp(dice.gauss(0, 0.5)),
            speed=self.speed * math.exp(dice.gauss(0, 0.2)),
        )


class Gate(Protocol):
    """When a program may send."""

    def ask(self, now: float, row: Row) -> float:
        """0 for now; else seconds until to ask again, `inf` for after the next event."""

    def sent(self, now: float, row: Row) -> None: ...
    def head(self, now: float, row: Row, limits: Limits | None) -> None: ...
    def refused(self, now: float, row: Row, status: int, limits: Limits | None) -> None: ...
    def ended(self, now: float, row: Row) -> None: ...


@dataclass(eq=False)
class Program:
    """One process that asks."""

    gate: Gate
    cooldown: Cooldown
    fresh: Row | None = None
    again: list[tuple[float, int, Row]] = field(default_factory=list)
    wakes_at: float = INF
    start: tuple[int, float] | None = None
    """When the cool-down lets the next request go, and of which round of it."""


@dataclass
class Done:
    """A row that got its answer."""

    at: float
    took: float
    program: int


class World:
    """Programs that never run out of rows, for so many seconds.

    :param busy: (from, to, share of requests that get a 529 without headers).
    :param headers: whether answers state limits; `late` seconds after they were true.
    """

    def __init__(
        self,
        load: Load,
        gates: Sequence[Gate],
        *,
        seconds: float,
        seed: int,
        attempts: int = 3,
        one_cooldown: bool = False,
    ) -> None:
        self.load, self.seconds, self.attempts = load, seconds, attempts
        self.dice = random.Random(seed)
        shared = Cooldown()
        self.programs = [Program(gate, shared if one_cooldown else Cooldown()) for gate in gates]
        self.sent: list[float] = []
        self.refusals: list[float] = []
        self.done: list[Done] = []
        self.lost = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, what: Callable[..., None], *about: Any) -> None:
        """Have something happen."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what, about))

    def run(self) -> World:
        """Run to the end."""
        for number in range(len(self.programs)):
            self.at(0.0, self.pump, number)
        while self._events:
            now, _, what, about = heapq.heappop(self._events)
            if now > self.seconds:
                break
            what(now, *about)
        return self

    def send(self, now: float, number: int, row: Row) -> None:
        """A request goes out: to be said by a provider."""
        raise NotImplementedError

    def pump(self, now: float, number: int) -> None:
        """Let a program send all that its gate lets it."""
        program = self.programs[number]
        if program.wakes_at <= now:
            program.wakes_at = INF
        while True:
            again = bool(program.again) and program.again[0][0] <= now
            if not again and program.fresh is None:
                program.fresh = self.load.row(self.dice)
            row = program.again[0][2] if again else program.fresh
            assert row is not None
            if program.start is None or program.start[0] != program.cooldown.round:
                start = program.cooldown.start(now)
                assert start is not None
                program.start = program.cooldown.round, start
            if program.start[1] > now:
                return self._wake(number, program.start[1])
            wait = program.gate.ask(now, row)
            if wait > 0:
                return None if wait == INF else self._wake(number, now + wait)
            program.start = None
            if again:
                heapq.heappop(program.again)
            else:
                program.fresh = None
            row.attempts += 1
            row.sent_at, row.asked_at = now, min(row.asked_at, now)
            program.gate.sent(now, row)
            self.sent.append(now)
            self.send(now, number, row)

    def _wake(self, number: int, when: float) -> None:
        program = self.programs[number]
        if when < program.wakes_at:
            program.wakes_at = when
            self.at(when, self.pump, number)

    def refuse(
        self, now: float, number: int, row: Row, status: int, retry_after: float | None, limits: Limits | None
    ) -> None:
        """A refusal arrives; status 0 is an answer that a clock gave up."""
        program = self.programs[number]
        self.refusals.append(row.sent_at)
        program.gate.refused(now, row, status, limits)
        backoff = min(20.0, 0.5 * 2 ** (row.attempts - 1)) * self.dice.random()
        wait = backoff if retry_after is None else retry_after
        if status:
            told = status == 429 or retry_after is not None
            program.cooldown.refused("refused", sent=row.sent_at, now=now, wait=wait, told=told)
        if row.attempts >= self.attempts:
            self.lost += 1
        else:
            ready = max(now + wait, program.cooldown.until)
            self._order += 1
            heapq.heappush(program.again, (ready, self._order, row))
            self.at(ready, self.pump, number)
        self.pump(now, number)

    def head(self, now: float, number: int, row: Row, limits: Limits | None) -> None:
        """The first token arrives, and what the answer states."""
        program = self.programs[number]
        program.cooldown.answered(sent=row.sent_at)
        program.gate.head(now, row, limits)
        self.pump(now, number)

    def end(self, now: float, number: int, row: Row) -> None:
        """The answer is whole."""
        self.programs[number].gate.ended(now, row)
        self.done.append(Done(now, now - row.asked_at, number))
        self.pump(now, number)


class Account(World):
    """An account with rate limits, at a provider that never tires."""

    def __init__(
        self,
        load: Load,
        gates: Sequence[Gate],
        limits: RateLimits,
        *,
        headers: bool = True,
        busy: Sequence[tuple[float, float, float]] = (),
        **options: Any,
    ) -> None:
        super().__init__(load, gates, **options)
        self.limits, self.headers, self.busy = limits, headers, busy
        buckets = limits.buckets
        per_row = {"requests": 1.0, "input_tokens": load.input, "output_tokens": load.output}
        self.allowed = min(buckets[name].per_minute / per_row[name] for name in buckets) / 60
        """Rows a second that the limits allow in the long run, at the beginning."""

    def send(self, now: float, number: int, row: Row) -> None:
        """See `World.send`."""
        back = now + 2 * WAY + REFUSING
        if any(begin <= now < end and self.dice.random() < share for begin, end, share in self.busy):
            return self.at(back, self.refuse, number, row, 529, None, None)
        admission = self.limits.admit(now + WAY, input_tokens=row.input, max_tokens=row.max_tokens)
        stated = admission.limits if self.headers else None
        if admission.retry_after is not None:
            return self.at(back, self.refuse, number, row, 429, admission.retry_after, stated)
        begins = now + row.first_token
        self.at(begins, self._produces, number, row, stated)
        return self.at(begins + row.output / row.speed, self._complete, number, row)

    def _produces(self, now: float, number: int, row: Row, stated: Limits | None) -> None:
        self.limits.produce(now, row.speed)
        self.head(now, number, row, stated)

    def _complete(self, now: float, number: int, row: Row) -> None:
        self.limits.produce(now, -row.speed)
        self.limits.correct(now, max_tokens=row.max_tokens, output_tokens=row.output)
        self.end(now, number, row)


class OwnServer(World):
    """A server without limits, such as vLLM: `seats` answers decode together, each slower the more there are, and the
    others queue, first come, first served.

    :param patience: seconds after which a client gives up an answer that has not begun.
    """

    STEP, PER_SEAT, PREFILL = 0.010, 0.0004, 20_000.0
    """Seconds a token takes alone, what each other answer adds, and input tokens read a second."""

    def __init__(self, load: Load, gates: Sequence[Gate], *, seats: int = 64, patience: float = 60.0, **options: Any):
        super().__init__(load, gates, **options)
        self.seats, self.patience = seats, patience
        self.running = 0
        self.queue: deque[tuple[float, int, Row]] = deque()

    def send(self, now: float, number: int, row: Row) -> None:
        """See `World.send`."""
        self.queue.append((now, number, row))
        self._seat(now)

    def _seat(self, now: float) -> None:
        while self.queue and self.running < self.seats:
            came, number, row = self.queue.popleft()
            if now - came > self.patience:
                self.at(now, self.refuse, number, row, 0, None, None)
                continue
            self.running += 1
            self.at(now + row.input / self.PREFILL, self._decode, number, row, float(row.output), True)

    def _decode(self, now: float, number: int, row: Row, left: float, first: bool) -> None:
        """Some tokens, at the speed of the moment."""
        if first:
            self.head(now, number, row, None)
        if left > 0:
            some = min(left, max(16.0, row.output / 4))
            step = self.STEP + self.PER_SEAT * self.running
            return self.at(now + some * step, self._decode, number, row, left - some, False)
        self.running -= 1
        self._seat(now)
        return self.end(now, number, row)


# Figures


def quantile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)] if ranked else math.nan


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else math.nan


def done_share(world: World, allowed: float, begin: float = 120.0, end: float | None = None) -> float:
    """Rows done from one moment to another, in percent of the allowed."""
    end = world.seconds if end is None else end
    return 100 * sum(begin <= one.at < end for one in world.done) / (end - begin) / allowed


def refused_share(world: World, begin: float = 0.0) -> float:
    """Requests refused, in percent of those sent since then."""
    sent = sum(at >= begin for at in world.sent)
    return 100 * sum(at >= begin for at in world.refusals) / max(1, sent)


def fairness(world: World, begin: float = 120.0) -> float:
    """Jain's index over the programs' rows."""
    counts = [0] * len(world.programs)
    for one in world.done:
        counts[one.program] += one.at >= begin
    return jain(counts)


STAYS: Final = 30.0
LOOSER: Final = 0.05
"""A rate has settled if it stays, on average over so many seconds, within so much more of the target."""


def settled_after(
    world: World, since: float, target: float, low: float = 0.9, high: float = INF, window: float = 10.0
) -> float:
    """Seconds from `since` until requests are admitted, over a window, at from `low` to `high` of the target rate, and
    stay there."""
    refused = Counter(world.refusals)
    admitted = [at for at in world.sent if not refused[at]]

    def rate(begin: float, span: float) -> float:
        return sum(begin <= at < begin + span for at in admitted) / span / target

    second = 0
    while since + second + window + STAYS <= world.seconds:
        begin = since + second
        if low <= rate(begin, window) <= high and low - LOOSER <= rate(begin + window, STAYS) <= high + LOOSER:
            return second + window
        second += 1
    return INF
