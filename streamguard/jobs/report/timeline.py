"""One row's story: its attempts, why each ended, and what was decided then. As lines of plain text.

In charge of words and layout. It reads a result line as the output has it, and the excerpts of the journal; it knows
neither where they come from nor where the lines go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamguard.jobs.report.excerpt import Excerpt

DEAD_MARK = "▶"
"""Stands before the dead character."""


def timeline(line: bytes, detail: bytes | None = None) -> Iterator[str]:
    """The story of the row whose line this is.

    :param detail: what the journal has beside it.
    """
    row = json.loads(line)
    own = row.get("streamguard", {})
    yield f"{row['custom_id']}: {'; '.join(_headline(row['result'], own))}"
    shown = {} if detail is None else msgspec.json.decode(detail, type=dict[int, Excerpt])
    at = 0.0
    for attempt in own.get("attempts", ()):
        yield from _attempt(attempt, at, shown.get(attempt["number"]))
        if attempt.get("completed"):
            yield from (f"{_NO_TIME}marked {mark['reason']}: {mark['message']}" for mark in own.get("marked", ()))
        decision = attempt.get("decision") or {}
        at += (attempt.get("seconds") or 0.0) + (decision.get("wait_seconds") or 0.0)


def _headline(result: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    kind = result["type"]
    error = (result.get("error") or {}).get("error") or {}
    accepted = f" ({own['completed']})" if own.get("completed") else ""
    yield f"{kind}{accepted}" + (f", {error['type']}: {error['message']}" if error else "")
    attempts = len(own.get("attempts", ()))
    yield f"{attempts} attempt{'' if attempts == 1 else 's'} in {own.get('ms', 0) / 1000:.2f} s"
    tokens = own.get("usage", {}).get("output_tokens")
    if tokens:
        yield f"{_span(tokens)} output tokens"
    if own.get("cost_usd"):
        yield _span(own["cost_usd"], 6)
    if own.get("saved_tokens"):
        yield f"≈ {own['saved_tokens']:,} output tokens not generated"


def _span(pair: list[Any], digits: int | None = None) -> str:
    """`12`, `≈ 12 to 15` or `≥ 12`; with digits in dollars."""

    def shown(number: Any) -> str:
        return f"{number:,}" if digits is None else "$" + (f"{number:.{digits}f}".rstrip("0").rstrip(".") or "0")

    low, high = pair
    if low is None:
        return "unknown"
    if high is None:
        return f"≥ {shown(low)}"
    return shown(low) if low == high else f"≈ {shown(low)} to {shown(high)}"


def _attempt(attempt: Mapping[str, Any], at: float, shown: Excerpt | None) -> Iterator[str]:
    patch = f", patch {json.dumps(attempt['patch'])}" if attempt.get("patch") else ""
    yield f"{_time(at)}attempt {attempt['number']}: {attempt.get('model') or 'unknown model'}{patch}"
    if attempt.get("hint"):
        yield f"{_NO_TIME}with the hint: {attempt['hint']}"
    first = attempt.get("first_token_seconds")
    if first is not None:
        yield f"{_time(at + first)}first token"
    end = at + (attempt.get("seconds") or 0.0)
    if attempt.get("reason") is None:
        accepted = f"accepted ({attempt['completed']})" if attempt.get("completed") else "accepted, nothing claimed"
        yield f"{_time(end)}{accepted}, {_span(attempt['output_tokens'])} output tokens"
        if attempt.get("decision"):
            yield f"{_NO_TIME}{'; '.join(_decision(attempt['decision']))}"
        return
    yield f"{_time(end)}{attempt['reason']}: {attempt['message']}"
    facts = list(_facts(attempt))
    if facts:
        yield f"{_NO_TIME}{', '.join(facts)}"
    if shown is not None:
        before, after = ("…" * shown.cut_before + shown.before, shown.after + "…" * shown.cut_after)
        yield f"{_NO_TIME}{before}{DEAD_MARK}{after}"
    yield f"{_NO_TIME}{'; '.join(_decision(attempt.get('decision')))}"


def _facts(attempt: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (("offset", "byte"), ("pointer", "at"), ("keyword", "keyword")):
        if attempt.get(name) not in (None, ""):
            yield f"{words} {attempt[name]}"
    for name in ("knob", "limit", "observed", "status", "stop_reason"):
        if attempt.get(name) is not None:
            yield f"{name.replace('_', ' ')} {attempt[name]}"
    tokens = attempt.get("output_tokens")
    if tokens:
        yield f"{_span(tokens)} output tokens"
    if attempt.get("saved_tokens"):
        yield f"≈ {attempt['saved_tokens']:,} not generated"


def _decision(decision: Mapping[str, Any] | None) -> Iterator[str]:
    if decision is None:
        yield "no decision is on record"
        return
    rule = "" if decision["rule"] is None else f" by rule {decision['rule']}"
    if decision["action"] == "accept":
        yield f"→ marked{rule}: {decision['why']}"
        return
    if decision["action"] == "give_up":
        yield f"→ gave up{rule}: {decision['why']}"
        return
    wait = decision.get("wait_seconds") or 0.0
    yield f"→ retry{rule}, {f'after {wait:g} s' if wait else 'at once'}: {decision['why']}"
    if decision.get("patch"):
        yield f"patch {json.dumps(decision['patch'])}"
    if decision.get("base_url"):
        yield f"at {decision['base_url']}"


HANG = 13
"""Columns of the time before a line's text."""

_NO_TIME = " " * HANG


def _time(seconds: float) -> str:
    return f"{seconds:>9.2f} s  "
