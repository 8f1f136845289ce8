"""After a trip or a failure: again (when, with what patch) or give up.

Decisions are data. `decide` is a pure function of the policy's rules, of what happened so far, of the time and of a
random number that is passed in; it returns a frozen `Decision` that goes into the outcome, to hooks and onto the
screen.

One owner of retries: a call sends at most `Retry.attempts` requests, whatever the rules say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from streamguard.events import Failed
from streamguard.files.frozen_json import JsonObject
from streamguard.files.mistakes import LOCATED
from streamguard.guards.base import Spec
from streamguard.guards.knobs import Items
from streamguard.retry.hints import MAX_HINT, mistakes, not_the_answers
from streamguard.retry.quota import Quota, is_outage
from streamguard.verdict import REASONS, Decision, Trip

NEVER_RETRIED = ("operator.*", "provider.spend_limit", "budget.*", "timeout.total", "hedge.*")
"""Reasons that no rule can retry: a person said stop, or asking again cannot succeed before something outside
changes."""

UNGROUNDED = "json.ungrounded"
"""The one reason of the package's own whose answer may be kept: see `Rule.accept`."""

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


def _can_be_marked(pattern: str) -> bool:
    """Whether a pattern matches only what a check of finished values says, or a value that is not grounded."""
    prefix, dot, _ = pattern.partition(".")
    own = bool(dot) and not set(prefix) & set("*?[") and prefix not in {one.partition(".")[0] for one in REASONS}
    return pattern == UNGROUNDED or (own and prefix != "content")


class Backoff(Spec):
    """An exponential wait: before the n-th retry by the same rule, `min(max, initial * factor ** (n - 1))` seconds.

    With `jitter: full` a uniformly random part of that (AWS, "Exponential Backoff And Jitter": full jitter spreads a
    crowd of clients best), else all of it.

    ```python
    Rule(when="provider.*", wait=Backoff(initial=0.5, max=20), respect_retry_after=True)
    ```
    """

    initial: Seconds = 0.5
    factor: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 2.0
    max: Seconds = 20.0
    jitter: Literal["full", "none"] = "full"

    def seconds(self, retry: int, jitter: float) -> float:
        """Return the seconds to wait before the `retry`-th (1-based) retry; `jitter` is a random number from 0 to 1."""
        # The exponent is bounded because floats are: beyond it every wait is `max` anyway.
        ceiling = min(self.max, self.initial * self.factor ** min(retry - 1, 64))
        return ceiling * jitter if self.jitter == "full" else ceiling


def _or_text(schema: dict[str, Any]) -> None:
    """A single reason will do."""
    listed = {key: schema.pop(key) for key in list(schema)}
    schema["anyOf"] = [listed, {"type": "string"}]


