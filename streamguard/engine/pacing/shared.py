"""Turns from a pace that programs share in a store, and from a pace of one's own while the store is away.

In charge of never waiting for a store longer than `LATE`: a pace fails open. Reports are kept, and ride along with the
next request for a turn.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections import deque
from typing import Final, Literal

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.line import LOOK_AGAIN, CommonClock, Lines
from streamguard.engine.pacing.local import GivenTurn, LocalPacer
from streamguard.pace.pace import Pace, PaceView
from streamguard.pace.reports import Report, Returned, Seen
from streamguard.pace.sharing import Ask, Step, alone
from streamguard.pace.spec import PaceSpec
from streamguard.pace.stores.base import PaceLost, PaceStore

_log = logging.getLogger("streamguard")

LATE: Final = 0.03
"""Seconds that an attempt waits for the store at the most."""

MISSES: Final = 3
LEFT_ALONE: Final = 5.0
"""Steps in a row without an answer after which the store is left alone, and for how many seconds."""

MOST_REPORTS: Final = 1024
"""Reports that are kept for a store that is away; the oldest go first."""


class SharedPacer:
    """See `Pacer`. For any number of event loops.

    :param key: of account, endpoint and pool.
    """

    def __init__(self, store: PaceStore, key: str, spec: PaceSpec) -> None:
        self._store, self._key = store, key
        self._knobs = msgspec.structs.replace(spec.knobs(shared=True), most=math.inf)
        self._most = spec.most
        self._clock = CommonClock()
        self._alone = LocalPacer(spec.knobs(), self._clock)
        """Goes on while the store is away, and hears every answer."""
        self._program = secrets.token_hex(4)
        self._lines = Lines()
        self._guard = threading.Lock()
        self._reports: deque[Report] = deque(maxlen=MOST_REPORTS)
        """With moments on the common clock."""
        self._inflight = 0
        self._out = 0
        """Those of them that the store gave."""
        self._last: tuple[Step, float] | None = None
        """The latest step, and when it was heard."""
        self._misses = 0
        self._away_until = -math.inf
        self._limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar(f"pace-{id(self)}")

    async def turn(self, clock: CallClock, ask: Ask) -> GivenTurn:
        """See `Pacer.turn`."""
        line = self._lines.here
        async with line.turn:
            while True:
                while self._inflight >= self._most:
                    await line.changed(math.inf)
                step = await self._step(self._clock.moment(clock.now()), ask)
                if step is None or step.turn is None:
                    given = await self._alone.turn(clock, ask)
                    self._count(1, alone=True)
                    return msgspec.structs.replace(given, alone=True)
                if step.turn.given:
                    break
                await anyio.sleep(min(step.turn.wait, LOOK_AGAIN))
            self._count(1)
            try:
                if step.turn.wait > 0:
                    await anyio.sleep(step.turn.wait)
            except BaseException:
                self.report(Returned(at=clock.now(), cost=step.turn.cost))
                raise
        return GivenTurn(step.turn.cost, ask.input_tokens)

    def report(self, report: Report, *, alone: bool = False) -> None:
        """See `Pacer.report`."""
        if alone or isinstance(report, Seen):
            self._alone.report(report)
        if not alone:
            self._reports.append(report.shifted(self._clock.moment(report.at) - report.at))
        if report.ends:
            self._count(-1, alone=alone)
            if not alone and self._misses:  # the store gave the turn, and one's own pace counts it now
                state = self._alone.pace.state
                state.inflight = max(0.0, state.inflight - 1)
            self._lines.here.wake()

    def _count(self, more: int, *, alone: bool = False) -> None:
        with self._guard:
            self._inflight += more
            self._out += 0 if alone else more

    def view(self, now: float) -> PaceView:
        """See `Pacer.view`."""
        pace, at = self._alone.pace, now
        if self._last is not None and not self._misses:
            step, heard_at = self._last
            pace, at = Pace(self._knobs, step.state), now - heard_at + step.now
        found = pace.view(at)
        store: Literal["ok", "away"] = "away" if self._misses >= MISSES else "ok"
        return msgspec.structs.replace(found, inflight=self._inflight, programs=self._programs, store=store)

    async def flush(self, now: float) -> None:
        """See `Pacer.flush`."""
        if self._reports:
            await self._step(self._clock.moment(now), None)

    @property
    def _one(self) -> anyio.CapacityLimiter:
        """One thread at a time for each event loop."""
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return limiter

    @property
    def _programs(self) -> int:
        return 1 if self._last is None else self._last[0].programs

    async def _step(self, now: float, ask: Ask | None) -> Step | None:
        """Take one step in the store; `None` while it is away."""
        if now < self._away_until:
            return None
        sent = [self._reports.popleft() for _ in range(len(self._reports))]
        if ask is not None:
            ask = msgspec.structs.replace(ask, out=float(self._out))
        nobody_waits, started = threading.Event(), threading.Event()

        def errand() -> Step:
            """Ask the store, in a thread if it blocks. What comes after everybody left the next step puts right."""
            started.set()
            try:
                step = self._store.step(
                    self._key, self._knobs, program=self._program, heard_at=now, reports=sent, ask=ask
                )
            except PaceLost:
                self._reports.extendleft(reversed(sent))
                raise
            if nobody_waits.is_set() and step.turn is not None and step.turn.given:
                self._reports.append(Returned(at=now, cost=step.turn.cost))
            return step

        step: Step | None = None
        try:
            if not self._store.blocks:
                step = errand()
            else:
                with anyio.move_on_after(LATE):
                    try:
                        step = await anyio.to_thread.run_sync(errand, limiter=self._one, abandon_on_cancel=True)
                    finally:
                        if step is None:
                            nobody_waits.set()
                if not started.is_set():  # given up before a thread was free: nothing was told
                    self._reports.extendleft(reversed(sent))
        except PaceLost as error:
            _log.debug("the store of the pace is away: %s", error)
        if step is None:
            self._missed(now)
            return None
        if self._misses >= MISSES:
            _log.warning("the store of the pace answers again")
        self._misses, self._last = 0, (step, now)
        return step

    def _missed(self, now: float) -> None:
        """Go on alone; from the third miss in a row on the store is left alone for a while."""
        self._misses += 1
        if self._misses == 1 and self._last is not None:
            self._alone.pace.state = alone(*self._last, inflight=self._inflight)
        if self._misses >= MISSES:
            if self._misses == MISSES:
                _log.warning("the store of the pace does not answer: at 1/%d by ourselves", self._programs)
            self._away_until = now + LEFT_ALONE
