"""One row and the prefix that it shares: wait while another row writes it, or lead.

In charge of owing nothing: a row that leads says when its answer begins, or that none will.
"""

from __future__ import annotations

import math

from streamguard.engine.clock import CallClock
from streamguard.engine.runtime import Runtime
from streamguard.pace.warmup import Prefix, prefixes
from streamguard.request import Request


class CallWarmUp:
    """See the module. Used by one task.

    :param on: whether the call is one of a job whose policy says `warm_up`.
    """

    def __init__(self, runtime: Runtime, clock: CallClock, *, on: bool) -> None:
        self._runtime = runtime
        self._clock = clock
        self._on = on
        self._shared: tuple[Prefix, ...] = ()
        self._leads = 0

    async def enter(self, request: Request | None) -> None:
        """Wait until the prefix is cached, or lead. Whoever cancels the wait owes nothing."""
        if not self._on or request is None or self._leads:
            return
        self._shared = prefixes(request.body)
        line = self._runtime.warming.here
        while self._shared:
            leads = self._runtime.warm_ups.enter(self._shared, self._now())
            if leads is not None:
                self._leads = leads
                return
            await line.changed(math.inf)

    def began(self, sent: float) -> None:
        """The answer began.

        :param sent: when its request was sent, on the call's clock.
        """
        if self._shared:
            leads, self._leads = self._leads, 0
            self._runtime.warm_ups.began(self._shared, leads, sent + self._now() - self._clock.now())
            self._runtime.warming.here.wake()

    def leave(self) -> None:
        """The attempt ended before its answer began, or is not sent."""
        if self._leads:
            leads, self._leads = self._leads, 0
            self._runtime.warm_ups.left(leads)
            self._runtime.warming.here.wake()

    def _now(self) -> float:
        return self._runtime.common_clock.moment(self._clock.now())
