"""Turns from a pace that programs share in a store, and from a pace of one's own while the store is away.

In charge of never waiting for a store longer than `LATE`: a pace fails open. Reports are kept, and ride along with the
next request for a turn.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal

import anyio
import anyio.to_thread
import msgspec

from streamguard.engine.clock import CallClock
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
    """See `Pacer`. Used on one event loop.

    :param key: of account, endpoint and pool.
    """

    def __init__(self, store: PaceStore, key: str, spec: PaceSpec) -> None:
        self._store, self._key = store, key
        self._knobs = msgspec.structs.replace(spec.knobs(shared=True), most=math.inf)
        self._most = spec.most
        self._alone = LocalPacer(spec.knobs())
        """Goes on while the store is away, and hears every answer."""
        self._program = secrets.token_hex(4)
        self._line = anyio.Lock()
        self._reports: deque[Report] = deque(maxlen=MOST_REPORTS)
        self._inflight = 0
        self._freed: anyio.Event | None = None
        self._last: tuple[Step, float] | None = None
        """The latest step, and when it was heard."""
        self._misses = 0
        self._away_until = -math.inf
        self._limiter: anyio.CapacityLimiter | None = None

    async def turn(self, clock: CallClock, ask: Ask) -> GivenTurn:
        """See `Pacer.turn`."""
        async with self._line:
            while True:
                while self._inflight >= self._most:
                    self._freed = self._freed or anyio.Event()
                    await self._freed.wait()
                step = await self._step(clock.now(), ask)
                if step is None or step.turn is None:
                    given = await self._alone.turn(clock, ask)
                    self._inflight += 1
                    return msgspec.structs.replace(given, alone=True)
                if step.turn.given:
                    break
                await anyio.sleep(step.turn.wait)
            self._inflight += 1
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
            self._reports.append(report)
        if report.ends:
            self._inflight -= 1
            if not alone and self._misses:  # the store gave the turn, and one's own pace counts it now
                state = self._alone.pace.state
                state.inflight = max(0.0, state.inflight - 1)
            freed, self._freed = self._freed, None
            if freed is not None:
                freed.set()

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
            await self._step(now, None)

    @property
    def _programs(self) -> int:
        return 1 if self._last is None else self._last[0].programs

    async def _step(self, now: float, ask: Ask | None) -> Step | None:
        """Take one step in the store; `None` while it is away."""
        if now < self._away_until:
            return None
        sent = list(self._reports)
        self._reports.clear()
        errand = _Errand(self, now, sent, ask)
        step: Step | None = None
        try:
            if not self._store.blocks:
                step = errand.run()
            else:
                self._limiter = self._limiter or anyio.CapacityLimiter(1)
                with anyio.move_on_after(LATE):
                    try:
                        step = await anyio.to_thread.run_sync(errand.run, limiter=self._limiter, abandon_on_cancel=True)
                    finally:
                        errand.left = step is None
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


class _Errand:
    """A step on its way through a thread. What comes of it after everybody left is put right by the next one."""

    def __init__(self, pacer: SharedPacer, now: float, reports: Sequence[Report], ask: Ask | None) -> None:
        self._pacer, self._now, self._reports, self._ask = pacer, now, reports, ask
        self.left = False
        """Whether nobody waits for it any more."""

    def run(self) -> Step:
        """In the thread, where the store blocks."""
        pacer = self._pacer
        try:
            step = pacer._store.step(  # noqa: SLF001
                pacer._key,  # noqa: SLF001
                pacer._knobs,  # noqa: SLF001
                program=pacer._program,  # noqa: SLF001
                heard_at=self._now,
                reports=self._reports,
                ask=self._ask,
            )
        except PaceLost:
            pacer._reports.extendleft(reversed(self._reports))  # noqa: SLF001
            raise
        if self.left and step.turn is not None and step.turn.given:
            pacer._reports.append(Returned(at=self._now, cost=step.turn.cost))  # noqa: SLF001
        return step
