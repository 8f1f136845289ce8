"""Calls, attempts and budgets as plain JSON values, as the page shows them.

In charge of the words between the server and the page. Times are seconds on the loop's clock (the page is told what it
says now), money is integer micro-USD, and what is unknown is `null`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from streamguard.budgets.ledger import Balance
from streamguard.engine.snapshot import CallSnapshot
from streamguard.events import BlockKind, Failed, Usage
from streamguard.guards.timeouts import ClockState
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome
from streamguard.policy.explain import Row, explain
from streamguard.policy.model import Policy
from streamguard.usage import UsageRange
from streamguard.verdict import Trip

TAIL: Final = 160
"""Characters of a call's latest output that its row shows."""

LABELS: Final = 16
"""Labels that are shown of a call, and none longer than `LABEL` characters."""

LABEL: Final = 200

HEAD: Final = 16_384
"""Characters kept from the start of a block that is over, and from its end `END`: the end is where it went wrong."""

END: Final = 49_152


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A block of an attempt that is over."""

    index: int
    kind: BlockKind
    type: str
    name: str | None = None
    id: str | None = None
    text: str = ""
    omitted: int = 0
    """Characters left out of the text, at `cut`."""
    cut: int = 0
    mark: int | None = None
    """The first wrong character, in what is kept."""

    @classmethod
    def of(cls, text: str, mark: int | None = None, **block: Any) -> Kept:
        """A block with as much of its text as is kept."""
        omitted = max(0, len(text) - HEAD - END)
        if not omitted:
            return cls(text=text, mark=mark, **block)
        if mark is not None:
            mark = mark if mark < HEAD else mark - omitted if mark >= HEAD + omitted else None
        return cls(text=text[:HEAD] + text[-END:], omitted=omitted, cut=HEAD, mark=mark, **block)

    def forgotten(self) -> Kept:
        """The same without its text."""
        return msgspec.structs.replace(self, text="", omitted=self.omitted + len(self.text), cut=0, mark=None)


def labels(given: Mapping[str, Any]) -> dict[str, str]:
    """Labels as short texts."""
    return {str(name)[:LABEL]: str(value)[:LABEL] for name, value in list(given.items())[:LABELS]}


def running(
    snapshot: CallSnapshot, *, began: float, tokens: int, cost: int | None, wait: ClockState | None
) -> dict[str, Any]:
    """A running call's row."""
    clocks = (*snapshot.clocks, *(() if wait is None else (wait,)))
    nearest = min(clocks, key=lambda clock: clock.left, default=None)
    now = began + snapshot.seconds
    kind, tail = _tail(snapshot)
    return {
        "group": snapshot.group,
        "labels": labels(snapshot.labels),
        "began": began,
        "state": snapshot.state,
        "model": snapshot.model,
        "attempt": snapshot.attempt,
        "attempts": snapshot.attempts,
        "tokens": tokens,
        "cost": cost,
        "reasons": [record.reason for record in snapshot.before],
        "clock": None if nearest is None else clock(nearest, now),
        "kind": kind,
        "tail": tail,
    }


def _tail(snapshot: CallSnapshot) -> tuple[str | None, str]:
    """The end of what came last, and what it is."""
    for block in reversed(snapshot.blocks):
        tail = ""
        for piece in reversed(block.pieces):
            tail = piece + tail
            if len(tail) >= TAIL:
                break
        if tail:
            return block.kind, tail[-TAIL:]
    return None, ""


def clock(state: ClockState, now: float) -> dict[str, Any]:
    """A clock: when it runs out (which stays the same while it runs), or, while it stands, how much is left."""
    rest = {"left": round(state.left, 1)} if state.stands else {"due": round(now + state.left, 1)}
    return {"knob": state.knob, "limit": round(state.limit, 3), **rest}


def now_running(snapshot: CallSnapshot, *, began: float, clocks: Sequence[ClockState], tokens: int) -> dict[str, Any]:
    """The attempt that runs, but for its text."""
    now = began + snapshot.seconds
    return {
        "number": snapshot.attempt,
        "state": snapshot.state,
        "model": snapshot.model,
        "clocks": [clock(state, now) for state in clocks],
        "tokens": tokens,
        "input_tokens": snapshot.usage.input_tokens,
    }


