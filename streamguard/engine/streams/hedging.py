"""The second request of an attempt: what it takes before it is sent, and what becomes of the slower of the two.

In charge of everything that is owed for it: a turn in the pace, what budgets hold, a token of the retry quota, a place
in the allowance of `pace.hedge`. Each is given back where the request is not sent. The race itself is `race`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from streamguard.budgets.ledger import LedgerError
from streamguard.budgets.reservation import Reservation
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.engine.dispatch import Dispatch, Permit
from streamguard.engine.recorder import Recorder
from streamguard.engine.runtime import Runtime
from streamguard.engine.streams.race import Lane, Race
from streamguard.engine.telemetry import AttemptAborted, Hedged
from streamguard.events import Failed
from streamguard.outcome import AttemptRecord
from streamguard.retry.feedback import Feedback
from streamguard.retry.quota import is_outage
from streamguard.verdict import Decision, Trip

_log = logging.getLogger("streamguard")


class Hedging:
    """The second requests of one call: at most one for each of its attempts.

    :param dispatch: the call's own, which goes on with the turn of whichever request the call goes on with.
    :param records: the call's, to which the slower request is added.
    :param make: makes an attempt of its number, its permit and a clock.
    :param open_: opens an attempt; see `RunningAttempt.open`.
    :param took: told that the second request is the call's own now.
    """

    def __init__(
        self,
        runtime: Runtime,
        clock: CallClock,
        dispatch: Dispatch,
        feedback: Feedback,
        recorder: Recorder,
        records: list[AttemptRecord],
        *,
        make: Callable[[int, Permit, CallClock], RunningAttempt],
        open_: Callable[[RunningAttempt, Dispatch], Awaitable[Trip | Failed | None]],
        took: Callable[[RunningAttempt, Reservation | None], None],
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._dispatch = dispatch
        self._feedback = feedback
        self._recorder = recorder
        self._records = records
        self._after: Decision | None = None
        """The decision by which the attempt was made; `None` for the first."""
        self._make = make
        self._open = open_
        self._took = took
        self._token: Feedback | None = None

    async def race(
        self, running: RunningAttempt, reservation: Reservation | None, after: Decision | None, *, due: float
    ) -> Lane:
        """Open an attempt, and a second one if it has no output when that is due. Return the one to go on with.

        :param after: the decision by which the attempt was made; `None` for the first.
        :param due: on the call's clock.
        """
        self._after, self._token = after, None
        first = Lane(running, self._dispatch, reservation, self._clock.beside())
        return await Race(first, self._clock, self, due=due).run()

    # What the race asks

    async def opened(self, lane: Lane) -> Trip | Failed | None:
        """See `race.Ways`."""
        return await self._open(lane.running, lane.dispatch)

    async def second(self, first: Lane, clock: CallClock) -> Lane | None:
        """See `race.Ways`."""
        dispatch, running = self._dispatch, first.running
        if dispatch.never_second(running.request, self._after) is not None:
            return None
        token = self._feedback.beside()
        if token is None:
            return None
        dispatch.spend_second()
        way, lane = dispatch.beside(clock), None
        try:
            permit = await way.clear_second(running, self._after)
            if permit is not None:
                lane = Lane(self._make(running.number + 1, permit, clock), way, permit.reservation, clock)
                self._token = token
        except LedgerError as error:
            _log.warning("a second request could not be made: %s", error)
        finally:
            if lane is None:
                dispatch.unspend_second()
                token.give_back()
        return lane

    async def ended(self, lane: Lane, end: Trip | Failed, second: Lane) -> None:
        """See `race.Ways`."""
        running, now = lane.running, lane.clock.now()
        if lane is second and not running.sent:
            await lane.dispatch.release(lane.reservation)
            self._dispatch.unspend_second()
            return
        running.end(end)
        await running.close()
        running.hedge = "lost" if lane is second else None
        request = running.request
        base_url = self._after.base_url if self._after else None
        cooldown = self._runtime.cooldown(request.model if request else None, base_url)
        Feedback.refused(end, cooldown, sent=running.began, now=now)
        if lane is not second and is_outage(end.reason):
            self._feedback.failed()
        charged = await lane.dispatch.settle(running, lane.reservation)
        patch = self._after.patch if self._after else None
        record = self._recorder.record(running, end, patch=patch, charged=charged)
        self._records.append(record)
        self._runtime.emit(AttemptAborted(attempt=record, **self._dispatch.about))

    def over(self, first: Lane, second: Lane, *, went_on: bool) -> None:
        """See `race.Ways`."""
        running = second.running
        end = second.found[1] if second.failed and second.found is not None else None
        if self._token is not None and not (isinstance(end, Trip | Failed) and is_outage(end.reason)):
            self._token.give_back()
        if not running.sent:
            return
        result: Literal["won", "lost"] = "won" if went_on and not second.failed else "lost"
        running.hedge = result
        if went_on:
            self._dispatch.take_over(second.dispatch)
            self._took(running, second.reservation)
        after, about = running.began - first.running.began, self._dispatch.about
        self._runtime.emit(Hedged(attempt=running.number, result=result, after=after, **about))
