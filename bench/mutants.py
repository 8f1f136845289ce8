# ruff: noqa: ARG001, ARG002, ARG005  a patch takes what the original takes
"""`python -m bench.mutants`: switch off each guard, rule and clean-up in turn, and see whether the matrix notices.

A mutant is a patch, never an edit. Each runs in a process of its own against the probes, in this order, until one
notices: cells of the matrix (shuffled, by seed), cancellation at every step, truncations, requests per outage, time,
memory, fuzzing, keys. A mutant that makes the matrix run for ever is noticed too. Survivors are listed; exits with 1 if
there is one, or if the unmutated package is noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from streamguard.adapters.anthropic import events as wire_events
from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic import stream as wire_stream
from streamguard.adapters.anthropic.opening import Opening
from streamguard.adapters.sse.content_encoding import Decompressor
from streamguard.adapters.sse.decoder import Decoder
from streamguard.budgets.spec import NotBilled
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.call import Call
from streamguard.engine.clock import CallClock
from streamguard.engine.delivery import Delivery
from streamguard.engine.dispatch import Dispatch, Permit
from streamguard.engine.recorder import Recorder
from streamguard.events import Delta, Failed, Ping, Usage
from streamguard.guards import caps, completion, repetition, timeouts
from streamguard.guards.completion import CompletionWatch
from streamguard.guards.content import ContentWatch
from streamguard.guards.document import reader
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.watches import ToolWatch
from streamguard.guards.panel import Panel
from streamguard.guards.transcript import Transcript
from streamguard.retry.cooldown import Cooldown
from streamguard.retry.quota import RetryQuota
from streamguard.viability.judge.judge import Judge
from streamguard.viability.syntax import strict

WITHIN = 300
"""Seconds that the probes may take; a mutant that takes longer runs for ever."""

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]
MUTANTS: dict[str, Mutation] = {}


def mutant(name: str) -> Callable[[Mutation], Mutation]:
    def register(made: Mutation) -> Mutation:
        MUTANTS[name] = made
        return made

    return register


def off(name: str, owner: Any, attribute: str, value: Any = None) -> None:
    """A method that does nothing but return `value`; asynchronous where it was."""
    import inspect

    if inspect.iscoroutinefunction(getattr(owner, attribute)):

        async def nothing(*args: Any, **options: Any) -> Any:
            return value

    else:

        def nothing(*args: Any, **options: Any) -> Any:
            return value

    MUTANTS[name] = lambda: patch.object(owner, attribute, nothing)


def after(name: str, owner: Any, attribute: str, change: Callable[..., Any]) -> None:
    """A method after which `change(self, result, *args)` has the last word."""
    original = getattr(owner, attribute)

    def changed(self: Any, *args: Any, **options: Any) -> Any:
        return change(self, original(self, *args, **options), *args)

    MUTANTS[name] = lambda: patch.object(owner, attribute, changed)


def _set(**values: Any) -> Callable[..., Any]:
    def change(self: Any, result: Any, *args: Any) -> Any:
        for name, value in values.items():
            setattr(self, name, value)
        return result

    return change


# Completion

off("completion: never trips", CompletionWatch, "feed")
off("completion: any stop reason will do", CompletionWatch, "_judged")
after("completion: nothing needs to be said", CompletionWatch, "__init__", _set(_content=True))
after("completion: tool_use needs no tool", CompletionWatch, "__init__", _set(_called=True))
off("completion: output for any block", CompletionWatch, "_stray")
off("completion: any number of starts", CompletionWatch, "_on_started")


@mutant("completion: blocks may stay open")
def _open_blocks() -> Any:
    def stopped(self: Any, event: Any) -> Any:
        self._stopped = True
        return self._judged(event.stop_reason or self._stop_reason)

    return patch.object(CompletionWatch, "_on_stopped", stopped)


@mutant("completion: blocks may open twice")
def _twice() -> Any:
    def opened(self: Any, event: Any) -> None:
        self._open[event.index] = event.kind
        self._content = self._called = self._called or event.kind == "tool_input"

    return patch.object(CompletionWatch, "_on_block_started", opened)


MUTANTS["completion: pieces may be of any kind"] = lambda: patch.object(completion, "PIECES", {})
off("panel: the end of a stream is the end of a message", Panel, "end")
off("engine: nothing is read after the end", RunningAttempt, "drain")

# Clocks

_OFF = math.inf
after("clocks: no connect", timeouts.TimeoutsWatch, "__init__", _set(_connect=("connect", 0.0, _OFF)))
after("clocks: no progress", timeouts.TimeoutsWatch, "__init__", _set(_progress=_OFF))
after("clocks: no progress while thinking", timeouts.TimeoutsWatch, "__init__", _set(_thinking=_OFF))
after("clocks: no longer allowance for thinking", timeouts.TimeoutsWatch, "_block_started", _set(_thoughts=set()))
after("clocks: no min_rate", timeouts.TimeoutsWatch, "__init__", _set(_rate=None))


def _clock(name: str, **values: Any) -> None:
    """A clock that never runs, from the very first wait on."""
    original = timeouts.TimeoutsWatch.waiting

    def waiting(self: Any, now: float) -> None:
        for attribute, value in values.items():
            setattr(self, attribute, value)
        original(self, now)

    MUTANTS[name] = lambda: patch.object(timeouts.TimeoutsWatch, "waiting", waiting)


_clock("clocks: no first_token", _first=("first_token", 0.0, _OFF))
_clock("clocks: no alive", _alive=_OFF)
_clock("clocks: no attempt", _end=_OFF)


@mutant("clocks: any byte is output")
def _bytes_are_output() -> Any:
    original, passed = timeouts.TimeoutsWatch.heard, timeouts.TimeoutsWatch.passed

    def heard(self: Any, now: float) -> None:
        self._output = True
        original(self, now)

    def both(self: Any, now: float) -> None:
        self._output = True
        passed(self, now)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(timeouts.TimeoutsWatch, "heard", heard))
    stack.enter_context(patch.object(timeouts.TimeoutsWatch, "passed", both))
    return stack


after("clocks: no total", CallClock, "__init__", _set(deadline=_OFF))

# Documents

_READER = reader.DocumentReader


@mutant("json: prefixes are never dead")
def _no_prefix() -> Any:
    def stopped(self: Any, dead: Any, text: str) -> None:
        return None

    return patch.object(_READER, "_stopped", stopped)


def _both(*patches: Any) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for one in patches:
        stack.enter_context(one)
    return stack


# Prefixes and the final parse are two layers: what one lets pass the other finds. So the second is tried without the
# first.


@mutant("json: accepted without the final parse, and prefixes are never dead")
def _no_final() -> Any:
    def accept(self: Any) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            self._parsed = json.loads(self.text)
        self.complete = True

    def finish(self: Any) -> None:
        accept(self)

    return _both(_no_prefix(), patch.object(_READER, "_accept", accept), patch.object(_READER, "finish", finish))


off("json: documents may be unfinished", _READER, "finish")
off("json: the schema's final judge is asleep", Judge, "validate")


def _section(name: str, **values: Any) -> None:
    original = JsonDocument.plan

    def plan(self: Any, schema: Any) -> Any:
        made = original(self, schema)
        return msgspec.structs.replace(made, **values) if isinstance(made, msgspec.Struct) else made

    MUTANTS[name] = lambda: patch.object(JsonDocument, "plan", plan)


_section("json: no schema", schema=None)
_section("json: anything may follow", trailing="allow")
_section("json: fences are always stripped", fence="strip")
_section("json: nothing is cut", trailing="reject")
_section("json: names may repeat", duplicate_names="allow", schema=None)


@mutant("json: the strict parse takes NaN, and prefixes are never dead")
def _nan() -> Any:
    return _both(_no_prefix(), patch.object(strict, "no_constant", lambda name: float(name.replace("Infinity", "inf"))))


off("json: tools' inputs are not looked at", ToolWatch, "_opened")
off("json: tools' inputs may be unfinished", ToolWatch, "_close")

# Loops, words, ceilings

off("repetition: never trips", repetition.RepetitionWatch, "feed")
off("repetition: no loops", repetition._Text, "_period")
after("repetition: no blanks", repetition._Text, "__init__", _set(_blanks=None))
off("content: never trips", ContentWatch, "feed")
after("caps: no characters", caps.CapsWatch, "__init__", _set(_characters_left=None))
after("caps: no events", caps.CapsWatch, "__init__", _set(_events_left=None))
off("caps: no count of the provider", caps.CapsWatch, "_metered")
off("caps: no estimates", caps.CapsWatch, "_estimated")
off("caps: no tokens", caps.CapsWatch, "_tokens")


@mutant("caps: no tool calls")
def _no_calls() -> Any:
    original = caps.CapsWatch.feed

    def feed(self: Any, event: Any, now: float) -> Any:
        self._tool_calls = -100
        return original(self, event, now)

    return patch.object(caps.CapsWatch, "feed", feed)


# Retries


@mutant("retry: as often as it likes")
def _attempts() -> Any:
    from streamguard.engine import call
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(
        call, "decide", lambda rules, ended, at: original(rules.model_copy(update={"attempts": 99}), ended, at)
    )


@mutant("retry: rules may be used for ever")
def _used() -> Any:
    from streamguard.engine import call
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(call, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, used=())))


@mutant("retry: what is never retried is")
def _never() -> Any:
    from streamguard.retry import rules

    return patch.object(rules, "NEVER_RETRIED", ())


@mutant("retry: after output was shown")
def _shown() -> Any:
    from streamguard.engine import call
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(call, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, delivered=False)))


@mutant("retry: a wait that does not fit is waited for")
def _unfit() -> Any:
    from streamguard.engine import call
    from streamguard.retry import rules

    original = rules.decide
    return patch.object(call, "decide", lambda r, e, at: original(r, e, msgspec.structs.replace(at, deadline=_OFF)))


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
    async def reserve(self: Any, request: Any, knob: Any) -> Any:
        return Permit(request=request, max_tokens_knob=knob)

    return patch.object(Dispatch, "_reserve", reserve)


@mutant("budgets: aborts are free")
def _free() -> Any:
    original = Dispatch._evidence

    def evidence(self: Any, running: Any) -> Any:
        found = original(self, running)
        return found if type(found).__name__ == "Billed" else NotBilled()

    return patch.object(Dispatch, "_evidence", evidence)


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


# The wire


@mutant("wire: errors inside a stream are passed over")
def _no_errors() -> Any:
    def translate(self: Any, frames: Any) -> Any:
        return [one for one in _translate(self, frames) if not isinstance(one, Failed)]

    _translate = wire_events.Translator.translate
    return patch.object(wire_events.Translator, "translate", translate)


@mutant("wire: events may be of any size")
def _any_size() -> Any:
    original = Decoder.__init__

    def init(self: Any, max_event_bytes: int = 0) -> None:
        original(self, 1 << 40)

    return patch.object(Decoder, "__init__", init)


MUTANTS["wire: the byte order mark is part of the first line"] = lambda: patch.object(
    Decoder, "_without_bom", lambda self, chunk: chunk
)
after("wire: CR ends no line", Decoder, "_with_line_feeds", lambda self, result, chunk: chunk)


@mutant("wire: an event may end without its blank line")
def _unended() -> Any:
    original = Decoder.feed

    def feed(self: Any, chunk: bytes) -> Any:
        frames = original(self, chunk)
        if chunk.endswith(b'message_stop"}\n'):
            frames = [*frames, (b"message_stop", b'{"type":"message_stop"}')]
        return frames

    return patch.object(Decoder, "feed", feed)


@mutant("wire: pings are output")
def _pings() -> Any:
    original = wire_events.Translator.translate

    def translate(self: Any, frames: Any) -> Any:
        return [Delta(0, "text", " ") if type(one) is Ping else one for one in original(self, frames)]

    return patch.object(wire_events.Translator, "translate", translate)


@mutant("wire: a body of any kind is a stream")
def _any_kind() -> Any:
    return patch.object(Opening, "end", lambda self: None)


@mutant("wire: gzip may be cut")
def _gzip() -> Any:
    return patch.object(Decompressor, "cut", property(lambda self: False))


@mutant("wire: breaks of the connection are ends")
def _breaks() -> Any:
    original = failures.from_exception

    def named(error: BaseException, *, in_stream: bool) -> Any:
        found = original(error, in_stream=in_stream)
        return None if found is None else msgspec.structs.replace(found, reason="source.error")

    return patch.object(failures, "from_exception", named)


@mutant("keys are not redacted")
def _keys() -> Any:
    return patch.object(
        failures,
        "redacted",
        lambda data, limit=4096: (data.decode("utf-8", "replace") if isinstance(data, bytes) else data)[:limit],
    )


# Probes: each says what it noticed, or nothing


FEW = 2500
"""Cells that are tried before the other probes; as many more come last."""


def _cells(begin: int, end: int | None) -> str | None:
    from tests.matrix.cells import CHUNKS
    from tests.matrix.grid import grid, run_cells
    from tests.matrix.surfaces import COMMITTED, LIVE, RESTARTING, RUN, SDK, SDK_LIVE

    doors = (RUN, COMMITTED, LIVE, RESTARTING)
    cells = [cell for cell in grid(doors) if cell.chunk == CHUNKS[0]]
    cells += [cell for cell in grid((SDK, SDK_LIVE)) if cell.chunk == CHUNKS[0]][::9]
    random.Random(5).shuffle(cells)
    cells = cells[begin:end]
    for at in range(0, len(cells), 50):
        _, found = run_cells(cells[at : at + 50])
        if found:
            return found[0]
    return None


def _asserting(module: str, function: str, *cases: tuple[Any, ...]) -> Callable[[], str | None]:
    def probe() -> str | None:
        import importlib

        test = getattr(importlib.import_module(f"tests.matrix.{module}"), function)
        for case in cases or ((),):
            try:
                test(*case)
            except BaseException as error:  # a probe that fails in any way has noticed
                return f"{function}{case}: {type(error).__name__}: {str(error)[:200]}"
        return None

    return probe


def _compositions() -> str | None:
    from bench.compositions import _run

    found = _run(0)
    return found[0] if found else None


def _keys_probe() -> str | None:
    from streamguard.testing import run_virtual
    from streamguard.testing.scripted import Script
    from tests.matrix.cells import CANARY, Question
    from tests.matrix.configs import configs
    from tests.matrix.surfaces import SDK
    from tests.matrix.test_security import TELLTALES

    config = configs()["completion"]
    for where, items in TELLTALES.items():
        seen = run_virtual(SDK.ask, Question(Script.of(items), config.policy, config.request), grace=0.002)
        if CANARY in str(seen.error) + str(seen.telemetry):
            return f"the key was seen: {where}"
    return None


PROBES: dict[str, Callable[[], str | None]] = {
    "cells": lambda: _cells(0, FEW),
    "cancellation": _asserting(
        "test_cancellation",
        "test_cancelled_at_every_step",
        ("a good answer", False),
        ("a dead document, then a good answer", True),
        ("silence", False),
    ),
    "cancellation on sockets": _asserting("test_cancellation", "test_cancelled_at_every_step_on_sockets"),
    "leaving": _asserting("test_cancellation", "test_left_at_every_event", ("live", "break"), ("restarting", "raise")),
    "truncation": _asserting("test_truncation", "test_every_cut_of_the_catalogue"),
    "amplification": _asserting(
        "test_amplification", "test_an_outage_costs_little_more_than_its_calls", ("F29-outage",), ("F14-no-answer",)
    ),
    "keys": _keys_probe,
    "fuzz": _asserting("test_fuzz", "test_mutations", ("sse",), ("wire",), ("schema",)),
    "cut gzip": _asserting("test_regressions", "test_a_cut_body_is_noticed_by_its_compression"),
    "compositions": _compositions,
    "cool-down": _asserting("test_amplification", "test_calls_stop_together"),
    "more cells": lambda: _cells(FEW, 2 * FEW),
}


class _Late(KeyboardInterrupt):
    """The probes take too long. Of this kind, as a loop hands on no other, and a package may well survive a
    `TimeoutError`."""


def _try(name: str) -> tuple[str, str | None, str, float]:
    """Which probe noticed a mutant, and what."""
    began = time.monotonic()

    def late(*_: object) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, WITHIN, 10)
    try:
        with MUTANTS[name]() if name else contextlib.nullcontext():
            for probe, ask in PROBES.items():
                try:
                    noticed = ask()
                except _Late:
                    return name, probe, "it went on for ever", time.monotonic() - began
                except Exception:
                    noticed = traceback.format_exc(limit=-1)
                if noticed is not None:
                    return name, probe, noticed.splitlines()[-1][:160], time.monotonic() - began
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return name, None, "", time.monotonic() - began


def _chosen(only: str) -> Iterator[str]:
    yield from (name for name in MUTANTS if only in name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--sound", action="store_true", help="first see that the package itself is not noticed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", help="write the figures to this file, for the report")
    options = parser.parse_args()
    names = list(_chosen(options.only))
    began = time.monotonic()
    survivors: list[str] = []
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        tasks = [""] * options.sound + names
        for name, probe, what, took in pool.imap(_try, tasks):
            print(f"{name or 'the package itself':<58} {probe or 'SURVIVED':<16} {took:6.1f} s  {what}", flush=True)
            if (probe is None) == bool(name):
                survivors.append(name or f"the package itself: {what}")
    print(f"{len(names)} mutants, {len(survivors)} survivors, {time.monotonic() - began:.0f} s")
    for name in survivors:
        print(f"  survivor: {name}")
    if options.save:
        Path(options.save).write_text(json.dumps({"what": "mutants", "count": len(names), "survivors": survivors}))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
