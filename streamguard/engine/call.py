"""The engine: one guarded call, from the first attempt to an outcome or one typed error.

Once per attempt: admit, open, watch, close, settle, decide. Everything that can be decided without I/O is decided
elsewhere; this file only keeps the order, and keeps the promise that nothing is left open, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamguard.budgets.reservation import Reservation
from streamguard.budgets.spec import refuse_unshared
from streamguard.engine.attempt import End, RunningAttempt, unexpected
from streamguard.engine.clock import CallClock
from streamguard.engine.continuation import CUT, Continuation, continuation
from streamguard.engine.deciding import Deciding
from streamguard.engine.delivery import Delivery
from streamguard.engine.dispatch import Dispatch, Permit
from streamguard.engine.failures import call_error
from streamguard.engine.recorder import Recorder, would_have_rejected
from streamguard.engine.runtime import Runtime
from streamguard.engine.snapshot import CallSnapshot, snapshot
from streamguard.engine.streams.hedging import Hedging
from streamguard.engine.streams.keeping import Keeper
from streamguard.engine.telemetry import (
    AttemptAborted,
    AttemptStarted,
    CallCompleted,
    CallGaveUp,
    CallLeft,
    RetryScheduled,
)
from streamguard.errors import CallError, PolicyError, StreamguardError
from streamguard.events import Event, Failed, Restarted
from streamguard.guards.base import AttemptContext, Document
from streamguard.guards.grounding.source import Given, SourceTexts
from streamguard.guards.panel import Panel
from streamguard.outcome import AttemptRecord, CallRecord, Charge, Cost, Outcome
from streamguard.policy.model import Deliver, Policy
from streamguard.request import Request
from streamguard.retry.feedback import Feedback
from streamguard.source import MessageRefused, Source, check_source
from streamguard.usage import UsageRange
from streamguard.verdict import Completed, Decision, Enough, Trip

TRIPPED_DRAIN = 0.05
"""Seconds to wait for the socket's end after a complete message that a guard rejected: enough to keep the connection
where the end came with the message, too short to delay a retry."""

CUT_GRACE = 0.1
"""Seconds to wait at least for the provider's own end once a document closed; `timeouts.close_grace`, if that is
longer, as long as only closing frames come. It usually comes within milliseconds."""

Judge = Callable[[Any, Document | None], Any]
"""Has the last word on the assembled message of an answer that stands: gives the message to hand on, or raises
`MessageRefused`."""


class Call:
    """One call. Used by one task, but for `interrupt()`.

    :param patient: whether to wait for room in budgets that other calls of this process hold, and to count such a wait
        before the first attempt as no time of the call; with `shared`, in budgets that any process holds.
    :param sent: called when the first attempt is about to be sent.
    :param source_text: what the values of `json.grounded` are held against, as in `streamguard.run`.
    :raises PolicyError: the policy asks for something that this source cannot give.
    """

    def __init__(
        self,
        source: Source,
        policy: Policy,
        runtime: Runtime | None,
        *,
        deliver: Deliver | None = None,
        keep: bool = True,
        judge: Judge | None = None,
        labels: Mapping[str, Any] | None = None,
        group: str | None = None,
        patient: bool = False,
        shared: bool = False,
        sent: Callable[[], None] | None = None,
        source_text: Given = None,
    ) -> None:
        self._deliver: Deliver = deliver or policy.deliver or "committed"
        check_source(source, policy, self._deliver)
        self.id = Runtime.call_id()
        self.outcome: Outcome | None = None
        self.policy = policy
        self.clock = CallClock(policy.timeouts.total)
        self.about: dict[str, Any] = {"labels": dict(labels or {}), "group": group}
        """The caller's labels and group, which go into every record."""
        self.running: RunningAttempt | None = None
        """The attempt that is open, if one is."""
        self._source = source
        self._sources = SourceTexts(source_text, source.request)
        if runtime is None:
            refuse_unshared(policy.budgets)
        self._runtime = runtime or Runtime()
        self._owns_runtime = runtime is None
        self._keep = keep
        self._sent = sent
        self._judge = judge
        self._records: list[AttemptRecord] = []
        self._reservation: Reservation | None = None
        self._charged: tuple[Charge, ...] = ()
        self._found: tuple[bool, End] | None = None
        """What a race of two streams has read already."""
        about, waits = {"call": self.id, **self.about}, {"patient": patient, "shared": shared}
        self._dispatch = Dispatch(policy, self._runtime, self.clock, source, about, **waits)
        self._feedback = Feedback(None if policy.retry.quota is None else self._runtime.quota(policy.retry.quota))
        self._deciding = Deciding(policy, self._runtime, self.clock, self._feedback, self._records, source.request)
        self._delivery = Delivery(self._deliver, keep=keep)
        self.failure: CallError | None = None
        self._ending = False  # whether all of the answer was handed out, and only the socket's end is still to come
        self._patched: Request | None = None
        self._hint: str | None = None
        """What the request of the attempt says of the answer before."""
        self._recorder = Recorder(self._runtime, policy, self.clock)
        parts = (self._runtime, self.clock, self._dispatch, self._feedback, self._recorder, self._records)
        self._hedging = Hedging(*parts, make=self._attempt, open_=self._open, took=self._go_on_with)
        self._continuation: Continuation | None = None
        """What the next attempt, or the one that runs, goes on from."""
        self._shown = False
        """Whether the consumer has its text already, and cannot take it back."""

    def interrupt(self, by: str) -> None:
        """End the call as soon as possible; see `GuardedStream.interrupt`."""
        self.clock.interrupt(by)

    async def run(self) -> Outcome:
        """Drive the call to its end, and return the outcome.

        :raises CallError: the call ended without one.
        """
        while await self.next() is not None:
            pass
        assert self.outcome is not None
        return self.outcome

    @property
    def unsent(self) -> bool:
        """Whether nothing of the call has been sent, or is about to be: it waits for its first attempt."""
        return self.running is None and not self._records and self.outcome is None

    @property
    def record(self) -> CallRecord:
        """The call so far."""
        return CallRecord(**self._sums())

    def snapshot(self) -> CallSnapshot:
        """Look at the call as it is at this moment, without touching it."""
        return snapshot(
            self.id,
            about=self.about,
            clock=self.clock,
            running=self.running,
            before=tuple(self._records),
            attempts=self.policy.retry.attempts,
        )

    async def next(self) -> list[Event] | None:
        """The next events for the consumer; `None` once the call is over and `outcome` stands.

        :raises CallError: the call ended otherwise.
        """
        try:
            while self.outcome is None and self.failure is None:
                events = await self._advance()
                if events:
                    return events
        except BaseException:
            await self.close()
            raise
        await self._over()
        if self.failure is not None:
            raise self.failure
        return None

    async def close(self) -> None:
        """Leave the call, finished or not: nothing stays open."""
        try:
            if self._ending and self.outcome is None and self.running is not None:
                await self._accept(self.running, "whole")  # it was handed out, and stands without the socket's end
        finally:
            await self._leave()

    async def _leave(self) -> None:
        begun = self._runtime.calls.pop(self.id, None) is not None
        running, self.running = self.running, None
        try:
            if running is not None:
                await running.close()
        finally:
            if running is None:
                self._feedback.unsent()
                await self._release()
            else:
                if running.panel.transcript.first_token_at is not None and not running.failed:
                    self._answered(running)
                self._records.append(
                    self._recorder.record(running, patch=self._patch, charged=await self._settle(running))
                )
            if begun:
                self._runtime.emit(CallLeft(call=self.id, record=self.record, **self.about))
            await self._over()

    async def _over(self) -> None:
        """Nothing of the call runs any more."""
        if self._owns_runtime:
            await self._runtime.aclose(until=self._dispatch.patience)

    async def _advance(self) -> list[Event]:
        """One step: open an attempt, or read once from the open one."""
        running = self.running
        if running is None:
            return await self._start()
        found, self._found = self._found, None
        if found is None:
            found = (True, None) if self._ending else await Keeper(self._reservation, self.clock).read(running)
        over, end = found
        if not over:
            return self._delivery.take()
        accepted: Completed | None = None
        if end is None:
            open_end = self._judge is None and self._deliver != "committed"
            if open_end and not self._ending and self._delivery.ready:
                self._ending = True  # the answer is final: whoever reads along need not wait for the socket's end
                return self._delivery.take()
            await running.drain(self.policy.timeouts.close_grace)
            accepted = "whole"
        elif isinstance(end, Enough):
            accepted = end.completed
            if accepted == "cut":
                accepted = await running.hear_out(max(self.policy.timeouts.close_grace, CUT_GRACE), CUT_GRACE)
        elif running.panel.stopped:
            await running.drain(TRIPPED_DRAIN)
        if end is None or isinstance(end, Enough):
            return await self._accept(running, accepted)
        # What was read before the trip goes out only where the consumer has seen the attempt anyway.
        events = self._delivery.take() if self._deliver == "restarting" or self._delivery.delivered else []
        await self._abort(running, end)
        return events

    async def _start(self) -> list[Event]:
        number = len(self._records) + 1
        self._ending = False
        if number == 1 and self._deciding.last is None:
            self._runtime.calls[self.id] = self
            self._feedback.begin()
        try:
            permit = await self._dispatch.clear(self._request(), self._deciding.last)
            if isinstance(permit, Decision):
                self._deciding.follow(permit)
                return []
            if not isinstance(permit, Permit):
                await self._unsent(number, permit)
                return []
            self._reservation, self._charged = permit.reservation, ()
            running = self._attempt(number, permit, self.clock)
        except (StreamguardError, ValueError) as error:
            await self._release()
            if number == 1:
                raise error if isinstance(error, StreamguardError) else PolicyError(str(error)) from error
            why = f"the patched request cannot be guarded: {error}"
            await self._unsent(number, Failed(reason="source.error", message=why, sent=False, billable=False))
            return []
        if (lost := await self._dispatch.held(self._reservation)) is not None:
            await self._release()
            await self._unsent(number, lost)
            return []
        self._delivery, going_on = running.delivery, self._continuation
        source = going_on.source(self._source) if going_on else self._source
        self.running = running
        if self._dispatch.breaker.probing:
            self._feedback.give_back()  # a look costs no retry
        self._feedback.sent()
        if number == 1 and self._sent is not None:
            self._sent()
        due = None if going_on or number >= self.policy.retry.attempts else self._dispatch.second_due(running)
        opening = self._open(running, self._dispatch, source) if due is None else self._race(running, due)
        if (end := await opening) is not None:
            await self._abort(self.running, end)
            return []
        if number > 1 and self._deliver == "restarting" and self._keep:
            return [Restarted(attempt=self.running.number, decision=self._deciding.last)]
        return []

    async def _open(
        self, running: RunningAttempt, dispatch: Dispatch, source: Source | None = None
    ) -> Trip | Failed | None:
        model = running.request.model if running.request else None
        self._runtime.emit(AttemptStarted(call=self.id, attempt=running.number, model=model, **self.about))
        base_url = self._deciding.last.base_url if self._deciding.last else None
        end = await running.open(source or self._source, base_url, connect=self.policy.connect_limit)
        dispatch.opened(running, end)
        return end

    async def _race(self, running: RunningAttempt, due: float) -> Trip | Failed | None:
        """Open an attempt, and a second one beside it if no output has come when that is due."""
        lane = await self._hedging.race(running, self._reservation, self._deciding.last, due=due)
        self._found = lane.found
        return lane.unopened

    def _go_on_with(self, running: RunningAttempt, reservation: Reservation | None) -> None:
        """A second request is the call's own from now on; the first one is over."""
        self.running, self._reservation, self._charged = running, reservation, ()
        self._delivery = running.delivery

    async def _settle(self, running: RunningAttempt) -> tuple[Charge, ...]:
        reservation, self._reservation = self._reservation, None
        self._charged = await self._dispatch.settle(running, reservation) or self._charged
        return self._charged

    async def _release(self) -> None:
        """Give back what an attempt has that was never sent: its hold and its turn."""
        reservation, self._reservation = self._reservation, None
        await self._dispatch.release(reservation)

    def _request(self) -> Request | None:
        original, decision = self._source.request, self._deciding.last
        self._patched = original
        if original is not None and decision is not None:
            patched = original.patched(decision.patch) if decision.patch else original
            hinted = patched.with_note(decision.hint) if decision.hint else None
            self._hint = decision.hint if hinted else None
            self._patched = (hinted or patched).to(decision.base_url)
        if self._patched is not None and self._continuation is not None:
            self._patched = self._continuation.request(self._patched)
        return self._patched

    def _attempt(self, number: int, permit: Permit, clock: CallClock) -> RunningAttempt:
        """Make an attempt that may be sent.

        :raises ValueError: its request cannot be guarded.
        """
        going_on = self._continuation
        accepts = self._deciding.accepts(lambda: self._seen)
        how: dict[str, Any] = {"mode": self.policy.mode, "accepts": accepts}
        panel = Panel(self.policy.panel_guards, self._context(number, permit), clock.now(), **how)
        panel.transcript.given = going_on.weight if going_on else 0.0
        delivery = Delivery(self._deliver, keep=self._keep, after=going_on if self._shown else None)
        running = RunningAttempt(number, permit.request, panel, delivery, clock)
        running.waited, running.max_tokens_knob = permit.waited, permit.max_tokens_knob
        running.hint = self._hint
        return running

    def _context(self, number: int, permit: Permit) -> AttemptContext:
        request = permit.request
        model = request.model if request else None
        return AttemptContext(
            attempt=number,
            request=request,
            sees_bytes=self._source.sees_bytes,
            times_connection=getattr(self._source, "times_connection", False) is True,
            sources=self._sources,
            price=self._recorder.price(request, model),
            scale=self._runtime.calibration.scale(model or ""),
            # Four bytes a token, rounded up: only the allowance for long inputs is made of it.
            input_tokens=-(-request.input_bytes // 4) if request else None,
            max_tokens_knob=permit.max_tokens_knob,
        )

    async def _accept(self, running: RunningAttempt, completed: Completed | None) -> list[Event]:
        # `running` is let go of last: whoever cancels in between still has the attempt closed, settled and recorded.
        panel = running.panel
        document = panel.document()
        if panel.observed and would_have_rejected(panel, document, completed):
            completed = None
        message = None
        try:
            message = running.stream.message() if running.stream is not None else None
            message = self._judge(message, document) if self._judge is not None else message
        except Exception as error:  # whatever a source of one's own raises: the call must end in one typed error
            await self._abort(running, error.trip if isinstance(error, MessageRefused) else unexpected(error))
            return []
        await running.close()
        self._answered(running)
        kept = next((decision for _, decision in panel.marked), None)
        charged = await self._settle(running)
        record = self._recorder.record(running, completed=completed, patch=self._patch, decision=kept, charged=charged)
        self.running = None
        self._records.append(record)
        self._recorder.learn(running, record)
        self.outcome = Outcome(
            **self._sums(),
            completed=completed,
            value=document.result if document else None,
            plain=document.value if document and document.instance is not msgspec.UNSET else msgspec.UNSET,
            text=document.text if document else panel.transcript.text,
            message=message,
            marked=record.marked,
        )
        self._runtime.calls.pop(self.id, None)
        self._runtime.emit(CallCompleted(call=self.id, outcome=self.outcome, **self.about))
        return self._delivery.commit()

    async def _abort(self, running: RunningAttempt, end: Trip | Failed) -> None:
        running.end(end)
        await running.close()
        answers = running.panel.stopped or running.panel.transcript.first_token_at is not None
        if running.failed:
            self._feedback.failed()
        elif answers:
            self._answered(running)
        charged, left = await self._settle(running), await self._dispatch.left()
        self.running = None
        shown = self._seen
        # An attempt that broke before it went on is as good as none: the text before it stands.
        rest = continuation(end, running.panel.transcript, self._source.request) or (
            self._continuation if end.reason in CUT and self._continuation and not self._continuation.given else None
        )
        if self.policy.json_document is not None:
            rest = None
        decision = self._deciding.after(
            end, self._asked, running.began, delivered=shown, left=left, resumable=rest is not None
        )
        resumes = decision.rule is not None and self.policy.retry.rules[decision.rule].resume == "continue"
        self._continuation, self._shown = (rest if resumes else None), shown
        self._follow(
            self._recorder.record(running, end, patch=self._patch, decision=decision, charged=charged),
            end,
            decision,
        )

    async def _unsent(self, number: int, end: Trip | Failed) -> None:
        """An attempt that was never sent."""
        self._feedback.unsent()
        decision = self._deciding.after(end, self._asked, None, delivered=self._shown, left=await self._dispatch.left())
        nothing = UsageRange.nothing()
        self._follow(
            AttemptRecord(number=number, ended=end, usage=nothing, cost=Cost(0, 0), decision=decision), end, decision
        )

    def _answered(self, running: RunningAttempt) -> None:
        self._feedback.answered(self._deciding.cooldown(running.request), sent=running.began)

    def _follow(self, record: AttemptRecord, end: Trip | Failed, decision: Decision) -> None:
        """Keep the record of an attempt that was not accepted, and do as decided."""
        runtime, number = self._runtime, record.number
        self._records.append(record)
        self._deciding.follow(decision)
        runtime.emit(AttemptAborted(call=self.id, attempt=record, **self.about))
        if decision.action == "retry":
            runtime.emit(RetryScheduled(call=self.id, attempt=number + 1, decision=decision, **self.about))
            return
        self.failure = failure = call_error(end, decision, self.record, self._dispatch.denied)
        self._runtime.calls.pop(self.id, None)
        runtime.emit(
            CallGaveUp(call=self.id, reason=end.reason, message=str(failure), record=failure.record, **self.about)
        )

    @property
    def _patch(self) -> Mapping[str, Any] | None:
        decided = self._deciding.last
        return decided.patch if decided else None

    @property
    def _asked(self) -> Request | None:
        """The request of the attempt, as far as it was made."""
        return self._patched or self._source.request

    @property
    def _seen(self) -> bool:
        """Whether the consumer has output that cannot be taken back."""
        return self._deliver == "live" and (self._shown or self._delivery.delivered)

    def _sums(self) -> dict[str, Any]:
        records = self._records
        return {
            "attempts": tuple(records),
            "usage": UsageRange.total(record.usage for record in records),
            "cost": sum((record.cost for record in records), Cost(0, 0)),
            "seconds": self.clock.now() - self.clock.began,
            "lag": self.clock.lag,
            **self.about,
        }
