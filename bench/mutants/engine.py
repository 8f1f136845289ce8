# ruff: noqa: ARG001, ARG002, ARG005  a patch takes what the original takes
"""Mutants of the engine: retries, clean-up, budgets, delivery and usage."""

from __future__ import annotations

import contextlib
import math
from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import mutant, off
from streamguard.adapters.anthropic import events as wire_events
from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic import stream as wire_stream
from streamguard.budgets.spec import NotBilled
from streamguard.engine import dispatch
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.call import Call
from streamguard.engine.clock import CallClock
from streamguard.engine.delivery import Delivery
from streamguard.engine.dispatch import Dispatch, Permit
from streamguard.engine.recorder import Recorder
from streamguard.events import Delta, Usage
from streamguard.guards.transcript import Transcript
from streamguard.retry.cooldown import Cooldown
from streamguard.retry.quota import RetryQuota

# Retries


@mutant("retry: as often as it likes")
def _attempts() -> Any:
    from streamguard.engine import deciding
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(
        deciding, "decide", lambda rules, ended, at: original(rules.model_copy(update={"attempts": 99}), ended, at)
    )


@mutant("retry: rules may be used for ever")
def _used() -> Any:
    from streamguard.engine import deciding
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(deciding, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, used=())))


@mutant("retry: what is never retried is")
def _never() -> Any:
    from streamguard.retry import rules

    return patch.object(rules, "NEVER_RETRIED", ())


@mutant("retry: after output was shown")
def _shown() -> Any:
    from streamguard.engine import deciding
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(
        deciding, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, delivered=False))
    )


@mutant("retry: a wait that does not fit is waited for")
def _unfit() -> Any:
    from streamguard.engine import deciding
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(
        deciding, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, deadline=math.inf))
    )


@mutant("retry: retry-after is not honoured")
def _after() -> Any:
    return patch.object(failures, "retry_after", lambda headers: None)


off("retry: no wait", CallClock, "sleep")


@mutant("retry: patches compound")
def _compound() -> Any:
    def request(self: Any) -> Any:
        base = self._patched or self._source.request
        if base is not None and self._decision is not None:
            base = base.patched({"system": f"once more {len(self._records)}"}) if self._records else base
        self._patched = base
        return base

    return patch.object(Call, "_request", request)


off("retry: the quota never empties", RetryQuota, "take")
off("retry: no cool-down", Cooldown, "refused")

# Clean-up and budgets

off("clean-up: attempts are not closed", RunningAttempt, "close")
off("clean-up: streams of the SDK are not closed", wire_stream.BodyStream, "aclose")
off("budgets: holds are not settled", Dispatch, "settle", ())
off("budgets: holds are not settled on cancellation", Call, "close")


@mutant("budgets: nothing is reserved")
def _unreserved() -> Any:
    async def reserve(self: Any, request: Any, knob: Any, *more: Any) -> Any:
        return Permit(request=request, max_tokens_knob=knob)

    return patch.object(Dispatch, "_reserve", reserve)


@mutant("budgets: aborts are free")
def _free() -> Any:
    original = dispatch.evidence

    def evidence(*known: Any) -> Any:
        found = original(*known)
        return found if type(found).__name__ == "Billed" else NotBilled()

    return patch.object(dispatch, "evidence", evidence)


@mutant("the runtime forgets no call")
def _remembers() -> Any:
    class Sticky(dict[str, Any]):
        def pop(self, *args: Any) -> Any:
            return None

    from streamguard.engine.runtime import Runtime

    original = Runtime.__init__

    def init(self: Any, **options: Any) -> None:
        original(self, **options)
        self.calls = Sticky()

    return patch.object(Runtime, "__init__", init)


# What the consumer sees


@mutant("delivery: committed is at once")
def _at_once() -> Any:
    original = Delivery.__init__

    def init(self: Any, mode: Any, **options: Any) -> None:
        original(self, "restarting" if mode == "committed" else mode, **options)

    return patch.object(Delivery, "__init__", init)


@mutant("delivery: tools' inputs are shown as they come")
def _inputs() -> Any:
    def release(self: Any, event: Any) -> None:
        self._ready.append(event)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Delivery, "_release", release))
    stack.enter_context(patch.object(Delivery, "_is_output", lambda self, event: type(event) is Delta))
    return stack


@mutant("delivery: nothing is shown in the end")
def _nothing() -> Any:
    return patch.object(Delivery, "commit", lambda self: [])


@mutant("delivery: the last events are lost")
def _lost() -> Any:
    original = Delivery.commit
    return patch.object(Delivery, "commit", lambda self: list(original(self))[:-3])


# Usage


@mutant("usage: the start's output count is true")
def _placeholder() -> Any:
    original = wire_events.neutral

    def neutral(wire: object, *, final: bool) -> Any:
        return original(wire, final=True)

    def started(self: Any, event: Any, now: float) -> None:
        self.id, self.model = event.id, event.model
        self.usage = self.usage.updated(event.usage)
        self.metered = event.usage.output_tokens is not None

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(wire_events, "neutral", neutral))
    stack.enter_context(patch.object(Transcript, "_started", started))
    return stack


@mutant("usage: counts are added up")
def _added() -> Any:
    def updated(self: Usage, newer: Usage) -> Usage:
        def both(name: str) -> int | None:
            old, new = getattr(self, name), getattr(newer, name)
            return new if old is None else old if new is None else old + new

        return Usage(**{name: both(name) for name in self.__struct_fields__})

    return patch.object(Usage, "updated", updated)


@mutant("usage: what is seen is all there is")
def _no_lag() -> Any:
    from streamguard.engine import recorder
    from streamguard.guards import metering

    original = metering.usage_range

    def narrow(*args: Any) -> Any:
        made = original(*args)
        return msgspec.structs.replace(made, high=made.low)

    return patch.object(recorder, "usage_range", narrow)


@mutant("usage: refused requests are billed")
def _refused() -> Any:
    from streamguard.guards import metering

    def billed(self: Any, running: Any, end: Any) -> Any:
        return metering.usage_range(running.panel.transcript, running.request, self._runtime.calibration)

    return patch.object(Recorder, "_usage", billed)
