"""Between the decision to send a request and its first byte: wait, take one's turn, reserve; and after it, settle.

In charge of everything shared that one attempt has to pass: the operator's pause, the cool-down, the budgets. It opens
no connection and decides no retry; it answers with what the attempt may send, or with how the attempt ended unsent.
"""

from __future__ import annotations

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
from streamguard.budgets.spec import Aborted, Billed, Evidence, Lost, NotBilled
from streamguard.budgets.upper_bound import Unbounded
from streamguard.engine.attempt import RunningAttempt, interrupt_trip, total_trip
from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.call_pace import CallPace
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import LimitsSeen
from streamguard.events import Failed
from streamguard.guards.metering import input_upper, is_final, output_upper
from streamguard.outcome import Charge, Waited
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
        self._about = about
        self._patient = patient
        self._shared = shared
        self._account: CallAccount | None = None
        self._pace = CallPace(policy.pace, runtime, clock, patient=patient)
        self._waited = {"pace": 0.0, "cooldown": 0.0, "budget": 0.0}
        self.denied: Denied | None = None
        """The denial that ended the call, if one did."""

    async def clear(self, request: Request | None, after: Decision | None) -> Permit | Trip | Failed:
        """Wait as decided and in turn, and reserve. What comes back instead of a permit ended the attempt unsent.

        :raises LedgerError: the ledger refuses to be used as the policy says.
        :raises ValueError: a budget is per a label that the call does not have.
        """
        clock = self._clock
        self._waited = dict.fromkeys(self._waited, 0.0)
        if after is not None and after.wait > 0:
            await clock.sleep(after.wait)
        ended = await self._in_turn(request, after)
        if ended is not None:
            self._pace.give_back()
            return ended
        since = clock.now()
        answer = await self._within_budgets(request, after)
        self._waited["budget"] = clock.now() - since
        if isinstance(answer, Permit):
            return msgspec.structs.replace(answer, waited=Waited(**self._waited))
        self._pace.give_back()
        return answer

    async def _in_turn(self, request: Request | None, after: Decision | None) -> Trip | Failed | None:
        """Wait while an operator paused, while all calls cool down, and for a turn in the pace."""
        clock, base_url = self._clock, after.base_url if after else None
        cooldown = self._runtime.cooldown(request.model if request else None, base_url)
        while True:
            ended: Trip | Failed | None = self._ended() or await self._unpaused()
            if ended is None:
                since = clock.now()
                ended = await self._turn(cooldown)
                self._waited["cooldown"] += clock.now() - since
            if ended is None:
                ended = await self._paced(request, base_url, unbegun=self._patient and after is None)
            # Somebody may have paused, or been refused, while this attempt waited for its turn.
            if ended is not None or (self._runtime.paused is None and cooldown.left(clock.now()) <= 0):
                return ended
            self._pace.give_back()

    async def _paced(self, request: Request | None, base_url: str | None, *, unbegun: bool) -> Trip | None:
        """Wait for a turn in the pace.

        :param unbegun: whether the call is one of a job that has sent nothing yet: then the wait is none of its time.
        """
        clock, since = self._clock, self._clock.now()
        with clock.until(math.inf if unbegun else clock.deadline):
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
        unbegun, since = self._patient and after is None, clock.now()
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
                    self._policy.budgets, job=runtime.job, labels=self._about["labels"]
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

    async def _reserve(self, request: Request, knob: str | None, deadline: float) -> Permit | Trip:
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
                if not isinstance(answer, Denied) or lowered or self._original is None:
                    break
                assert answer.bounds is not None  # a reservation's denial has them
                less = within_budget(request, self._original, answer.bounds, price, answer.unit, answer.available)
                if less is None:
                    break
                request = less
        except LedgerLost as error:
            return lost_trip(str(error))
        if isinstance(answer, Denied):
            self.denied = answer
            return _denied(answer)
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
        running.on_output = partial(self._pace.began, running)
        limits = end.limits if isinstance(end, Failed) else running.limits
        if limits is not None:
            self._pace.stated(limits)
            seen = LimitsSeen(
                attempt=running.number,
                model=running.request.model if running.request else None,
                sent=running.began,
                at=self._clock.now(),
                reason=None if end is None else end.reason,
                limits=limits,
                **self._about,
            )
            self._runtime.emit(seen)

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
        self._pace.give_back()
        if reservation is not None:
            await self._settled(reservation, NotBilled())

    async def settle(self, running: RunningAttempt, reservation: Reservation | None) -> tuple[Charge, ...]:
        """Charge an attempt that is over, by what is known of it. A ledger that is lost now does not take an answer
        back: its lease turns the hold uncertain, and the next admission fails closed."""
        self._pace.ended(running, self._output(running))
        return () if reservation is None else await self._settled(reservation, self._evidence(running))

    def _output(self, running: RunningAttempt) -> float | None:
        """≈ The output tokens of an attempt; `None` if it never began."""
        transcript = running.panel.transcript
        if transcript.metered and transcript.usage.output_tokens is not None:
            return transcript.usage.output_tokens
        if transcript.first_token_at is None:
            return None
        model = running.request.model if running.request else transcript.model
        return sum(transcript.weights().values()) * self._runtime.calibration.scale(model).mid

    async def _settled(self, reservation: Reservation, evidence: Evidence) -> tuple[Charge, ...]:
        try:
            return await reservation.settle(evidence, until=self.patience)
        except (LedgerLost, LedgerError) as error:
            _log.warning("an attempt could not be settled yet, so its whole hold stays taken: %s", error)
            return ()

    def _evidence(self, running: RunningAttempt) -> Evidence:
        transcript = running.panel.transcript
        if not running.sent or not running.billable:
            return NotBilled()
        model = running.request.model if running.request else transcript.model
        scale = self._runtime.calibration.scale(model)
        if is_final(transcript, running.request):
            book = self._runtime.pricebook(self._policy.prices)
            return Billed(transcript.usage, book.for_answer(running.request, transcript.model, transcript.usage))
        if transcript.metered:
            return Lost()  # a count that cannot be true is none
        if running.stream is None:
            # Accepted perhaps, and at work unseen.
            return Aborted(output_tokens=None)
        silent = 0.0 if transcript.output_at is None else self._clock.now() - transcript.output_at
        read = input_upper(transcript, running.request, scale)
        return Aborted(
            output_tokens=output_upper(transcript, running.request, scale, silent),
            input_tokens=read.tokens if read else None,
            cache_writes=read.cache_writes if read else True,
        )

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


def lost_trip(why: str) -> Trip:
    """Nothing may be spent, because nobody counts it any more."""
    return Trip(
        reason="budget.lost", message=f"without its ledger nothing may be spent: {why}", knob="budgets", guard="budgets"
    )


def _denied(denied: Denied) -> Trip:
    def amount(value: int) -> str:
        return f"${value / 1_000_000:.6f}" if denied.unit == "micro_usd" else f"{value} tokens"

    message = (
        f"not sent: the request may cost up to {amount(denied.asked)}, and budget {denied.scope} has "
        f"{amount(denied.available)} left of {amount(denied.cap)}"
    )
    if denied.held:
        message += f" ({amount(denied.held)} are held by calls that run)"
    return Trip(
        reason="budget.denied",
        message=message,
        knob="budgets",
        limit=denied.cap,
        observed=denied.asked,
        guard="budgets",
    )
