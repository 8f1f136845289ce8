"""One call and the breakers of where it goes: wait while an endpoint is down, look whether it is back, tell what came.

In charge of owing nothing: who was let through to look always says what came of it. When an endpoint counts as down is
`retry.breaker`'s business.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Final

import anyio

from streamguard.engine.attempt import RunningAttempt, interrupt_trip
from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.shared_breaker import SharedBreaker
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import BreakerClosed, BreakerOpened, BreakerProbed
from streamguard.events import Failed
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.breaker import PROBE_LEASE, Breaker, Passage, speaks
from streamguard.retry.rules import elsewhere
from streamguard.verdict import Decision, Trip

NO_CLOCK: Final = 600.0
"""Seconds that a look may take where no clock of the policy bounds its first token."""

LOOK_AGAIN: Final = 1.0
"""Seconds after which whoever waits looks again at the latest: another call may have found the endpoint back."""


class CallBreaker:
    """See the module. Used by one task.

    :param about: what every telemetry record says of the call.
    """

    def __init__(self, policy: Policy, runtime: Runtime, clock: CallClock, about: Mapping[str, Any]) -> None:
        self._spec, self._retry, self._pace = policy.breaker, policy.retry, policy.pace
        self._patience = (policy.timeouts.first_token or NO_CLOCK) + PROBE_LEASE
        self._runtime = runtime
        self._clock = clock
        self._about = about
        self._breaker: Breaker | None = None
        self._place: tuple[str | None, str | None] = (None, None)
        self._probe = 0
        self.rerouted: Decision | None = None
        """Where the first attempt goes, because the endpoint of its request is down."""

    async def enter(
        self, request: Request | None, base_url: str | None, *, first: bool, unbegun: bool
    ) -> Trip | Failed | Decision | None:
        """Wait while the endpoint is down, and no longer than the call's deadline.

        :param first: whether this is the call's first attempt, at the source's own endpoint.
        :param unbegun: whether the call is one of a job that has sent nothing yet: then the wait is none of its time.
        :returns: the decision to go to where a rule of the policy names; or why nothing is sent; `None` to go on.
        """
        if self._spec is None or self._probe:
            return None
        clock, self._place = self._clock, (request.model if request else None, base_url)
        self._breaker = breaker = self._runtime.breaker(self._spec, *self._place, pace=self._pace)
        deadline = clock.deadline if clock.deadline < math.inf else clock.now() + self._spec.most
        while True:
            now = self._now()
            other = elsewhere(self._retry, breaker.state.reason) if first and not breaker.closed else None
            if other is not None and self._down_at(other, now):
                other = None
            passage = await self._ask(breaker, now)
            if passage.given:
                if passage.probe:
                    self._probe = passage.probe
                    self._tell(BreakerProbed, number=passage.probe, seconds=now - breaker.state.opened_at)
                return None
            if other is not None:
                self.rerouted = other
                return other
            # What never answered may as well be a wrong address: every call finds out by itself.
            if not breaker.state.alive:
                return None
            if not unbegun and clock.now() + passage.wait >= deadline:
                message = (
                    f"not sent: {self._named} is down for {now - breaker.state.opened_at:.0f} s "
                    f"({breaker.state.reason}), and the next look comes after this call's deadline (breaker)"
                )
                reason, left = breaker.state.reason, breaker.wait(now)
                return Failed(reason=reason, message=message, retry_after=left, sent=False, billable=False)
            since = clock.now()
            breaker.waiting += 1
            try:
                with clock.until(since + min(passage.wait, LOOK_AGAIN)):
                    await anyio.sleep_forever()
            finally:
                breaker.waiting -= 1
            if unbegun:
                clock.leave_out(clock.now() - since)
            if clock.interrupted is not None:
                return interrupt_trip(clock.interrupted)

    async def _ask(self, breaker: Breaker, now: float) -> Passage:
        """Whether the attempt may be sent, as this program knows or as all programs of a store do."""
        if not isinstance(breaker, SharedBreaker):
            return breaker.enter(now)
        return await breaker.ask(now, self._runtime.cooldown(*self._place), lease=self._patience)

    def beside(self, clock: CallClock) -> CallBreaker:
        """Return the same for a second request beside, which is no look."""
        other = copy.copy(self)
        other._clock, other._probe = clock, 0  # noqa: SLF001  a copy of its own kind
        return other

    def keep_time_by(self, clock: CallClock) -> None:
        """Go on with another clock of the same call."""
        self._clock = clock

    @property
    def passes(self) -> bool:
        """Whether the attempt may be sent still."""
        breaker = self._breaker
        return breaker is None or breaker.closed or not breaker.state.alive or self._probe == breaker.state.probe != 0

    @property
    def probing(self) -> bool:
        """Whether the attempt looks whether the endpoint is back."""
        return self._probe != 0

    @property
    def closed(self) -> bool:
        """Whether the endpoint is not known to be down."""
        return self._breaker is None or self._breaker.closed

    def leave(self) -> None:
        """The attempt is not sent: another one may look."""
        if self._breaker is not None and self._probe:
            self._breaker.left(self._probe)
        self._probe = 0

    def answered(self, *, output: bool = True) -> None:
        """The attempt has a sign of life.

        :param output: whether that is output.
        """
        breaker, self._probe = self._breaker, 0
        if breaker is None:
            return
        seconds = self._now() - breaker.state.opened_at
        if breaker.answered(output=output):
            self._tell(BreakerClosed, seconds=seconds)

    def ended(self, running: RunningAttempt) -> None:
        """Tell how an attempt ended that was sent."""
        breaker, end = self._breaker, running.ended
        if breaker is None:
            return
        output = running.panel.transcript.first_token_at is not None or running.panel.stopped
        if end is None:
            said = "answer" if output else "nothing"
            reason = ""
        else:
            said, reason = speaks(end.reason, output=output), end.reason
        if said == "nothing" and self._probe and reason == "timeout.total":
            said = "down"  # it looked for as long as its call had
        if said == "answer":
            self.answered(output=output)
        elif said == "down":
            probe, self._probe = self._probe, 0
            if breaker.failed(reason, self._now(), probe=probe):
                self._tell(BreakerOpened, reason=reason, next_look=breaker.state.pause)
        else:
            self.leave()

    async def tell(self) -> None:
        """Tell other programs what was found, where they share a store."""
        if isinstance(self._breaker, SharedBreaker):
            await self._breaker.tell(self._now(), self._runtime.cooldown(*self._place))

    @property
    def _named(self) -> str:
        model, base_url = self._place
        return f"{base_url or 'the endpoint'} of {model}" if model else base_url or "the endpoint"

    def _now(self) -> float:
        return self._runtime.common_clock.moment(self._clock.now())

    def _down_at(self, other: Decision, now: float) -> bool:
        """Whether where a rule goes is down as well."""
        assert self._spec is not None
        model = other.patch.get("model") if other.patch else None
        there = self._runtime.breaker(self._spec, model if isinstance(model, str) else self._place[0], other.base_url)
        return there.at(now) == "open" or there.looking(now)

    def _tell(self, record: type[BreakerOpened | BreakerProbed | BreakerClosed], **said: Any) -> None:
        model, base_url = self._place
        self._runtime.emit(record(model=model, base_url=base_url, **said, **self._about))
