"""A policy as tables that a person can read: what guards, what it costs at the most, and what follows from each reason.

In charge of rows, plain data without layout; whoever prints them decides how. Everything comes from the policy itself,
so the tables cannot say anything else than what the engine does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from streamguard.guards.checks.custom import CustomCheck
from streamguard.guards.checks.spec import Check
from streamguard.policy.checks import reasons_of
from streamguard.policy.model import Policy
from streamguard.redaction import bare_address
from streamguard.retry.rules import NEVER_RETRIED, Backoff, Rule
from streamguard.verdict import REASONS


class Row(msgspec.Struct, frozen=True):
    """One knob."""

    knob: str
    """Its path in the policy, such as `timeouts.progress`."""
    value: str
    """What it is set to, with its unit."""
    source: Literal["set", "default"]
    """Whether the policy says so, or this package."""


class Consequence(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from one reason."""

    reason: str
    meaning: str
    decision: Literal["retry", "give up", "mark"]
    rule: int | None
    """0-based index of the rule that decides; `None` if none is about it."""
    detail: str
    """How often, after which wait, with which patch; or why not."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, table by table."""

    mode: str
    deliver: str
    clocks: tuple[Row, ...]
    caps: tuple[Row, ...]
    json: tuple[Row, ...]
    """Empty if the policy expects no document."""
    checks: tuple[tuple[Row, ...], ...]
    """One table per check."""
    completion: tuple[Row, ...]
    content: tuple[Row, ...]
    repetition: tuple[Row, ...]
    guards: tuple[str, ...]
    """Guards of one's own, by name."""
    attempts: int
    budgets: tuple[tuple[Row, ...], ...]
    """One table per budget."""
    reasons: tuple[Consequence, ...]
    """Every reason that can come up, and what follows."""


def explain(policy: Policy) -> Explanation:
    """Everything that a policy says or leaves to its defaults."""
    return Explanation(
        mode=policy.mode,
        deliver=policy.deliver or "committed",
        clocks=_rows("timeouts", policy.timeouts),
        caps=_rows("caps", policy.caps),
        json=_rows("json", policy.json_document),
        checks=tuple(_check_rows(f"checks[{index}]", one) for index, one in enumerate(policy.checks)),
        completion=_rows("completion", policy.completion),
        content=tuple(row for i, one in enumerate(policy.content) for row in _rows(f"content[{i}]", one)),
        repetition=_rows("repetition", policy.repetition),
        guards=tuple(str(getattr(guard, "name", guard)) for guard in policy.guards),
        attempts=policy.retry.attempts,
        budgets=tuple(_rows(f"budgets[{index}]", one) for index, one in enumerate(policy.budgets)),
        reasons=tuple(_consequences(policy)),
    )


_SECONDS = frozenset(
    (
        "connect",
        "first_token",
        "progress",
        "progress_thinking",
        "alive",
        "attempt",
        "total",
        "close_grace",
        "window",
        "wait",
        "release_uncertain_after",
    )
)
"""Knobs in seconds, whatever their section."""


def _rows(section: str, spec: BaseModel | None) -> tuple[Row, ...]:
    """Every knob of a section, in the order in which its model has them."""
    if spec is None:
        return ()
    return tuple(
        Row(
            knob=f"{section}.{field.alias or name}",
            value=_value(name, getattr(spec, name)),
            source="set" if name in spec.model_fields_set else "default",
        )
        for name, field in type(spec).model_fields.items()
    )


def _check_rows(section: str, check: Check | CustomCheck) -> tuple[Row, ...]:
    if isinstance(check, Check):
        return _rows(section, check)
    said = {"function": check.name, "needs": check.needs, "reason": check.reason, "missing": check.missing}
    return tuple(
        Row(knob=f"{section}.{name}", value=_value(name, value), source="set")
        for name, value in {**said, "mode": check.mode}.items()
    )


def _value(name: str, value: Any) -> str:
    if value is None:
        return "off" if name != "mode" else "the policy's"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"${value}"
    if isinstance(value, int | float):
        return f"{value:,.10g} s" if name in _SECONDS else f"{value:,}"
    if isinstance(value, Mapping):
        return f"given, {len(value)} keys"
    if isinstance(value, tuple | list) and value and isinstance(value[0], BaseModel):
        return "; ".join(map(_said, value))
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, BaseModel):
        return ", ".join(f"{key} {_value(key, getattr(value, key))}" for key in type(value).model_fields)
    return bare_address(str(value)) if name.rpartition(".")[2] == "ledger" else str(value)


def _said(part: BaseModel) -> str:
    """What an entry of a list says itself, as a file would have it."""
    fields = type(part).model_fields
    said = [(name, fields[name].alias or name) for name in fields if name in part.model_fields_set]
    return ", ".join(f"{key} {_value(name, getattr(part, name))}" for name, key in said)


def _consequences(policy: Policy) -> Iterator[Consequence]:
    retry = policy.retry
    for reason in reasons_of(policy):
        own = "a check of the policy's own" if reason.startswith("check.") else "a pattern of the policy's own"
        meaning = REASONS.get(reason, own)
        index = next((i for i, rule in enumerate(retry.rules) if rule.matches(reason)), None)
        decision: Literal["retry", "give up", "mark"] = "give up"
        if any(fnmatchcase(reason, pattern) for pattern in NEVER_RETRIED):
            index, detail = None, "never retried"
        elif index is None:
            detail = "no rule is about it"
        elif retry.rules[index].give_up:
            detail = "the rule says so"
        elif retry.rules[index].accept is not None and 0 in (retry.attempts - 1, retry.rules[index].max_uses):
            decision, detail = "mark", "the answer is kept"
        elif retry.attempts == 1:
            detail = "attempts is 1"
        else:
            decision, detail = "retry", _how(retry.rules[index], retry.attempts)
        yield Consequence(reason=reason, meaning=meaning, decision=decision, rule=index, detail=detail)


def _how(rule: Rule, attempts: int) -> str:
    most = min(attempts - 1, rule.max_uses or attempts)
    parts = ["once" if most == 1 else f"up to {most} times", _wait(rule, most)]
    if rule.respect_retry_after:
        parts.append("or as long as the provider asks")
    if rule.resume == "continue":
        parts.append("from where prose broke, where it can be continued")
    if rule.accept is not None:
        parts.append("then the answer is kept and marked")
    if rule.base_url:
        parts.append(f"from {rule.base_url}")
    if rule.hint:
        parts.append(f'with the hint "{rule.hint}"')
    if rule.patch:
        parts.append("with " + ", ".join(_patch(key, value) for key, value in rule.patch.items()))
    return ", ".join(parts)


def _wait(rule: Rule, retries: int) -> str:
    if isinstance(rule.wait, Backoff):
        jitter = "a random part of " if rule.wait.jitter == "full" else ""
        waits = [f"{rule.wait.seconds(retry, 1.0):g} s" for retry in range(1, min(retries, 5) + 1)]
        return f"after {jitter}{', '.join(waits)}{' …' if retries > 5 else ''}"
    return "at once" if rule.wait in ("none", 0) else f"after {rule.wait:g} s"


def _patch(key: str, value: Any) -> str:
    if value is None:
        return f"no {key}"
    if isinstance(value, Mapping) and "multiply" in value:
        most = f", at most {value['max']:,}" if "max" in value else ""
        return f"{key} times {value['multiply']}{most}"
    return f"{key} {value}"
