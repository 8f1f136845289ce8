# ruff: noqa: ARG001  a patch takes what the original takes
"""Mutants of the guards: completion, clocks, documents, loops, words and ceilings."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import MUTANTS, after, both, mutant, off, setting
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import CallClock
from streamguard.guards import caps, completion, repetition, timeouts
from streamguard.guards.completion import CompletionWatch
from streamguard.guards.content import ContentWatch
from streamguard.guards.document import reader
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.watches import ToolWatch
from streamguard.guards.panel import Panel
from streamguard.viability.judge.judge import Judge
from streamguard.viability.syntax import strict

# Completion

off("completion: never trips", CompletionWatch, "feed")
off("completion: any stop reason will do", CompletionWatch, "_judged")
after("completion: nothing needs to be said", CompletionWatch, "__init__", setting(_content=True))
after("completion: tool_use needs no tool", CompletionWatch, "__init__", setting(_called=True))
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
after(
    "clocks: no connect",
    timeouts.TimeoutsWatch,
    "__init__",
    setting(_connect=("connect", 0.0, _OFF)),
    by=("tests/guards/test_timeouts.py::test_each_clock_trips_at_its_limit",),
)
after("clocks: no progress", timeouts.TimeoutsWatch, "__init__", setting(_progress=_OFF))
after("clocks: no progress while thinking", timeouts.TimeoutsWatch, "__init__", setting(_thinking=_OFF))
after("clocks: no longer allowance for thinking", timeouts.TimeoutsWatch, "_block_started", setting(_thoughts=set()))
after("clocks: no min_rate", timeouts.TimeoutsWatch, "__init__", setting(_rate=None))


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


after("clocks: no total", CallClock, "__init__", setting(deadline=_OFF))

# Documents

_READER = reader.DocumentReader


@mutant("json: prefixes are never dead")
def _no_prefix() -> Any:
    def stopped(self: Any, dead: Any, text: str) -> None:
        return None

    return patch.object(_READER, "_stopped", stopped)


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

    return both(_no_prefix(), patch.object(_READER, "_accept", accept), patch.object(_READER, "finish", finish))


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
    return both(_no_prefix(), patch.object(strict, "no_constant", lambda name: float(name.replace("Infinity", "inf"))))


off("json: tools' inputs are not looked at", ToolWatch, "_opened")
off("json: tools' inputs may be unfinished", ToolWatch, "_close")

# Loops, words, ceilings

off("repetition: never trips", repetition.RepetitionWatch, "feed")
off("repetition: no loops", repetition._Text, "_period")
after("repetition: no blanks", repetition._Text, "__init__", setting(_blanks=None))
off("content: never trips", ContentWatch, "feed")
after("caps: no characters", caps.CapsWatch, "__init__", setting(_characters_left=None))
after("caps: no events", caps.CapsWatch, "__init__", setting(_events_left=None))
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