def finished(
    record: CallRecord, *, number: int, ended: float, completed: str | None, reason: str | None, message: str | None
) -> dict[str, Any]:
    """The row of a call that is over."""
    last = record.attempts[-1] if record.attempts else None
    return {
        "number": number,
        "group": record.group,
        "labels": labels(record.labels),
        "ended": ended,
        "seconds": round(record.seconds, 3),
        "completed": completed,
        "reason": reason,
        "message": message,
        "model": None if last is None else last.model,
        "attempts": len(record.attempts),
        "reasons": list(record.reasons),
        "marked": [trip.reason for trip in record.marked] if isinstance(record, Outcome) else [],
        "tokens": usage(record.usage),
        "cost": money(record.cost),
    }


def attempt(record: AttemptRecord, blocks: Iterable[Kept]) -> dict[str, Any]:
    """An attempt that is over, with its text."""
    decision = record.decision
    times = record.times
    return {
        "number": record.number,
        "model": record.model,
        "ended": None if record.ended is None else ended(record.ended),
        "completed": record.completed,
        "stop_reason": record.stop_reason,
        "request_id": record.request_id,
        "patch": None if not record.patch else {name: str(value)[:LABEL] for name, value in record.patch.items()},
        "hint": record.hint,
        "tokens": usage(record.usage),
        "cost": money(record.cost),
        "saved": record.saved_tokens,
        "times": {
            name: None if value is None else round(value, 3)
            for name, value in (("head", times.head), ("first_token", times.first_token), ("end", times.end))
        },
        "decision": None
        if decision is None
        else {"action": decision.action, "why": decision.why, "wait": round(decision.wait, 3)},
        "observed": [{"reason": seen.trip.reason, "message": seen.trip.message} for seen in record.observed],
        "marked": [{"reason": trip.reason, "message": trip.message} for trip in record.marked],
        "blocks": [msgspec.to_builtins(block) for block in blocks],
    }


def ended(end: Trip | Failed) -> dict[str, Any]:
    """Why an attempt ended."""
    where = end.where if isinstance(end, Trip) else None
    place = {} if where is None else {name: getattr(where, name) for name in ("offset", "pointer", "keyword", "event")}
    return {
        "reason": end.reason,
        "message": end.message,
        "knob": end.knob,
        "estimated": isinstance(end, Trip) and end.estimated,
        "where": {name: value for name, value in place.items() if value is not None},
    }


def usage(used: UsageRange) -> dict[str, Any]:
    """Tokens as an interval."""
    return {
        "input": [_input(used.low), _input(used.high)],
        "output": [used.low.output_tokens, used.high.output_tokens],
        "exact": used.exact,
    }


def _input(counts: Usage) -> int | None:
    if counts.input_tokens is None:
        return None
    return counts.input_tokens + (counts.cache_read_tokens or 0) + (counts.cache_write_tokens or 0)


def money(cost: Cost) -> list[int | None]:
    """Micro-USD as an interval."""
    return [cost.low, cost.high]


def budget(name: str, balance: Balance) -> dict[str, Any]:
    """A budget's account."""
    return {
        "name": name,
        "unit": balance.unit,
        "window": balance.window,
        "cap": balance.cap,
        "settled": balance.settled,
        "held": balance.held,
        "uncertain": balance.uncertain,
    }


def policy(given: Policy) -> list[list[str]]:
    """What a policy says itself, knob by knob."""
    told = explain(given)
    tables: tuple[tuple[Row, ...], ...] = (
        *(told.clocks, told.caps, told.json, *told.checks, told.completion, told.content, told.repetition),
        *told.budgets,
    )
    rows = [[row.knob, row.value] for table in tables for row in table if row.source == "set"]
    guards = [["guards", ", ".join(told.guards)]] if told.guards else []
    return [["mode", told.mode], ["deliver", told.deliver], ["retry.attempts", str(told.attempts)], *rows, *guards]