class Rule(Spec):
    """What follows from an attempt that ended for one of some reasons.

    ```python
    Rule(when="stop.max_tokens", max_uses=1, patch={"max_tokens": {"multiply": 2, "max": 8192}})
    ```
    """

    when: Annotated[
        Items[str],
        Field(min_length=1, json_schema_extra=_or_text),
        BeforeValidator(lambda one: (one,) if type(one) is str else one),
    ]
    """Reasons, exactly or as a glob (`json.*`): a list, or a single one."""
    give_up: bool = False
    """End the call instead of asking again (to except some reasons from a later, wider rule)."""
    wait: Literal["none"] | Seconds | Backoff = "none"
    """Before asking again: nothing, a constant, or exponentially."""
    respect_retry_after: bool = False
    """Wait as long as the provider asks, if it asks, instead of `wait`. Where that does not fit the deadline the call
    is given up at once, and the error says when to come back: an earlier attempt would fail."""
    max_uses: Annotated[int, Field(ge=0)] | None = None
    """How often this rule may ask again in one call; `None` for as often as `attempts` allows. 0 only with `accept`."""
    accept: Literal["marked"] | None = None
    """`marked`: where this rule does not ask again, keep the answer and mark it, instead of giving up. For `check.*`
    and `json.ungrounded`: the document is whole and valid, but what it says may be wrong, perhaps in the source."""
    patch: JsonObject | None = None
    """What to change in the original request: see `Request.patched`."""
    hint: Annotated[str, Field(min_length=1, max_length=MAX_HINT)] | None = None
    """What the next request says of the last answer, in a text block after everything else in the last user message:
    such as `The last answer was rejected: {reason} at {pointer}: {message}`. Also `{expected}`. Words of ours alone,
    never text of the answer; of the latest answer alone."""
    resume: Literal["restart", "continue"] = "restart"
    """`continue`: go on with prose that the line cut, from where it broke, instead of beginning again. The joined
    answer is two samples of the model's. For `transport.*` only; what cannot be continued begins again."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]")] | None = None
    """Ask another endpoint instead, with the same credentials; for sources that can (`messages()`)."""

    @model_validator(mode="after")
    def _give_up_stands_alone(self) -> Rule:
        extra = self.model_fields_set - {"when", "give_up"}
        if self.give_up and extra:
            raise ValueError(f"give_up ends the call, so {', '.join(sorted(extra))} can have no effect")
        return self

    @model_validator(mode="after")
    def _accepts_what_is_whole(self) -> Rule:
        if self.max_uses == 0 and self.accept is None:
            raise ValueError("max_uses: 0 never asks again: write give_up: true, or accept: marked")
        wrong = [] if self.accept is None else [pattern for pattern in self.when if not _can_be_marked(pattern)]
        if wrong:
            raise ValueError(
                f"accept: marked keeps a document that is whole and valid: let the rule be about check.* and "
                f"{UNGROUNDED} alone, not about {', '.join(wrong)}"
            )
        return self

    @model_validator(mode="after")
    def _hints_at_what_a_model_can_mend(self) -> Rule:
        if self.hint is None:
            return self
        if found := list(mistakes(self.hint)):
            raise PydanticCustomError(LOCATED, "a hint that cannot be written", {"mistakes": found})
        if wrong := not_the_answers(self.when):
            raise ValueError(
                "hint tells the model what was wrong with its answer, and of clocks, the line and the provider it can "
                f"repair nothing: leave it out of the rule about {', '.join(wrong)}"
            )
        return self

    @model_validator(mode="after")
    def _continues_what_the_line_cut(self) -> Rule:
        if self.resume == "continue" and not all(one.startswith("transport.") for one in self.when):
            raise ValueError(
                "resume: continue is for answers that the line cut: let the rule be about transport.reset and "
                "transport.incomplete alone"
            )
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether another model or endpoint is asked, which the cool-down of this one says nothing of."""
        return self.base_url is not None or (self.patch is not None and "model" in self.patch)

    def matches(self, reason: str) -> bool:
        """Return whether the rule is about a reason.

        :param reason: a dotted name, such as `json.schema`.
        """
        return any(fnmatchcase(reason, pattern) for pattern in self.when)


class Retry(Spec):
    """How often, and by which rules. The first rule that matches decides; no match means give up.

    ```python
    Retry(attempts=3, rules=[Rule(when=["json.*", "timeout.*"])])
    ```
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """All attempts of one call, the first included."""
    quota: Quota | None = Quota()
    """What an outage may cost, over all calls of a runtime; `null` for no limit but `attempts`."""
    rules: Items[Rule] = ()

    @model_validator(mode="after")
    def _asks_again_for_something(self) -> Retry:
        if self.attempts > 1 and not self.rules:
            raise ValueError(
                f"attempts is {self.attempts}, but without rules nothing is asked again: add rules, such as "
                "{when: [json.*, timeout.*, transport.*]}"
            )
        return self

    def rule_for(self, reason: str) -> int | None:
        """Return the index of the rule that decides about a reason; `None` if none is about it.

        :param reason: a dotted name, such as `json.schema`.
        """
        return next((index for index, rule in enumerate(self.rules) if rule.matches(reason)), None)

    def may_mark(self, reason: str) -> bool:
        """Return whether an answer that is rejected for a reason may be kept in the end.

        :param reason: a dotted name, such as `json.schema`.
        """
        index = self.rule_for(reason)
        return index is not None and self.rules[index].accept is not None


class RetryState(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision depends on besides the rules."""

    attempt: int
    """The number of the attempt that ended, from 1."""
    used: Sequence[int] = ()
    """The rules by which this call asked again so far."""
    now: float = 0.0
    """Seconds on the running clock."""
    deadline: float = math.inf
    """When the call ends at the latest, on the same clock."""
    jitter: float = 1.0
    """A random number from [0, 1)."""
    cooldown: float = 0.0
    """Seconds for which the shared cool-down sends nothing to where the attempt went."""
    quota: float = math.inf
    """Tokens in the shared retry quota."""
    resumable: bool = False
    """Whether the attempt's text can be continued where it broke."""
    before: Trip | Failed | None = None
    """How the attempt before ended; `None` for the first."""
    delivered: bool = False
    """Whether output of this attempt reached a consumer who cannot take it back."""


