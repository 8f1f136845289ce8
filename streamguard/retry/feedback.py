"""What one call tells the state that calls share against an outage, and what it takes from it. Pure.

In charge of the one retry token that a call may hold, and of telling the cool-down of an endpoint how attempts ended.
It does not decide; `rules.decide` does.
"""

from __future__ import annotations

import math
from typing import Literal

from streamguard.events import Failed
from streamguard.retry.cooldown import COOLING, Cooldown
from streamguard.retry.quota import RetryQuota, is_outage
from streamguard.verdict import Decision, Trip


class Feedback:
    """The retry token of one call, and its words to the cool-downs.

    :param quota: the tokens that calls share; `None` for no limit.
    """

    def __init__(self, quota: RetryQuota | None) -> None:
        self._quota = quota
        self._held: Literal["taken", "sent"] | None = None
        """Taken for the attempt that comes, or sent with one that is not answered yet."""

    @property
    def tokens(self) -> float:
        """Tokens that are left; `inf` without a quota."""
        return math.inf if self._quota is None else self._quota.tokens

    def begin(self) -> None:
        """A call begins."""
        if self._quota is not None:
            self._quota.begin()

    def sent(self) -> None:
        """The attempt is sent, and the token with it."""
        if self._held is not None:
            self._held = "sent"

    def unsent(self) -> None:
        """The retry was not sent after all, so it says nothing of an outage: give its token back."""
        if self._held == "taken":
            self.give_back()
        self._held = None

    def failed(self) -> None:
        """The attempt ended for a reason that speaks of an outage: its token is spent."""
        self._held = None

    def answered(self, cooldown: Cooldown, *, sent: float) -> None:
        """The provider answers: what an outage holds back may come again.

        :param sent: when the attempt was sent.
        """
        cooldown.answered(sent=sent)
        if self._held == "sent":
            self.give_back()
        self._held = None

    @staticmethod
    def refused(end: Trip | Failed, cooldown: Cooldown, *, sent: float, now: float, own: float | None = None) -> None:
        """Hold everybody back after a refusal for overload; after any other end, do nothing.

        :param sent: when the attempt was sent.
        :param own: seconds that the policy waits before it asks again; `None` where it does not.
        """
        if end.reason not in COOLING:
            return
        asked = end.retry_after if isinstance(end, Failed) else None
        waits = [wait for wait in (asked, own) if wait is not None]
        told = asked is not None or end.reason == "provider.rate_limited"
        cooldown.refused(end.reason, sent=sent, now=now, wait=max(waits, default=None), told=told)

    def beside(self) -> Feedback | None:
        """Take a token for a second request beside the first; `None` if none is left."""
        if self.tokens < 1:
            return None
        other = Feedback(self._quota)
        if self._quota is not None:
            self._quota.take()
            other._held = "taken"
        return other

    def give_back(self) -> None:
        """The provider answers, or nothing was sent: give the token back, if there is one."""
        if self._held is not None and self._quota is not None:
            self._quota.give_back()
        self._held = None

    def decided(
        self, end: Trip | Failed, decision: Decision, cooldown: Cooldown, *, sent: float | None, now: float
    ) -> None:
        """Act on a decision: hold everybody back after a refusal for overload, take a token for a retry in an outage.

        :param sent: when the attempt that ended was sent; `None` if it was not.
        """
        if sent is not None:
            self.refused(end, cooldown, sent=sent, now=now, own=decision.wait if decision.action == "retry" else None)
        if decision.action == "retry" and self._quota is not None and is_outage(end.reason):
            self._quota.take()
            self._held = "taken"
