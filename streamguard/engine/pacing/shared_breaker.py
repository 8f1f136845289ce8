"""A breaker that programs share in the store of their pace, and one of one's own while the store is away.

In charge of never holding a call up for a store: it fails open. What a program finds is told with its next look; looks
at a closed breaker are `LOOK_EVERY` apart.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import Final

import anyio
import anyio.to_thread

from streamguard.pace.outages import Look, Told, mirrored, take_look
from streamguard.pace.sharing import SharedState
from streamguard.pace.stores.base import PaceLost, PaceStore
from streamguard.retry.breaker import Breaker, BreakerSpec, Passage
from streamguard.retry.cooldown import Cooldown

_log = logging.getLogger("streamguard")

LOOK_EVERY: Final = 1.0
"""Seconds between two looks into the store while nothing is down."""

LATE: Final = 0.03
"""Seconds that an attempt waits for the store at the most, while nothing is down."""

PATIENT: Final = 1.0
"""The same while the endpoint is down: nothing is in a hurry then, and two must not look at once."""

LEFT_ALONE: Final = 5.0
"""Seconds for which a store is left alone that did not answer."""

MOST_TOLD: Final = 64
"""Findings that are kept for a store that is away; the oldest go first."""


class SharedBreaker(Breaker):
    """See `Breaker`. What it knows is what the store said last, and what the program found since.

    :param key: of account, endpoint and model.
    """

    def __init__(self, spec: BreakerSpec, store: PaceStore, key: str) -> None:
        super().__init__(spec)
        self._store, self._key = store, key
        self._told: list[Told] = []
        self._looked_at = self._away_until = -math.inf
        self._cool = -math.inf
        """Until when the store knows of a cool-down, on the program's clock."""

    def answered(self, *, output: bool = True) -> bool:
        """See `Breaker.answered`."""
        closed = super().answered(output=output)
        if closed:
            self._tell(Told("answered"))
        return closed

    def failed(self, reason: str, now: float, *, probe: int = 0) -> bool:
        """See `Breaker.failed`."""
        opened = super().failed(reason, now, probe=probe)
        if opened and self.state.alive:
            self._tell(Told("opened", reason))
        elif probe:
            self._tell(Told("failed", reason, probe))
        return opened

    def left(self, probe: int) -> None:
        """See `Breaker.left`."""
        super().left(probe)
        if probe:
            self._tell(Told("left", probe=probe))

    def _tell(self, told: Told) -> None:
        self._told.append(told)
        del self._told[:-MOST_TOLD]

    async def ask(self, now: float, cooldown: Cooldown, *, lease: float) -> Passage:
        """Ask the store whether an attempt may be sent, and bring breaker and cool-down to what others found.

        :param now: on the clock of the breaker and the cool-down, in seconds.
        :param lease: seconds that the attempt takes at the most, if it is the one that looks.
        """
        news = bool(self._told) or cooldown.until > max(now, self._cool)
        if now < self._away_until or (self.closed and not news and now - self._looked_at < LOOK_EVERY):
            return self.enter(now, lease=lease)
        look = await self._look(now, cooldown, lease, LATE if self.closed else PATIENT)
        if look is None:
            self._away_until = now + LEFT_ALONE
            return self.enter(now, lease=lease)
        self._looked_at = now
        mirrored(self.state, look, now)
        self._cool = now + look.cooling
        cooldown.heard(look.cooling_reason, self._cool, now)
        assert look.passage is not None
        return look.passage

    async def tell(self, now: float, cooldown: Cooldown) -> None:
        """Tell the store what was found, if something was, whatever happens to the call."""
        if self._told and now >= self._away_until:
            with anyio.CancelScope(shield=True):
                look = await self._look(now, cooldown, 0.0, LATE, asks=False)
            if look is not None:
                mirrored(self.state, look, now)

    async def _look(
        self, now: float, cooldown: Cooldown, lease: float, late: float, *, asks: bool = True
    ) -> Look | None:
        """Look into the store; `None` while it is away."""
        told, self._told = self._told, []
        nobody_waits, started = threading.Event(), threading.Event()
        cooling = cooldown.left(now)

        def verb(shared: SharedState, at: float) -> Look:
            how = {"cooling": cooling, "cooling_reason": cooldown.reason}
            return take_look(shared, self.spec, at, told=told, asks=asks, lease=lease, **how)  # type: ignore[arg-type]

        def errand() -> Look:
            started.set()
            look = self._store.change(self._key, verb)
            if nobody_waits.is_set() and look.passage is not None and look.passage.probe:
                self._tell(Told("left", probe=look.passage.probe))
            return look

        look: Look | None = None
        try:
            if not self._store.blocks:
                return errand()
            with anyio.move_on_after(late):
                try:
                    look = await anyio.to_thread.run_sync(errand, abandon_on_cancel=True)
                finally:
                    if look is None:
                        nobody_waits.set()
            if not started.is_set():  # given up before a thread was free
                self._told = [*told, *self._told]
        except PaceLost as error:
            self._told = [*told, *self._told]
            _log.debug("the store of the breaker is away: %s", error)
        return look
