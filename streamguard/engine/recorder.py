"""The record of an attempt: what it said, used, cost and took, what may be claimed of its answer, and what its end
teaches about a model's tokens.

In charge of turning a finished attempt into plain data. It decides nothing and opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.engine.runtime import Runtime
from streamguard.events import Failed
from streamguard.guards.base import Document
from streamguard.guards.metering import lesson, usage_range
from streamguard.guards.panel import Panel
from streamguard.outcome import AttemptRecord, Charge, Cost, Times
from streamguard.pace.hedge import LOST
from streamguard.policy.model import Policy
from streamguard.pricing.bill import bill_range
from streamguard.pricing.price import Price
from streamguard.request import Request
from streamguard.usage import UsageRange
from streamguard.verdict import Completed, Decision, Trip


class Recorder:
    """Makes the records of one call's attempts."""

    def __init__(self, runtime: Runtime, policy: Policy, clock: CallClock) -> None:
        self._runtime = runtime
        self._policy = policy
        self._clock = clock

    def price(self, request: Request | None, model: str | None) -> Price | None:
        """Of this very request, its speed and region included, or of the model where no request is shown."""
        book = self._runtime.pricebook(self._policy.prices)
        return book.price(model) if request is None else book.for_request(request)

    def record(
        self,
        running: RunningAttempt,
        end: Trip | Failed | None = None,
        *,
        completed: Completed | None = None,
        patch: Mapping[str, Any] | None = None,
        decision: Decision | None = None,
        charged: tuple[Charge, ...] = (),
    ) -> AttemptRecord:
        """One attempt that is over.

        :param end: why it was not accepted; `None` for one that was, or that was left.
        """
        panel, request, now = running.panel, running.request, self._clock.now()
        transcript = panel.transcript
        model = request.model if request else transcript.model
        usage = self._usage(running, end)
        prices = self._runtime.pricebook(self._policy.prices).for_answer(request, transcript.model, transcript.usage)
        document = panel.document()
        moment = end.at if isinstance(end, Trip) else None
        high = usage.high.output_tokens
        return AttemptRecord(
            number=running.number,
            patch=patch,
            hint=running.hint,
            model=model,
            ended=end,
            completed=completed,
            stop_reason=transcript.stop_reason,
            request_id=(end.request_id if isinstance(end, Failed) else None) or running.request_id or transcript.id,
            text=transcript.text,
            value=document.value if document else None,
            usage=usage,
            cost=Cost(*bill_range(prices, usage, transcript.usage)),
            times=Times(
                head=_since(running.began, running.head_at),
                first_token=_since(running.began, transcript.first_token_at),
                dead=_since(running.began, moment),
                end=now - running.began,
            ),
            saved_tokens=self._saved(model, running, end) if isinstance(end, Trip) else None,
            observed=tuple(
                msgspec.structs.replace(seen, saved_tokens=_share_after(seen.characters, transcript.characters, high))
                for seen in panel.observed
            ),
            marked=tuple(trip for trip, _ in panel.marked),
            decision=decision,
            charged=charged,
            limits=(end.limits if isinstance(end, Failed) else None) or running.limits,
            waited=running.waited,
            hedge=running.hedge,
        )

    def _usage(self, running: RunningAttempt, end: Trip | Failed | None) -> UsageRange:
        if not running.sent or (isinstance(end, Failed) and not end.billable):
            return UsageRange.nothing()
        return usage_range(running.panel.transcript, running.request, self._runtime.calibration)

    def _saved(self, model: str | None, running: RunningAttempt, end: Trip) -> int | None:
        if end.reason == LOST:
            return 0  # another request has its answer, and that one is paid
        expected = self._runtime.lengths.expected(model)
        if expected is None:
            return None
        transcript = running.panel.transcript
        weight = sum(transcript.weights().values()) + transcript.framing()
        return max(0, expected - round(weight * self._runtime.calibration.scale(model or "").mid))

    def learn(self, running: RunningAttempt, record: AttemptRecord) -> None:
        """From an answer that was read to its end: how many tokens its text was, and how long answers are."""
        transcript = running.panel.transcript
        usage, model = transcript.usage, (running.request.model if running.request else transcript.model)
        if model is None or usage.output_tokens is None or not record.usage.exact or len(usage.iterations or ()) > 1:
            return  # of other counts nobody knows what was visible
        if not transcript.given:
            self._runtime.lengths.observe(model, usage.output_tokens)
        if (found := lesson(transcript)) is not None:
            self._runtime.calibration.observe(model, *found)


JUDGES = frozenset({"completion", "json"})
"""The guards whose word `completed` gives: the protocol was kept, the end is a good one, the document is valid."""


def would_have_rejected(panel: Panel, document: Document | None, completed: Completed | None) -> bool:
    """Whether a guard that only observes would not have let the answer stand.

    Judged by the end: an observed clock that an answer outlived says nothing about the answer.
    """
    if any(seen.trip.guard in JUDGES for seen in panel.observed):
        return True
    if completed == "enough":
        return False
    return not (document.complete if document else completed == "whole")


def _since(began: float, moment: float | None) -> float | None:
    return None if moment is None else moment - began


def _share_after(before: int, total: int, tokens: int | None) -> int | None:
    """≈ Tokens of a text that came after its first `before` of `total` characters."""
    return None if tokens is None or not total else round(tokens * (1 - before / total))
