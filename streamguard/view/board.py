"""What there is to see of a runtime: calls that run, calls that ended, sums, budgets.

In charge of memory and its bounds. Running calls are looked at when somebody asks, never per event; what a call leaves
behind is taken from telemetry, once per attempt. It knows no HTTP.

The runtime's hook is called inside of calls, so it only keeps references; texts are joined when an attempt is over.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from functools import cached_property
from typing import Any, Final

import msgspec

from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import RunningCall, Runtime
from streamguard.engine.snapshot import CallSnapshot, blocks
from streamguard.engine.telemetry import (
    AttemptAborted,
    AttemptStarted,
    BreakerClosed,
    BreakerOpened,
    BudgetDenied,
    CallCompleted,
    CallGaveUp,
    CallLeft,
    Hedged,
    Record,
    RetryScheduled,
)
from streamguard.events import Usage
from streamguard.guards.timeouts import ClockState
from streamguard.outcome import AttemptRecord, CallRecord
from streamguard.policy.model import Policy
from streamguard.pricing.price import cost
from streamguard.verdict import Trip
from streamguard.view import rows
from streamguard.view.balances import Balances
from streamguard.view.gauge import Gauge
from streamguard.view.marks import mark
from streamguard.view.rows import Kept

MOST_FINISHED: Final = 200
"""Calls that are over and still shown."""

MOST_TEXT: Final = 4_194_304
"""Characters kept of all of them together; the oldest calls lose theirs first."""

MOST_RUNNING: Final = 300
"""Running calls that are shown at once, the longest-running first. All are counted."""


class _Attempt:
    """An attempt that is over, and what it said."""

    def __init__(self, record: AttemptRecord, kept: tuple[Kept, ...]) -> None:
        self.record = record
        self.kept = kept

    @cached_property
    def told(self) -> dict[str, Any]:
        """As the page shows it; made once, when somebody looks."""
        return rows.attempt(self.record, self.kept)

    @property
    def characters(self) -> int:
        """How many it keeps."""
        return sum(len(block.text) for block in self.kept)

    def forgotten(self) -> _Attempt:
        """The same without its texts."""
        return _Attempt(self.record, tuple(block.forgotten() for block in self.kept))


class _Open:
    """What is remembered of a call that runs."""

    def __init__(self, call: RunningCall) -> None:
        self.call = call
        self.running: RunningAttempt | None = None
        self.over: list[_Attempt] = []
        self.gauge = Gauge()
        self.retry: tuple[float, float] | None = None
        """When the next attempt begins, and after how long a wait."""


class _Over(msgspec.Struct, kw_only=True):
    """What is kept of a call that is over."""

    row: dict[str, Any]
    attempts: list[_Attempt]
    policy: Policy | None
    characters: int


class Board:
    """Everything that can be seen of a runtime. Used by tasks of its loop only; `close()` lets go of the runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.balances = Balances(runtime)
        self._open: dict[str, _Open] = {}
        self._over: OrderedDict[str, _Over] = OrderedDict()
        self._characters = 0
        self._numbers = 0
        self._reasons: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._explained: tuple[Policy, list[list[str]]] | None = None
        self._down: dict[tuple[str, str], tuple[str, float]] = {}
        """What is down, by model and endpoint: why, and since when."""
        self._hook = self._take
        runtime.hooks = (*runtime.hooks, self._hook)

    def close(self) -> None:
        """Take no more of the runtime's records."""
        self.runtime.hooks = tuple(hook for hook in self.runtime.hooks if hook is not self._hook)

    # -- telemetry ----------------------------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        """The runtime's hook."""
        match record:
            case AttemptStarted():
                self._started(record.call)
            case Hedged():
                self._started(record.call)
            case AttemptAborted():
                self._sums["aborted"] += 1
                self._ended(record.call, record.attempt)
            case RetryScheduled():
                self._sums["retries"] += 1
                if (entry := self._entry(record.call)) is not None:
                    wait = record.decision.wait
                    entry.retry = (now() + wait, wait)
            case BreakerOpened():
                self._down[record.model or "", record.base_url or ""] = (record.reason, now())
            case BreakerClosed():
                self._down.pop((record.model or "", record.base_url or ""), None)
            case BudgetDenied():
                self._entry(record.call)
            case CallCompleted():
                outcome = record.outcome
                if outcome.attempts:
                    self._ended(record.call, outcome.attempts[-1])
                self._sums["completed"] += 1
                self._keep(record.call, outcome, completed=outcome.completed or "unclaimed")
            case CallGaveUp():
                self._sums["gave_up"] += 1
                self._keep(record.call, record.record, reason=record.reason, message=record.message)
            case CallLeft():
                self._sums["left"] += 1
                entry = self._entry(record.call)
                for attempt in record.record.attempts[0 if entry is None else len(entry.over) :]:
                    self._ended(record.call, attempt)
                self._keep(record.call, record.record, reason="left", message="the consumer left before the end")

    def _entry(self, name: str) -> _Open | None:
        """What is remembered of a call; `None` if it does not run."""
        call = self.runtime.calls.get(name)
        if name not in self._open and call is not None:
            self._open[name] = _Open(call)
            self.balances.learn(call)
        return self._open.get(name)

    def _started(self, name: str) -> None:
        entry = self._entry(name)
        if entry is not None:
            entry.running, entry.gauge, entry.retry = entry.call.running, Gauge(), None

    def _ended(self, name: str, record: AttemptRecord) -> None:
        """An attempt is over: keep what it said."""
        entry = self._entry(name)
        if entry is None:
            return
        running, entry.running = entry.running, None
        kept: tuple[Kept, ...] = ()
        if running is not None and running.number == record.number:
            kept = _kept(entry.call, running, record)
        entry.over.append(_Attempt(record, kept))

    def _keep(
        self,
        call: str,
        record: CallRecord,
        *,
        completed: str | None = None,
        reason: str | None = None,
        message: str | None = None,
    ) -> None:
        """A call is over."""
        self._numbers += 1
        self._reasons[reason or completed or "unclaimed"] += 1
        self._sums["output_tokens"] += record.usage.high.output_tokens or 0
        self._sums["micro_usd"] += record.cost.high or 0
        self._sums["unpriced"] += record.cost.high is None
        open_ = self._open.pop(call, None)
        attempts = [] if open_ is None else open_.over
        row = rows.finished(
            record, number=self._numbers, ended=time.time(), completed=completed, reason=reason, message=message
        )
        characters = sum(attempt.characters for attempt in attempts)
        policy = None if open_ is None else open_.call.policy
        self._over[call] = _Over(row=row, attempts=attempts, policy=policy, characters=characters)
        self._characters += characters
        while len(self._over) > MOST_FINISHED:
            self._characters -= self._over.popitem(last=False)[1].characters
        for over in self._over.values():
            if self._characters <= MOST_TEXT:
                break
            self._characters -= over.characters
            over.characters = 0
            over.attempts = [attempt.forgotten() for attempt in over.attempts]

    # -- looks --------------------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """Everything but texts, as plain JSON values."""
        calls = self.runtime.calls
        shown = list(calls.values())[:MOST_RUNNING]
        return {
            "paused": self.runtime.paused,
            "down": [
                {"model": model, "base_url": base_url, "reason": reason, "since": since}
                for (model, base_url), (reason, since) in self._down.items()
            ],
            "running": {call.id: self._row(call) for call in shown},
            "hidden": len(calls) - len(shown),
            "finished": {name: over.row for name, over in self._over.items()},
            "sums": {"running": len(calls), **self._sums},
            "reasons": dict(self._reasons),
            "budgets": self.balances.shown,
        }

    def detail(self, name: str) -> dict[str, Any] | None:
        """One call with all that is over of it; of an attempt that runs all but the text, which `pieces` has."""
        over, call = self._over.get(name), self.runtime.calls.get(name)
        if call is None:
            if over is None:
                return None
            attempts = {str(one.record.number): one.told for one in over.attempts}
            return {"id": name, "policy": self._policy(over.policy), "attempts": attempts, "now": None}
        look, open_ = call.snapshot(), self._open.get(name)
        told = [] if open_ is None else open_.over
        clocks = (*look.clocks, *self._wait(open_))
        return {
            "id": name,
            "policy": self._policy(call.policy),
            "attempts": {str(one.record.number): one.told for one in told},
            "now": rows.now_running(look, began=look.began, clocks=clocks, tokens=self._tokens(look, open_)),
        }

    def pieces(self, name: str) -> tuple[int, CallSnapshot] | None:
        """The attempt that runs: its number, and a look with its blocks."""
        call = self.runtime.calls.get(name)
        if call is None or call.running is None:
            return None
        return call.running.number, call.snapshot()

    def _policy(self, policy: Policy | None) -> list[list[str]]:
        """What a policy says; explained once for as long as somebody looks at the same."""
        if policy is None:
            return []
        if self._explained is None or self._explained[0] is not policy:
            self._explained = (policy, rows.policy(policy))
        return self._explained[1]

    def _row(self, call: RunningCall) -> dict[str, Any]:
        look, open_ = call.snapshot(), self._open.get(call.id)
        tokens = self._tokens(look, open_)
        before = [record.cost.high for record in look.before]
        price = None if look.model is None else self.runtime.pricebook(call.policy.prices).price(look.model)
        said = look.usage
        now = cost(price, Usage(input_tokens=said.input_tokens or 0, output_tokens=tokens))
        known = [*before, now]
        spent = None if None in known else sum(one for one in known if one is not None)
        wait = next(iter(self._wait(open_)), None)
        return rows.running(look, began=look.began, tokens=tokens, cost=spent, wait=wait)

    def _tokens(self, look: CallSnapshot, open_: _Open | None) -> int:
        if look.usage.output_tokens is not None:
            return look.usage.output_tokens
        gauge = Gauge() if open_ is None else open_.gauge
        return round(gauge.weight(look.blocks) * self.runtime.calibration.scale(look.model).mid)

    def _wait(self, open_: _Open | None) -> tuple[ClockState, ...]:
        """The wait between two attempts, as a clock."""
        if open_ is None or open_.retry is None or open_.retry[1] <= 0:
            return ()
        at, wait = open_.retry
        left = at - now()
        return (ClockState(knob="retry", limit=wait, left=left, stands=False),) if left > 0 else ()

    # -- acts ---------------------------------------------------------------------------------------------------------

    def interrupt(self, name: str, by: str) -> bool:
        """End a running call; whether there was one."""
        call = self.runtime.calls.get(name)
        if call is None:
            return False
        call.interrupt(by)
        return True


def now() -> float:
    """What the loop's clock says, which all times on the board are of."""
    return backend_clock()()


def _kept(call: RunningCall, running: RunningAttempt, record: AttemptRecord) -> tuple[Kept, ...]:
    """What an attempt that is over said, block by block, with its first wrong character."""
    said = blocks(running.panel.transcript)
    texts = [(block.index, block.kind, "".join(block.pieces)) for block in said]
    place = None
    if isinstance(record.ended, Trip):
        place = mark(record.ended, texts, call.policy.json_document, running.request)
    return tuple(
        Kept.of(
            text,
            place[1] if place is not None and place[0] == block.index else None,
            index=block.index,
            kind=block.kind,
            type=block.type,
            name=block.name,
            id=block.id,
        )
        for block, (_, _, text) in zip(said, texts, strict=True)
    )
