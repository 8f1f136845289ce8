"""Between the decision to send a request and its first byte: wait, take one's turn, reserve; and after it, settle.

In charge of everything shared that one attempt has to pass: the operator's pause, the cool-down, the budgets. It opens
no connection and decides no retry; it answers with what the attempt may send, or with how the attempt ended unsent.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
import msgspec

from streamguard.budgets.ledger import TAKE_BACK, Denied, LedgerError, LedgerLost
from streamguard.budgets.max_tokens import within_budget, within_caps
from streamguard.budgets.reservation import CallAccount, Reservation
from streamguard.budgets.spec import Evidence, NotBilled
from streamguard.budgets.upper_bound import Unbounded
from streamguard.engine.attempt import RunningAttempt, interrupt_trip, total_trip
from streamguard.engine.clock import CallClock
from streamguard.engine.failures import denied_trip, lost_trip
from streamguard.engine.pacing.call_breaker import CallBreaker
from streamguard.engine.pacing.call_pace import SILENT, CallPace
from streamguard.engine.pacing.call_warmup import CallWarmUp
from streamguard.engine.runtime import Runtime
from streamguard.engine.streams.evidence import evidence, output_tokens
from streamguard.engine.telemetry import BudgetDenied, LimitsSeen
from streamguard.events import Failed
from streamguard.outcome import Charge, Waited
from streamguard.pace.hedge import LOST, Hedges, Never
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.cooldown import Cooldown
from streamguard.source import Source
from streamguard.verdict import Decision, Trip

_log = logging.getLogger("streamguard")

ATTEMPT_LEASE = 180.0
"""Seconds that a hold outlives its last heartbeat. Longer than the default clocks let one read last, so that heartbeats
fall between reads; only a read that may last longer needs a task of its own beside it."""

LEFT_LIMIT = 0.05
"""Seconds that asking for a balance may take: a record is made richer by it, a retry must not wait for it."""

SETTLE_LIMIT = 5.0
"""Seconds that a call waits at the most for a ledger to settle it; after that it is settled behind its back."""

COUNT_LIMIT = 10.0
"""Seconds that the provider's count of the input may take, before a request is sent."""

CountInput = Callable[[Request], Awaitable[int | None]]
"""A source's `count_input`, if it has one."""

PAUSED_LOOK = 0.1
"""Seconds between looks whether an operator's pause is over."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt may send."""

    request: Request | None
    reservation: Reservation | None = None
    max_tokens_knob: str | None = None
    waited: Waited = Waited()