def decide(retry: Retry, ended: Trip | Failed, at: RetryState) -> Decision:
    """Again or give up, after an attempt ended for `ended.reason`."""
    reason = ended.reason

    def give_up(why: str, rule: int | None = None, retry_after: float | None = None) -> Decision:
        if retry_after is None and isinstance(ended, Failed):
            retry_after = ended.retry_after
        if _again(at.before, ended):
            why += "; the attempt before failed in the same way, so the source itself may be wrong"
        return Decision(action="give_up", reason=reason, why=why, rule=rule, retry_after=retry_after)

    index = retry.rule_for(reason)
    if any(fnmatchcase(reason, pattern) for pattern in NEVER_RETRIED):
        return give_up(f"{reason} is never retried")
    if index is None:
        return give_up(f"no rule of retry.rules is about {reason}")
    rule = retry.rules[index]
    if rule.give_up:
        return give_up(f"retry.rules[{index}] gives up on {reason}", index)
    resumes = rule.resume == "continue" and at.resumable
    if at.delivered and not resumes:
        return give_up("output was already delivered (deliver: live), so the call cannot begin again unseen", index)
    if at.attempt >= retry.attempts:
        return give_up(f"all {retry.attempts} attempts are used (retry.attempts)", index)
    used = sum(1 for earlier in at.used if earlier == index)
    if rule.max_uses is not None and used >= rule.max_uses:
        return give_up(f"retry.rules[{index}] was used {used} of {rule.max_uses} times", index)
    if is_outage(reason) and at.quota < 1:
        return give_up("too many calls fail: the retry quota that they share is empty (retry.quota)", index)
    wait = _wait(rule, ended, used + 1, at.jitter)
    if not rule.elsewhere:
        wait = max(wait, at.cooldown)
    if at.now + wait >= at.deadline:
        left = max(0.0, at.deadline - at.now)
        return give_up(
            f"the wait of {wait:.1f} s does not fit the {left:.1f} s that timeouts.total leaves",
            index,
            retry_after=wait,
        )
    return Decision(
        action="retry",
        reason=reason,
        why=f"retry.rules[{index}]: attempt {at.attempt + 1} of {retry.attempts}"
        + (", which goes on where this one broke" if resumes else ""),
        rule=index,
        wait=wait,
        patch=rule.patch,
        base_url=rule.base_url,
    )


def elsewhere(retry: Retry, reason: str) -> Decision | None:
    """Decide where a call's first attempt goes, while the endpoint is down that it would ask: to where its rule goes.

    :param reason: why the endpoint counts as down.
    :returns: `None` where no rule for that reason names another endpoint or model.
    """
    index = retry.rule_for(reason)
    if index is None or retry.attempts < 2:
        return None
    rule = retry.rules[index]
    if not rule.elsewhere or rule.max_uses == 0:
        return None
    why = f"retry.rules[{index}]: the endpoint is down ({reason}), so the first attempt goes elsewhere at once"
    return Decision(action="retry", reason=reason, why=why, rule=index, patch=rule.patch, base_url=rule.base_url)


def accepted(retry: Retry, trip: Trip, at: RetryState) -> Decision | None:
    """Decide whether the answer is kept although it tripped, since its rule would not ask again.

    :returns: the decision to accept it; `None` if the attempt is to be aborted.
    """
    decision = decide(retry, trip, at)
    if decision.action == "retry" or decision.rule is None or retry.rules[decision.rule].accept is None:
        return None
    why = f"{decision.why}; the answer is kept, and marked (accept: marked)"
    return Decision(action="accept", reason=trip.reason, why=why, rule=decision.rule)


def _again(before: Trip | Failed | None, ended: Trip | Failed) -> bool:
    """Whether a check failed twice for the same values: asking again does not mend what the source says."""
    if not (isinstance(before, Trip) and isinstance(ended, Trip) and ended.reason != "guard.failed"):
        return False
    if not (ended.reason.startswith("check.") or ended.knob == "checks"):
        return False
    return [(one.reason, one.observed, one.where and one.where.pointer) for one in (before, ended)].count(
        (ended.reason, ended.observed, ended.where and ended.where.pointer)
    ) == 2


def _wait(rule: Rule, ended: Trip | Failed, retry: int, jitter: float) -> float:
    if rule.respect_retry_after and isinstance(ended, Failed) and ended.retry_after is not None:
        return max(0.0, ended.retry_after)
    if isinstance(rule.wait, Backoff):
        return rule.wait.seconds(retry, jitter)
    return 0.0 if rule.wait == "none" else float(rule.wait)
