"""The engine: one guarded call, from the first attempt to an outcome or one typed error.

Once per attempt: admit, open, watch, close, settle, decide. Everything that can be decided without I/O is decided
elsewhere; this file only keeps the order, and keeps the promise that nothing is left open, whatever happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streamguard.attempt import End, RunningAttempt
from streamguard.callclock import CallClock
from streamguard.delivery import Delivery
from streamguard.errors import CallError, ConfigError, DeadlineExceeded, GaveUp, Interrupted, PolicyError
from streamguard.events import Event, Failed, Restarted
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome, Times
from streamguard.policy import Deliver, Policy
from streamguard.pricing import Price, cost
from streamguard.request import Request
from streamguard.retry import Decision, Situation, decide
from streamguard.runtime import Runtime
from streamguard.source import Source
from streamguard.telemetry import AttemptAborted, AttemptStarted, CallCompleted, CallGaveUp, RetryScheduled
from streamguard.usage import UsageRange, usage_range
from streamguard.verdict import Completed, Enough, Trip

TRIPPED_DRAIN = 0.05
"""Seconds to wait for the socket's end after a complete message that a guard rejected: enough to keep the connection
where the end came with the message, too short to delay a retry."""


class Call:
    """One call. Used by one task, but for `interrupt()`.

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
        labels: Mapping[str, Any] | None = None,
        group: str | None = None,
    ) -> None:
        check_source(source, policy)
        self.id = Runtime.call_id()
        self.outcome: Outcome | None = None
        self._source = source
        self._policy = policy
        self._runtime = runtime or Runtime()
        self._deliver: Deliver = deliver or policy.deliver
        self._keep = keep
        self._about: dict[str, Any] = {"labels": dict(labels or {}), "group": group}
        self._clock = CallClock(policy.timeouts.total)
        self._records: list[AttemptRecord] = []
        self._used: list[int] = []
        self._decision: Decision | None = None
        self._running: RunningAttempt | None = None
        self._delivery = Delivery(self._deliver, keep=keep)
        self._failure: CallError | None = None
        self._over = False

    def interrupt(self, by: str) -> None:
        """End the call as soon as possible; see `GuardedStream.abort`."""
        self._clock.interrupt(by)

    @property
    def record(self) -> CallRecord:
        """The call so far."""
        return CallRecord(**self._sums())

    async def next(self) -> list[Event] | None:
        """The next events for the consumer; `None` once the call is over and `outcome` stands.

        :raises CallError: the call ended otherwise.
        """
        try:
            while self.outcome is None and self._failure is None:
                events = await self._advance()
                if events:
                    return events
        except BaseException:
            await self.close()
            raise
        if self._failure is not None:
            raise self._failure
        return None

    async def close(self) -> None:
        """Leave the call, finished or not: nothing stays open."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()
            self._records.append(self._recorded(running, None, None))

    async def _advance(self) -> list[Event]:
        """One step: open an attempt, or read once from the open one."""
        running = self._running
        if running is None:
            return await self._start()
        over, end = await running.read()
        if not over:
            return self._delivery.take()
        accepted: Completed | None = None
        if end is None:
            end = await running.drain(self._policy.timeouts.close_grace)
            accepted = "whole"
        elif isinstance(end, Enough):
            accepted = end.completed
        elif running.panel.stopped:
            await running.drain(TRIPPED_DRAIN)
        if end is None or isinstance(end, Enough):
            return await self._accept(running, accepted)
        # What was read before the trip goes out only where the consumer has seen the attempt anyway.
        events = self._delivery.take() if self._deliver == "restarting" or self._delivery.delivered else []
        await self._abort(running, end)
        return events

    async def _start(self) -> list[Event]:
        number, decision, clock = len(self._records) + 1, self._decision, self._clock
        if decision is not None and decision.wait > 0:
            await clock.sleep(decision.wait)
        try:
            request = self._request()
            context = self._context(number, request)
            panel = Panel(self._policy.panel_guards, context, clock.now(), mode=self._policy.mode)
        except (ConfigError, ValueError) as error:
            if number == 1:
                raise error if isinstance(error, ConfigError) else PolicyError(str(error)) from error
            await self._stillborn(number, f"the patched request cannot be guarded: {error}")
            return []
        self._delivery = Delivery(self._deliver, keep=self._keep)
        running = RunningAttempt(number, request, panel, self._delivery, clock)
        model = request.model if request else None
        self._runtime.emit(AttemptStarted(call=self.id, attempt=number, model=model, **self._about))
        self._running = running
        end = await running.open(self._source)
        if end is not None:
            await self._abort(running, end)
            return []
        if number > 1 and self._deliver == "restarting" and self._keep:
            return [Restarted(attempt=number, decision=decision)]
        return []

    def _request(self) -> Request | None:
        original = self._source.request
        if original is None or self._decision is None or not self._decision.patch:
            return original
        return original.patched(self._decision.patch)

    def _context(self, number: int, request: Request | None) -> AttemptContext:
        model = request.model if request else None
        return AttemptContext(
            attempt=number,
            request=request,
            sees_bytes=self._source.sees_bytes,
            price=self._price(model),
            scale=self._runtime.calibration.scale(model or ""),
            # Four bytes a token, rounded up: only the allowance for long inputs is made of it.
            input_tokens=-(-request.input_bytes // 4) if request else None,
        )

    def _price(self, model: str | None) -> Price | None:
        return None if model is None else self._runtime.pricebook(self._policy.prices).price(model)

    async def _accept(self, running: RunningAttempt, completed: Completed | None) -> list[Event]:
        self._running = None
        panel = running.panel
        document = panel.document()
        rejected = bool(panel.observed) and not (document.complete if document else completed == "whole")
        if rejected or any(seen.trip.reason.startswith(("stop.", "json.")) for seen in panel.observed):
            completed = None
        message = running.stream.message() if running.stream is not None else None
        await running.close()
        record = self._recorded(running, None, completed)
        self._records.append(record)
        self._learn(running)
        self.outcome = Outcome(
            **self._sums(),
            completed=completed,
            value=document.value if document else None,
            text=document.text if document else panel.transcript.text,
            message=message,
        )
        self._runtime.emit(CallCompleted(call=self.id, outcome=self.outcome, **self._about))
        return self._delivery.commit()

    async def _abort(self, running: RunningAttempt, end: Trip | Failed) -> None:
        self._running = None
        await running.close()
        decision = self._decide(end, delivered=self._delivery.delivered and self._deliver == "live")
        self._follow(self._recorded(running, end, None, decision), end, decision)

    async def _stillborn(self, number: int, why: str) -> None:
        """An attempt that could not even be asked for."""
        end = Failed(reason="source.error", message=why, sent=False, billable=False)
        decision = self._decide(end, delivered=False)
        nothing = UsageRange.nothing()
        self._follow(AttemptRecord(number=number, ended=end, usage=nothing, decision=decision), end, decision)

    def _decide(self, end: Trip | Failed, *, delivered: bool) -> Decision:
        situation = Situation(
            attempt=len(self._records) + 1,
            used=tuple(self._used),
            now=self._clock.now(),
            deadline=self._clock.deadline,
            jitter=self._runtime.jitter(),
            delivered=delivered,
        )
        return decide(self._policy.retry, end, situation)

    def _follow(self, record: AttemptRecord, end: Trip | Failed, decision: Decision) -> None:
        """Keep the record of an attempt that was not accepted, and do as decided."""
        runtime, number = self._runtime, record.number
        self._records.append(record)
        self._decision = decision
        runtime.emit(AttemptAborted(call=self.id, attempt=record, **self._about))
        if decision.action == "retry":
            assert decision.rule is not None
            self._used.append(decision.rule)
            runtime.emit(RetryScheduled(call=self.id, attempt=number + 1, decision=decision, **self._about))
            return
        self._failure = failure = self._error(end, decision)
        runtime.emit(
            CallGaveUp(call=self.id, reason=end.reason, message=str(failure), record=failure.record, **self._about)
        )

    def _error(self, end: Trip | Failed, decision: Decision) -> CallError:
        record = self.record
        if end.reason == "timeout.total":
            return DeadlineExceeded(end.message, reason=end.reason, record=record, knob="timeouts.total")
        if end.reason == "operator.interrupt":
            by = str(end.observed) if isinstance(end, Trip) else "unknown"
            return Interrupted(end.message, reason=end.reason, record=record, by=by)
        attempts = len(record.attempts)
        tries = "the first attempt" if attempts == 1 else f"{attempts} attempts"
        return GaveUp(
            f"gave up after {tries}: {end.reason}: {end.message}; {decision.why}", reason=end.reason, record=record
        )

    def _recorded(
        self,
        running: RunningAttempt,
        end: End,
        completed: Completed | None,
        decision: Decision | None = None,
    ) -> AttemptRecord:
        panel, request, now = running.panel, running.request, self._clock.now()
        transcript = panel.transcript
        model = request.model if request else transcript.model
        usage = self._usage(running, end)
        price = self._price(model)
        document = panel.document()
        moment = end.at if isinstance(end, Trip) else None
        high = usage.high.output_tokens
        return AttemptRecord(
            number=running.number,
            patch=self._decision.patch if self._decision else None,
            model=model,
            ended=None if isinstance(end, Enough) else end,
            completed=completed,
            stop_reason=transcript.stop_reason,
            request_id=end.request_id if isinstance(end, Failed) and end.request_id else transcript.id,
            text=transcript.text,
            value=document.value if document else None,
            usage=usage,
            cost=Cost(
                None if price is None else cost(price, usage.low), None if price is None else cost(price, usage.high)
            ),
            times=Times(
                head=_since(running.began, running.head_at),
                first_token=_since(running.began, transcript.first_token_at),
                dead=_since(running.began, moment),
                end=now - running.began,
            ),
            saved_tokens=self._saved(model, running) if isinstance(end, Trip) else None,
            observed=tuple(
                msgspec.structs.replace(seen, saved_tokens=_share_after(seen.characters, transcript.characters, high))
                for seen in panel.observed
            ),
            decision=decision,
        )

    def _usage(self, running: RunningAttempt, end: End) -> UsageRange:
        if not running.sent or (isinstance(end, Failed) and not end.billable):
            return UsageRange.nothing()
        return usage_range(running.panel.transcript, running.request, self._runtime.calibration)

    def _saved(self, model: str | None, running: RunningAttempt) -> int | None:
        expected = self._runtime.lengths.expected(model)
        if expected is None:
            return None
        weight = sum(running.panel.transcript.weights().values())
        return max(0, expected - round(weight * self._runtime.calibration.scale(model or "").mid))

    def _learn(self, running: RunningAttempt) -> None:
        """From an answer that was read to its end: how many tokens its text was, and how long answers are."""
        transcript = running.panel.transcript
        usage, model = transcript.usage, (running.request.model if running.request else transcript.model)
        if model is None or not transcript.metered or usage.output_tokens is None:
            return
        self._runtime.lengths.observe(model, usage.output_tokens)
        weights = transcript.weights()
        # Thinking may be summarised or hidden, so only what was visible in full teaches anything.
        visible = usage.output_tokens - (usage.thinking_tokens or 0)
        if "thinking" not in weights or usage.thinking_tokens is not None:
            weight = sum(weight for kind, weight in weights.items() if kind != "thinking")
            self._runtime.calibration.observe(model, weight, visible)

    def _sums(self) -> dict[str, Any]:
        records = self._records
        costs = [record.cost for record in records]
        return {
            "attempts": tuple(records),
            "usage": UsageRange.total(record.usage for record in records),
            "cost": sum(costs, Cost(0, 0)),
            "seconds": self._clock.now() - self._clock.began,
            "lag": self._clock.lag,
            **self._about,
        }


def _since(began: float, moment: float | None) -> float | None:
    return None if moment is None else moment - began


def _share_after(before: int, total: int, tokens: int | None) -> int | None:
    """≈ Tokens of a text that came after its first `before` of `total` characters."""
    return None if tokens is None or not total else round(tokens * (1 - before / total))


def check_source(source: Source, policy: Policy) -> None:
    """Refuse what a policy asks for and a source cannot give.

    :raises PolicyError: naming the knob.
    """
    if not source.sees_bytes and policy.timeouts.alive is not None and "alive" in policy.timeouts.model_fields_set:
        raise PolicyError(
            "timeouts.alive: this source does not show pings, so the clock would trip on healthy silence; "
            "set timeouts.alive to null, or use messages(client, …), which reads the wire itself"
        )
    if source.request is None:
        patched = [i for i, rule in enumerate(policy.retry.rules) if rule.patch]
        needs = [
            *(f"retry.rules[{i}].patch" for i in patched[:1]),
            *(["budgets"] if policy.budgets else []),
            *(["json.schema: request"] if policy.json_document and policy.json_document.schema_ == "request" else []),
        ]
        if needs:
            raise PolicyError(f"{needs[0]} needs a source that shows its request; this one has none")
