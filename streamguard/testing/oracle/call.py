"""What may become of a call: attempt after attempt, by the policy's rules.

In charge of following a call's record along the script, and of saying where it is not what the policy promises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import regex

from streamguard.testing.oracle.attempt import Attempt
from streamguard.testing.oracle.causes import Cause
from streamguard.testing.steps import Item

Door = Literal["run", "stream", "guarded"]

NEVER_RETRIED = ("operator.*", "provider.spend_limit", "budget.*", "timeout.total", "hedge.*")
UNGROUNDED = "json.ungrounded"
COOLING = ("provider.overloaded", "provider.rate_limited")
EPSILON = 0.1
"""Seconds by which a call may end later than its clocks say: what the project promises."""


class Expectation:
    """What a script and a policy allow, to hold a call against.

    :param script: what the provider does; has `items(number)`.
    :param request: the call's own.
    :param door: `run` shows its consumer nothing before the end; `guarded` has one attempt.
    :param deliver: instead of the policy's.
    :param jitter: the random part of waits, if it is known; else any.
    """

    def __init__(
        self,
        script: Any,
        policy: Any,
        request: Mapping[str, Any],
        *,
        door: Door = "run",
        deliver: str | None = None,
        event_bytes: int = 1_048_576,
        sees_bytes: bool = True,
        jitter: float | None = None,
    ) -> None:
        self._script = script
        self._policy = policy
        self._request = request
        self._door = door
        self._deliver = deliver or policy.deliver
        self._options = (event_bytes, sees_bytes, door == "guarded")
        self._jitter = (0.0, 1.0) if jitter is None else (jitter, jitter)

    def first(self) -> list[Cause]:
        """How the first attempt may end."""
        return self._attempt(1, 0.0, self._request).ends

    def _attempt(self, number: int, began: float, request: Mapping[str, Any], *, keeps: bool = False) -> Attempt:
        total = self._policy.timeouts.total
        left = math.inf if total is None else total - began
        policy = _ungrounded(self._policy) if keeps else self._policy
        return _attempt(self._script.items(number), policy, json.dumps(request), left, *self._options)

    def _keeps(self, number: int, used: Sequence[int]) -> tuple[bool, ...]:
        """Whether an attempt keeps an answer with values that stand nowhere, and marks it; both where it depends."""
        section, retry = self._policy.json_document, self._policy.retry
        index = _rule(retry, UNGROUNDED)
        if section is None or not section.grounded or index is None or retry.rules[index].accept is None:
            return (False,)
        uses = retry.rules[index].max_uses
        if self._door == "guarded" or number >= retry.attempts or (uses is not None and used.count(index) >= uses):
            return (True,)
        return (False, True) if self._door == "stream" and self._deliver == "live" else (False,)

    def check(self, record: Any, error: BaseException | None) -> list[str]:
        """Everything in a call's record that is not allowed.

        :param record: an outcome, or the record of the error that came instead.
        """
        wrong: list[str] = []
        self._cooled = 0.0
        used: list[int] = []
        began = (0.0, 0.0)
        request, patch, hint = self._request, None, None
        for number, made in enumerate(record.attempts, 1):
            if made.number != number:
                wrong.append(f"attempt {number} says it is attempt {made.number}")
            if made.patch != patch:
                wrong.append(f"attempt {number} was asked with the patch {made.patch}, by the rules {patch}")
            if getattr(made.ended, "sent", True) and made.hint != hint:
                wrong.append(f"attempt {number} was asked with the hint {made.hint!r}, by the rules {hint!r}")
            reason = None if made.ended is None else made.ended.reason
            if reason is not None and self._held_back(made, began[1]):
                return wrong + _raised(error, reason)
            for keeps in self._keeps(number, used):
                attempt = self._attempt(number, began[0], request, keeps=keeps)
                later = attempt if began[0] == began[1] else self._attempt(number, began[1], request, keeps=keeps)
                allowed = [c for c in (*attempt.ends, *later.ends) if _is(c, reason, made.completed)]
                if allowed:
                    break
            if not allowed:
                names = sorted({"/".join(map(str, cause.reasons[:3])) for cause in attempt.ends})
                said = "" if made.ended is None else f" ({made.ended.message})"
                wrong.append(f"attempt {number} ended as {reason or made.completed}{said}; allowed: {', '.join(names)}")
                return wrong
            wrong += self._timing(number, made, allowed, began[0])
            wrong += self._told(number, made, attempt, allowed[0])
            ended = (
                began[0] + min(cause.earliest.time for cause in allowed),
                began[1] + max(made.times.end, *(_soon(cause.latest.time) for cause in allowed)),
            )
            last = number == len(record.attempts)
            if reason is None:
                if error is not None or not last:
                    wrong.append(f"attempt {number} was accepted, and the call went on")
                return wrong + self._value(record, attempt, allowed[0], keeps=keeps)
            delivered = set().union(*(attempt.delivered(cause) for cause in allowed))
            steps = self._steps(reason, number, used, ended, delivered, allowed[0])
            fits = [step for step in steps if (step is None) == last]
            if not fits:
                what = "gave up" if last else "asked again"
                wrong.append(f"after attempt {number} ({reason}) the call {what}; the rules say otherwise")
                return wrong
            step = fits[0]
            if step is None:
                return wrong + _raised(error, reason)
            used.append(step.rule)
            patch, request, hint = step.patch, _patched(self._request, step.patch), _hint(self._policy, step, reason)
            began = (ended[0] + step.wait[0], ended[1] + step.wait[1] + self._turn(number, reason))
        wrong.append("no attempt was made")
        return wrong

    def _held_back(self, made: Any, began: float) -> bool:
        """Whether the attempt was rightly not sent: calls cool down, and its turn comes after the deadline."""
        total = self._policy.timeouts.total or math.inf
        sent = getattr(made.ended, "sent", True)
        return not sent and made.ended.reason in COOLING and began + self._cooled >= total - EPSILON

    def _timing(self, number: int, made: Any, allowed: Sequence[Cause], began: float) -> list[str]:
        if any(cause.latest.time == math.inf for cause in allowed):
            return []
        # An answer that stands may wait for the socket's end, and so may one that a guard rejected at its end.
        grace = self._policy.timeouts.close_grace if any(cause.accepted for cause in allowed) else 0.05
        latest = max(cause.latest.time for cause in allowed) + grace
        if any("timeout.total" in cause.reasons for cause in allowed):
            # The call's deadline is a moment of the call: the attempt has longer the sooner it began.
            latest = max(latest, self._policy.timeouts.total - began + grace)
        soonest = min(cause.earliest.time for cause in allowed)
        if made.times.end < soonest - EPSILON:
            return [f"attempt {number} ended after {made.times.end:.3f} s; it had to go on for {soonest:.3f}"]
        if made.times.end > latest + EPSILON:
            return [f"attempt {number} ended after {made.times.end:.3f} s; it had to within {latest:.3f} s"]
        return []

    def _told(self, number: int, made: Any, attempt: Attempt, cause: Cause) -> list[str]:
        """Usage that the provider told at the end is exact."""
        tokens = attempt.usage.get("output_tokens")
        if cause.accepted and cause.reasons == ("whole",) and tokens is not None and not attempt.fell:
            said = made.usage.high.output_tokens
            if said != tokens or made.usage.low.output_tokens != tokens:
                return [f"attempt {number}: {said} output tokens; the provider said {tokens}"]
        return []

    def _value(self, outcome: Any, attempt: Attempt, cause: Cause, *, keeps: bool) -> list[str]:
        section = (_ungrounded(self._policy) if keeps else self._policy).json_document
        if section is None or section.where != "text" or outcome.completed is None:
            return []
        from streamguard.testing.oracle.attempt import _schema
        from streamguard.testing.oracle.documents import Documents

        schema = _schema(section, self._request.get("output_config", {}).get("format", {}).get("schema"))
        documents = Documents(section, schema, framed=True, may_end=False, request=self._request)
        text = attempt.text(cause)
        try:
            value = documents.value(text)
        except ValueError as mistake:
            return [f"accepted {text[:80]!r}, which is {mistake}"]
        if outcome.value != value or outcome.text.strip() != (documents.document(text) or "").strip():
            return [f"accepted with the value {outcome.value!r}; the document says {value!r}"]
        return self._marks(outcome, documents.document(text) or "", keeps=keeps)

    def _marks(self, outcome: Any, document: str, *, keeps: bool) -> list[str]:
        """An answer that is kept says what is wrong with it, and no other answer does."""
        from streamguard.testing.oracle.grounded import GroundedValues

        stand = GroundedValues(self._policy.json_document, self._request).stand(document) if keeps else "yes"
        wanted = [UNGROUNDED] if stand == "no" else []
        said = [mark.reason for mark in outcome.marked]
        if stand != "unsure" and said != wanted:
            return [f"accepted with the marks {said}; the values that stand nowhere make it {wanted}"]
        return []

    def _steps(
        self,
        reason: str,
        number: int,
        used: Sequence[int],
        ended: tuple[float, float],
        delivered: set[bool],
        cause: Cause,
    ) -> list[_Again | None]:
        """What may follow: asking again, or `None` for giving up."""
        if any(fnmatchcase(reason, pattern) for pattern in NEVER_RETRIED) or self._door == "guarded":
            return [None]
        rules = self._policy.retry.rules
        index = _rule(self._policy.retry, reason)
        if index is None or rules[index].give_up or number >= self._policy.retry.attempts:
            return [None]
        rule = rules[index]
        count = sum(1 for one in used if one == index)
        if rule.max_uses is not None and count >= rule.max_uses:
            return [None]
        steps: list[_Again | None] = []
        if self._door == "stream" and self._deliver == "live" and True in delivered:
            steps.append(None)
            if False not in delivered:
                return steps
        wait = self._wait(rule, count, cause)
        if reason in COOLING:
            # All calls wait as long as the provider or the policy asks; where neither does, twice as long each time.
            asked = cause.answer.retry_after if cause.answer is not None else None
            self._cooled = max(asked or 0.0, wait[1], 0.5 * 2**number)
            wait = (wait[0], max(wait[1], self._cooled))
        total = self._policy.timeouts.total or math.inf
        if ended[1] + wait[1] >= total - 1e-6:
            steps.append(None)
        if ended[0] + wait[0] < total:
            steps.append(_Again(index, wait, None if rule.patch is None else dict(rule.patch)))
        return steps

    def _turn(self, number: int, reason: str) -> float:
        """Seconds for which the attempt after this one may have to wait for its turn: after a cool-down starts come one
        after the other, twice as many every half a second."""
        return 0.5 * math.log2(number + 1) if self._cooled and reason not in COOLING else 0.0

    def _wait(self, rule: Any, count: int, cause: Cause) -> tuple[float, float]:
        if rule.respect_retry_after and cause.answer is not None and cause.answer.retry_after is not None:
            return (cause.answer.retry_after,) * 2
        if rule.wait == "none":
            return (0.0, 0.0)
        if isinstance(rule.wait, int | float):
            return (float(rule.wait),) * 2
        most = min(rule.wait.max, rule.wait.initial * rule.wait.factor**count)
        low, high = self._jitter if rule.wait.jitter == "full" else (1.0, 1.0)
        return (most * low, most * high)


def _rule(retry: Any, reason: str) -> int | None:
    """The first rule that is about a reason."""
    return next((n for n, one in enumerate(retry.rules) if any(fnmatchcase(reason, glob) for glob in one.when)), None)


@lru_cache(maxsize=64)
def _ungrounded(policy: Any) -> Any:
    """The policy without its grounded values."""
    return policy.replace(json=policy.json_document.replace(grounded=()))


@lru_cache(maxsize=1024)
def _attempt(
    items: tuple[Item, ...], policy: Any, request: str, left: float, event_bytes: int, sees_bytes: bool, opened: bool
) -> Attempt:
    """Remembered: the same attempt is held against many doors and cuts."""
    options: dict[str, Any] = {"event_bytes": event_bytes, "sees_bytes": sees_bytes, "opened": opened}
    return Attempt(items, policy, json.loads(request), left=left, **options)


class _Again(NamedTuple):
    rule: int
    wait: tuple[float, float]
    patch: Mapping[str, Any] | None


def _soon(time: float) -> float:
    return 0.0 if time == math.inf else time


def _is(cause: Cause, reason: str | None, completed: str | None) -> bool:
    if cause.accepted:
        return reason is None and completed in cause.reasons
    return reason in cause.reasons


def _raised(error: BaseException | None, reason: str) -> list[str]:
    wanted = {"timeout.total": "DeadlineExceeded", "operator.interrupt": "Interrupted"}.get(reason, "GaveUp")
    if error is None:
        return [f"the last attempt ended by {reason}, and the call had an outcome"]
    if type(error).__name__ != wanted or getattr(error, "reason", None) != reason:
        return [f"raised {type(error).__name__} for {getattr(error, 'reason', None)}; {reason} is a {wanted}"]
    return []


def _hint(policy: Any, step: _Again, reason: str) -> str | None:
    """What the rule adds to the next request.

    :raises ValueError: it says more than this oracle knows.
    """
    template = policy.retry.rules[step.rule].hint
    if template is not None and set(regex.findall(r"\{\w*\}", template)) - {"{reason}"}:
        raise ValueError("the oracle knows hints of the reason alone")
    return None if template is None else str(template.replace("{reason}", reason))


def _patched(request: Mapping[str, Any], patch: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The request as a rule's patch makes it."""
    made = dict(request)
    for name, value in (patch or {}).items():
        if isinstance(value, Mapping) and "multiply" in value:
            scaled = int(made[name] * value["multiply"])
            made[name] = scaled if value.get("max") is None else max(made[name], min(scaled, value["max"]))
        elif value is None:
            made.pop(name, None)
        else:
            made[name] = value
    return made
