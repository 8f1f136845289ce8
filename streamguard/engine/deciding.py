"""What follows from an attempt, with all that the call knows: ask again, give up, or keep the answer and mark it.

In charge of gathering what `retry.rules` decides by, and of telling the cool-down and the quota that calls share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from streamguard.engine.clock import CallClock
from streamguard.engine.runtime import Runtime
from streamguard.events import Failed
from streamguard.outcome import AttemptRecord
from streamguard.policy.hinting import next_hint
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.cooldown import COOLING, Cooldown
from streamguard.retry.feedback import Feedback
from streamguard.retry.rules import RetryState, accepted, decide
from streamguard.verdict import Decision, Trip


class Deciding:
    """The decisions of one call.

    :param records: the attempts so far; the call's own list.
    :param original: the request as the caller made it.
    """

    def __init__(
        self,
        policy: Policy,
        runtime: Runtime,
        clock: CallClock,
        feedback: Feedback,
        records: list[AttemptRecord],
        original: Request | None,
    ) -> None:
        self._original = original
        self._policy = policy
        self._runtime = runtime
        self._clock = clock
        self._feedback = feedback
        self._records = records
        self._used: list[int] = []
        self.last: Decision | None = None
        """What was decided after the attempt before; `None` for the first."""

    def cooldown(self, request: Request | None) -> Cooldown:
        """Of where an attempt goes."""
        return self._runtime.cooldown(request.model if request else None, self.last.base_url if self.last else None)

    def after(
        self,
        end: Trip | Failed,
        request: Request | None,
        sent: float | None,
        *,
        delivered: bool,
        left: Mapping[str, int],
        resumable: bool = False,
    ) -> Decision:
        """What follows. A refusal for overload also holds back everybody else who asks the same model.

        :param request: of the attempt.
        :param sent: when the attempt was sent; `None` if it was not.
        :param delivered: whether the consumer has output that cannot be taken back.
        :param left: what the budgets have left.
        """
        cooldown, now = self.cooldown(request), self._clock.now()
        state = self._state(delivered, now)
        if end.reason in COOLING:
            state = msgspec.structs.replace(state, cooldown=cooldown.left(now))
        decision = decide(self._policy.retry, end, msgspec.structs.replace(state, resumable=resumable))
        self._feedback.decided(end, decision, cooldown, sent=sent, now=now)
        hint = next_hint(self._policy, decision, end, self._original)
        return msgspec.structs.replace(decision, budget_left=left, hint=hint) if left or hint else decision

    def follow(self, decision: Decision) -> None:
        """The call does as decided."""
        self.last = decision
        if decision.rule is not None and decision.action == "retry":
            self._used.append(decision.rule)

    def accepts(self, delivered: Callable[[], bool]) -> Callable[[Trip], Decision | None] | None:
        """Decide about trips while an attempt runs; `None` if no rule keeps an answer that tripped.

        :param delivered: tells whether the consumer has output that cannot be taken back.
        """
        retry = self._policy.retry
        if all(rule.accept is None for rule in retry.rules):
            return None
        return lambda trip: accepted(retry, trip, self._state(delivered(), self._clock.now()))

    def _state(self, delivered: bool, now: float) -> RetryState:
        return RetryState(
            attempt=len(self._records) + 1,
            used=tuple(self._used),
            now=now,
            deadline=self._clock.deadline,
            jitter=self._runtime.jitter(),
            quota=self._feedback.tokens,
            delivered=delivered,
            before=self._records[-1].ended if self._records else None,
        )
