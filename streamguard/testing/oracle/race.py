"""What may become of a call whose requests may race: two of an attempt at once, of which one is delivered.

In charge of what differs from `call`: attempts stand in the order in which they ended, the loser has a reason of its
own, and a failure beside another request decides nothing. Moments are not held against the script's: a race moves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from streamguard.testing.oracle.attempt import Attempt
from streamguard.testing.oracle.call import EPSILON, Expectation, _is, _patched, _raised
from streamguard.testing.oracle.causes import Cause

LOST = "hedge.lost"
ALL = ("timeout.total", "operator.interrupt")
"""Reasons that end both requests of a race, whatever the script does."""


class RacedExpectation(Expectation):
    """The same as `Expectation`, for a policy with `hedge`."""

    def check(self, record: Any, error: BaseException | None) -> list[str]:
        """Everything in a call's record that is not allowed; see `Expectation.check`."""
        made = list(record.attempts)
        numbers = sorted(one.number for one in made)
        if not made or numbers != list(range(1, len(made) + 1)):
            return [f"the attempts are numbered {numbers}"]
        wrong = self._roles(made)
        wrong += [
            found for one in made[:-1] if one.ended is None for found in [f"attempt {one.number} was accepted, too"]
        ]
        request, patch, used = self._request, None, []
        for one in made:
            reason = None if one.ended is None else one.ended.reason
            if one.patch != patch:
                wrong.append(f"attempt {one.number} was asked with the patch {one.patch}, by the rules {patch}")
            if reason == LOST:
                continue
            held = reason is not None and self._held_back(one, math.inf)
            found = None if held else self._cause(one, request, record.seconds)
            if found is None and not held and reason not in ALL:
                wrong.append(f"attempt {one.number} ended as {reason or one.completed}, which its script does not do")
            if one is not made[-1] and one.decision is None:
                continue  # it failed beside another, which went on
            if reason is None:
                if error is not None:
                    wrong.append("an attempt was accepted, and the call raised")
                return wrong + ([] if found is None else self._value(record, found[0], found[1], keeps=found[2]))
            if one is made[-1]:
                return wrong + _raised(error, reason)
            rule = one.decision.rule
            used.append(rule)
            patch = self._policy.retry.rules[rule].patch
            request = _patched(self._request, patch)
        return wrong

    def _roles(self, made: Sequence[Any]) -> list[str]:
        """Who raced whom: at most two at once, the second one sent next, and no more than one of them goes on."""
        wrong = []
        by_number = {one.number: one for one in made}
        for place, one in enumerate(made):
            lost = one.ended is not None and one.ended.reason == LOST
            second = by_number.get(one.number + 1) if one.hedge is None else by_number.get(one.number - 1)
            raced = second is not None and (one.hedge is None) != (second.hedge is None)
            if (lost or one.decision is None) and one is not made[-1] and not raced:
                wrong.append(f"attempt {one.number} ended beside no other one")
            if lost and (one.decision is not None or one is made[-1]):
                wrong.append(f"attempt {one.number} lost, and something followed from that")
            if one.hedge == "won" and (lost or any(later.number == one.number - 1 for later in made[place:])):
                wrong.append(f"attempt {one.number} is said to have won")
        if len(made) > self._policy.retry.attempts:
            wrong.append(f"{len(made)} attempts; retry.attempts is {self._policy.retry.attempts}")
        return wrong

    def _cause(self, made: Any, request: Mapping[str, Any], seconds: float) -> tuple[Attempt, Cause, bool] | None:
        """How the script lets the attempt end as it did."""
        reason = None if made.ended is None else made.ended.reason
        for keeps in (True, False) if made.marked else (False,):
            if keeps and (self._policy.json_document is None or not self._policy.json_document.grounded):
                continue
            for began in (0.0, max(0.0, seconds - made.times.end - EPSILON)):
                attempt = self._attempt(made.number, began, request, keeps=keeps)
                for cause in attempt.ends:
                    if _is(cause, reason, made.completed):
                        return attempt, cause, keeps
        return None