class Dispatch:
    """One call's way to the provider, attempt after attempt.

    :param about: what every telemetry record says of the call: its id, labels and group.
    """

    def __init__(
        self,
        policy: Policy,
        runtime: Runtime,
        clock: CallClock,
        source: Source,
        about: Mapping[str, Any],
        *,
        patient: bool = False,
        shared: bool = False,
    ) -> None:
        self._policy = policy
        self._runtime = runtime
        self._clock = clock
        self._original = source.request
        self._count: CountInput | None = getattr(source, "count_input", None)
        self.about = about
        """What every telemetry record says of the call."""
        self._patient = patient
        self._shared = shared
        self._account: CallAccount | None = None
        self._pace = CallPace(policy.pace, runtime, clock, patient=patient)
        self.breaker = CallBreaker(policy, runtime, clock, about)
        self._warm_up = CallWarmUp(runtime, clock, on=patient and policy.warm_up)
        self.hedges: Hedges | None = None
        """What is known of first tokens where the attempt goes; `None` without hedging."""
        self._times_first = True
        """Whether first tokens are noted: not those of second requests."""
        self._noted: RunningAttempt | None = None
        """The attempt whose first token was told."""
        self._waited = {"pace": 0.0, "cooldown": 0.0, "breaker": 0.0, "warm_up": 0.0, "budget": 0.0}
        self.denied: Denied | None = None
        """The denial that ended the call, if one did."""

    async def clear(self, request: Request | None, after: Decision | None) -> Permit | Trip | Failed | Decision:
        """Wait as decided and in turn, and reserve. What comes back instead of a permit ended the attempt unsent.

        :returns: a decision where the first attempt is to be made elsewhere, as it says: follow it, and clear again.
        :raises LedgerError: the ledger refuses to be used as the policy says.
        :raises ValueError: a budget is per a label that the call does not have.
        """
        clock = self._clock
        self._waited = dict.fromkeys(self._waited, 0.0)
        if after is not None and after.wait > 0 and after is not self.breaker.rerouted:
            await clock.sleep(after.wait)
        self.hedges = self._runtime.hedges(self._policy.hedge, *_place(request, after))
        if self.hedges is not None and after is None:
            self.hedges.began()
        ended = await self._in_turn(request, after)
        if ended is not None:
            self._give_back()
            return ended
        since = clock.now()
        answer = await self._within_budgets(request, after)
        self._waited["budget"] = clock.now() - since
        if isinstance(answer, Permit):
            return msgspec.structs.replace(answer, waited=Waited(**self._waited))
        self._give_back()
        return answer

    def _give_back(self) -> None:
        """Nothing is sent: give back the turn, and the look."""
        self._pace.give_back()
        self.breaker.leave()
        self._warm_up.leave()

    def _unbegun(self, after: Decision | None) -> bool:
        """Whether the call is one of a job that has sent nothing yet: then a wait is none of its time."""
        return self._patient and (after is None or after is self.breaker.rerouted)

    async def _in_turn(self, request: Request | None, after: Decision | None) -> Trip | Failed | Decision | None:
        """Wait while an operator paused, while all calls cool down, while the endpoint is down, and for a turn."""
        clock, base_url = self._clock, after.base_url if after else None
        cooldown = self._runtime.cooldown(request.model if request else None, base_url)
        while True:
            ended: Trip | Failed | Decision | None = self._ended() or await self._unpaused()
            if ended is None:
                since = clock.now()
                ended = await self._turn(cooldown)
                self._waited["cooldown"] += clock.now() - since
            if ended is None:
                since, unbegun = clock.now(), self._unbegun(after)
                ended = await self.breaker.enter(request, base_url, first=after is None, unbegun=unbegun)
                self._waited["breaker"] += clock.now() - since
            if ended is None:
                ended = await self._paced(request, base_url, unbegun=self._unbegun(after))
            # Somebody may have paused, or been refused, while this attempt waited for its turn.
            calm = self._runtime.paused is None and cooldown.left(clock.now()) <= 0
            if ended is not None or (calm and self.breaker.passes):
                return ended
            self._give_back()

    async def _paced(self, request: Request | None, base_url: str | None, *, unbegun: bool) -> Trip | None:
        """Wait for the row that writes the prefix of this one, and for a turn in the pace.

        :param unbegun: whether the call is one of a job that has sent nothing yet: then the wait is none of its time.
        """
        clock, since = self._clock, self._clock.now()
        with clock.until(math.inf if unbegun else clock.deadline):
            await self._warm_up.enter(request)
            self._waited["warm_up"] += (now := clock.now()) - since
            self._waited["pace"] += since - now
            await self._pace.take_turn(request, base_url)
        waited = clock.now() - since
        self._waited["pace"] += waited
        if unbegun:
            clock.leave_out(waited)
        return self._ended()

    async def _within_budgets(self, request: Request | None, after: Decision | None) -> Permit | Trip | Failed:
        """Lower `max_tokens` to what the caps allow, and reserve what the request can cost."""
        clock = self._clock
        knob: str | None = None
        if request is not None:
            request, knob = within_caps(request, self._policy.caps, self._policy.mode)
        if request is None or not self._policy.budgets:
            return Permit(request=request, max_tokens_knob=knob)
        answer: Permit | Trip | None = None
        # A patient call that has sent nothing yet waits for room as if it had not begun.
        unbegun, since = self._unbegun(after), clock.now()
        deadline = math.inf if unbegun else clock.deadline
        with clock.until(clock.deadline):
            answer = await self._opened()
        if answer is None and self._account is not None:
            with clock.until(deadline):
                answer = await self._reserve(request, knob, deadline)
        if unbegun:
            clock.leave_out(clock.now() - since)
        elif isinstance(answer, Trip) and self._patient and (ended := self._ended()) is not None:
            return ended  # no room before the deadline: it is the call that took too long
        return answer or self._ended() or lost_trip("no answer")

    def _ended(self) -> Trip | None:
        """The interrupt or the call's deadline, if one of them came."""
        clock = self._clock
        if not clock.over:
            return None
        return total_trip(clock) if clock.interrupted is None else interrupt_trip(clock.interrupted)

    async def _unpaused(self) -> Trip | None:
        while self._runtime.paused is not None:
            await self._clock.sleep(PAUSED_LOOK)
            if (ended := self._ended()) is not None:
                return ended
        return None

    async def _turn(self, cooldown: Cooldown) -> Trip | Failed | None:
        """Wait for a turn while all calls cool down."""
        clock = self._clock
        while True:
            at = cooldown.start(clock.now(), clock.deadline)
            if at is None:
                left = cooldown.left(clock.now())
                message = (
                    f"not sent: all calls wait, because the provider refused one ({cooldown.reason}), and this one's "
                    f"turn comes after its deadline (timeouts.total)"
                )
                return Failed(reason=cooldown.reason, message=message, retry_after=left, sent=False, billable=False)
            this_round = cooldown.round
            if at > clock.now():
                await clock.sleep(at - clock.now())
                if (ended := self._ended()) is not None:
                    return ended
            if cooldown.round == this_round:
                return None

    async def _opened(self) -> Trip | None:
        """Open the call's accounts, unless that was done before an earlier attempt."""
        if self._account is None:
            runtime = self._runtime
            try:
                self._account = await runtime.accounts.for_call(
                    self._policy.budgets, job=runtime.job, labels=self.about["labels"]
                )
            except LedgerLost as error:
                return lost_trip(str(error))
        return None

    async def _counted(self, request: Request, deadline: float) -> int | None:
        """The provider's own count of the input, where a budget rests on it; `None` where there is none."""
        if all(spec.input_bound == "proven" for spec in self._policy.budgets):
            return None
        place = f"counted by {request.model}"
        if place not in request.known and self._count is not None:
            request.known[place] = None  # an endpoint that hangs is not asked again
            with self._clock.until(min(deadline, self._clock.now() + COUNT_LIMIT)):
                request.known[place] = await self._count(request)
        counted: int | None = request.known.get(place)
        if counted is None:
            _log.warning("the provider did not count the input first, so budgets hold the proven bound (input_bound)")
        return counted

    async def _reserve(self, request: Request, knob: str | None, deadline: float | None) -> Permit | Trip:
        """:param deadline: until when to wait for room; `None`: not at all, for no less, and a denial is not told."""
        at_once = deadline is None
        deadline = -math.inf if deadline is None else deadline
        runtime, account = self._runtime, self._account
        assert account is not None
        price = runtime.pricebook(self._policy.prices).for_request(request)
        counted = await self._counted(request, deadline)
        try:
            for lowered in (False, True):
                answer = await account.reserve(
                    request,
                    price,
                    deadline=deadline,
                    own_until=deadline if self._patient else -math.inf,
                    held_until=deadline if self._patient and self._shared else -math.inf,
                    counted=counted,
                    input_tokens=-(-request.input_bytes // 3),
                    output_tokens=runtime.lengths.upper(request.model),
                    lease=ATTEMPT_LEASE,
                )
                if not isinstance(answer, Denied) or lowered or self._original is None or at_once:
                    break
                assert answer.bounds is not None  # a reservation's denial has them
                less = within_budget(request, self._original, answer.bounds, price, answer.unit, answer.available)
                if less is None:
                    break
                request = less
        except LedgerLost as error:
            return lost_trip(str(error))
        if isinstance(answer, Denied) and at_once:
            return denied_trip(answer)
        if isinstance(answer, Denied):
            self.denied = answer
            self._runtime.emit(
                BudgetDenied(
                    scope=answer.scope,
                    asked=answer.asked,
                    available=answer.available,
                    unit=answer.unit,
                    **self.about,
                )
            )
            return denied_trip(answer)
        if isinstance(answer, Unbounded):
            return Trip(reason="budget.unbounded", message=f"not sent: {answer.why}", knob="budgets", guard="budgets")
        return Permit(request=request, reservation=answer, max_tokens_knob=knob)

    async def held(self, reservation: Reservation | None) -> Trip | None:
        """Whether what was reserved is held still, right before it is sent: a machine may have been suspended since.

        :returns: why nothing may be sent; `None` if all is held.
        """
        lost: Trip | None = None
        if reservation is not None and self._clock.now() >= reservation.heartbeat_due:
            with self._clock.until(self._clock.deadline):
                lost = await self.beat(reservation)
        return lost

    def opened(self, running: RunningAttempt, end: Trip | Failed | None) -> None:
        """Take what the head of a response says of the provider's limits.

        :param end: what ended the attempt before its stream; `None` if it is open.
        """
        running.on_output = partial(self._began, running)
        limits = end.limits if isinstance(end, Failed) else running.limits
        if limits is not None:
            self._pace.stated(limits)
            if self.hedges is not None:
                self.hedges.stated(limits)
            seen = LimitsSeen(
                attempt=running.number,
                model=running.request.model if running.request else None,
                sent=running.began,
                at=self._clock.now(),
                reason=None if end is None else end.reason,
                limits=limits,
                **self.about,
            )
            self._runtime.emit(seen)

    def _began(self, running: RunningAttempt) -> None:
        """Tell of the first token."""
        self._pace.began(running)
        self.breaker.answered()
        self._warm_up.began(running.began)
        self._note(running)

    def _note(self, running: RunningAttempt) -> None:
        """Note how long a first token took, or how long it was waited for in vain. Once an attempt."""
        at, end = running.panel.transcript.first_token_at, running.ended
        if at is None and end is not None and end.reason in (*SILENT, LOST):
            at = self._clock.now()
        first = self._times_first and running.hedge is None
        if self.hedges is not None and first and at is not None and self._noted is not running:
            self._noted = running
            self.hedges.first_token(at - running.began)

    # A second request beside the first

    def second_due(self, running: RunningAttempt) -> float | None:
        """Return when a second request beside an attempt may be sent, on the call's clock; `None` for never."""
        delay = None if self.hedges is None else self.hedges.delay
        if delay is None:
            return None
        tokens = -(-running.request.input_bytes // 4) if running.request else 0
        return running.began + delay + self._policy.timeouts.first_token_per_1k_input * tokens / 1000

    def never_second(self, request: Request | None, after: Decision | None, *, spent: bool = False) -> Never | None:
        """Return why no second request may be sent now; `None` if one may.

        :param spent: whether it has its place in the allowance already.
        """
        if self.hedges is None:
            return "answers"
        model, base_url = _place(request, after)
        calm = self._runtime.cooldown(model, base_url).calm(self._clock.now()) and self._runtime.paused is None
        return self.hedges.never(cooling=not calm, broken=not self.breaker.closed, spent=spent)

    def beside(self, clock: CallClock) -> Dispatch:
        """Return the way of a second request, with a turn of its own. Its first token is no measure of a first one.

        :param clock: keeps its time.
        """
        other = copy.copy(self)
        other._clock, other._times_first = clock, False  # noqa: SLF001  a copy of its own kind
        other._pace = CallPace(self._policy.pace, self._runtime, clock, patient=self._patient)  # noqa: SLF001
        other.breaker = self.breaker.beside(clock)
        other._warm_up = CallWarmUp(self._runtime, clock, on=False)  # noqa: SLF001
        return other

    def take_over(self, other: Dispatch) -> None:
        """Go on with the turn of a second request; one's own has been reported."""
        self._pace, self.breaker = other._pace, other.breaker
        self._pace.keep_time_by(self._clock)
        self.breaker.keep_time_by(self._clock)

    def spend_second(self) -> None:
        """A second request is about to be sent."""
        if self.hedges is not None:
            self.hedges.spend()

    def unspend_second(self) -> None:
        """It was not sent after all."""
        if self.hedges is not None:
            self.hedges.give_back()

    async def clear_second(self, first: RunningAttempt, after: Decision | None) -> Permit | None:
        """Wait for a turn, and reserve as much again without waiting for room.

        :param first: the attempt whose request is sent once more.
        :returns: `None` if it may not be sent.
        """
        clock, since, request = self._clock, self._clock.now(), first.request
        sent = False
        try:
            with clock.until(clock.deadline):
                await self._pace.take_turn(request, _place(request, after)[1])
            waited = Waited(pace=clock.now() - since)
            # Somebody may have been refused while this one waited.
            if self._ended() is not None or self.never_second(request, after, spent=True) is not None:
                return None
            answer: Permit | Trip | None = Permit(request=request)
            if request is not None and self._account is not None:
                answer = None
                with clock.until(clock.deadline):
                    answer = await self._reserve(request, None, None)
            if not isinstance(answer, Permit):
                return None
            sent = True
            return msgspec.structs.replace(answer, waited=waited, max_tokens_knob=first.max_tokens_knob)
        finally:
            if not sent:
                self._pace.give_back()

    @staticmethod
    async def beat(reservation: Reservation) -> Trip | None:
        """Keep what is held alive. The reason if it is lost."""
        try:
            await reservation.heartbeat()
        except (LedgerLost, LedgerError) as error:
            return lost_trip(str(error))
        return None

    @property
    def patience(self) -> float:
        """Until when a ledger is waited for that hangs while something is settled: the call must end in time."""
        now = self._clock.now()
        return max(now + TAKE_BACK, min(self._clock.deadline, now + SETTLE_LIMIT))

    async def release(self, reservation: Reservation | None) -> None:
        """Give back what an attempt has that was never sent: what was reserved for it, and its turn."""
        self._give_back()
        if reservation is not None:
            await self._settled(reservation, NotBilled())

    async def settle(self, running: RunningAttempt, reservation: Reservation | None) -> tuple[Charge, ...]:
        """Charge an attempt that is over, by what is known of it. A ledger that is lost now does not take an answer
        back: its lease turns the hold uncertain, and the next admission fails closed."""
        self._note(running)
        self._pace.ended(running, output_tokens(running, self._runtime))
        self.breaker.ended(running)
        await self.breaker.tell()
        self._warm_up.leave()
        if reservation is None:
            return ()
        return await self._settled(reservation, evidence(running, self._runtime, self._policy, self._clock.now()))

    async def _settled(self, reservation: Reservation, evidence: Evidence) -> tuple[Charge, ...]:
        try:
            return await reservation.settle(evidence, until=self.patience)
        except (LedgerLost, LedgerError) as error:
            _log.warning("an attempt could not be settled yet, so its whole hold stays taken: %s", error)
            return ()

    async def left(self) -> dict[str, int]:
        """What the call's budgets have left; empty without budgets, or if nobody can be asked."""
        if self._account is None or self._clock.over:
            return {}
        try:
            with anyio.move_on_after(LEFT_LIMIT):
                return await self._account.left()
        except (LedgerLost, LedgerError) as error:
            _log.warning("the budget's balance is unknown: %s", error)
        return {}


def _place(request: Request | None, after: Decision | None) -> tuple[str | None, str | None]:
    """The model and the endpoint that a request goes to; `None` for the source's own."""
    return (request.model if request else None), (after.base_url if after else None)
