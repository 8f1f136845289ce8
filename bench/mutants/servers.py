# ruff: noqa: ARG001, ARG005  a patch takes what the original takes
"""Mutants of what is taken from servers that are not the API: each is noticed by the tests that it names."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import after, mutant, off
from streamguard.adapters.anthropic import events as wire_events
from streamguard.adapters.anthropic import failures, stop_reasons, usage
from streamguard.adapters.anthropic.opening import Opening
from streamguard.engine import delivery
from streamguard.events import BlockStopped, Metered, Started, Usage
from streamguard.guards import tool_calls, transcript
from streamguard.guards.completion import CompletionWatch
from streamguard.guards.document.guard import ToolWatch
from streamguard.guards.timeouts import TimeoutsWatch
from streamguard.guards.tool_calls import ToolCallWatch
from streamguard.guards.transcript import Transcript
from streamguard.proxy.upstream import UpstreamSource


def _sent(*shapes: str) -> tuple[str, ...]:
    """The tests of some shapes of the catalogue."""
    return tuple(f"tests/matrix/test_servers.py::test_what_servers_send[{shape}]" for shape in shapes)


_ODD = "tests/adapters/anthropic/test_odd_frames.py::"

# Frames that are no events

_Translator = wire_events.Translator
off("servers: text as data is broken JSON", _Translator, "_no_output", by=_sent("F85-word"))


class _Everything(frozenset[str]):
    def __and__(self, other: Any) -> Any:
        return True


mutant("servers: objects without a type are output", by=_sent("F85-braces"))(
    lambda: patch.object(wire_events, "_OUTPUT", _Everything())
)
mutant("servers: [DONE] ends an answer by itself", by=_sent("F86-done-instead"))(
    lambda: patch.object(CompletionWatch, "ended", property(lambda self: self._done))
)
mutant("servers: last words are lost", by=(_ODD + "test_a_gateways_last_words_are_kept",))(
    lambda: patch.object(failures, "last_words", lambda said: None)
)


@mutant("servers: a name does not stand in for a type", by=_sent("F95-typeless"))
def _typeless() -> Any:
    original = _Translator._typed

    def typed(self: Any, wire: dict[str, Any], name: bytes, data: bytes) -> Any:
        return original(self, wire, b"", data)

    return patch.object(_Translator, "_typed", typed)


# Starts and ends


@mutant("servers: a start that is said again is another", by=_sent("F87-said-again"))
def _again() -> Any:
    original = CompletionWatch._on_started

    def started(self: Any, event: Any) -> Any:
        return original(self, msgspec.structs.replace(event, id=None))

    return patch.object(CompletionWatch, "_on_started", started)


mutant("servers: another start is the same", by=_sent("F87-another"))(
    lambda: patch.object(CompletionWatch, "_on_started", lambda self, event: setattr(self, "_started", True))
)


@mutant("servers: a later count takes the stop reason away", by=(_ODD + "test_the_last_known_stop_reason_counts",))
def _wiped() -> Any:
    original = _Translator._metered

    def metered(self: Any, wire: Any, append: Any) -> None:
        self._stop_reason = None
        original(self, wire, append)

    return patch.dict(_Translator._HANDLERS, {wire_events.MessageDelta: metered})


@mutant("servers: nobody sees what a start holds", by=_sent("F89-bad-start"))
def _unseen() -> Any:
    original = _Translator._started

    def started(self: Any, wire: Any, append: Any) -> None:
        original(self, wire, lambda event: append(event) if isinstance(event, Started | Metered) else None)

    return patch.dict(_Translator._HANDLERS, {wire_events.MessageStart: started})


@mutant("servers: an unfinished document is judged with its block", by=_sent("F90-error-behind"))
def _at_once() -> Any:
    original = ToolWatch.feed

    def feed(self: Any, event: Any, now: float) -> Any:
        found = original(self, event, now)
        return self._pending.get(event.index) if type(event) is BlockStopped and found is None else found

    return patch.object(ToolWatch, "feed", feed)


@mutant("servers: an unfinished call is judged with its block", by=_sent("F90-cut-then-said"))
def _call_at_once() -> Any:
    original = ToolCallWatch._broken

    def broken(self: Any, index: int, text: str) -> Any:
        return original(self, index, text) or self._pending

    return patch.object(ToolCallWatch, "_broken", broken)


off("servers: any closed input is a call's", ToolCallWatch, "feed", by=_sent("F98-list", "F98-constant"))
mutant("servers: NaN is a number in a call's input", by=_sent("F98-constant"))(
    lambda: patch.object(tool_calls, "no_constant", float)
)
mutant("servers: stop reasons are the API's words only", by=_sent("F91-length", "F91-stop"))(
    lambda: patch.dict(stop_reasons.STOP_WORDS, clear=True)
)
after(
    "servers: a stop sequence that nobody asked for is one",
    CompletionWatch,
    "__init__",
    lambda self, result, *args: setattr(self, "_no_stop_sequences", False),
    by=_sent("F91-no-sequence"),
)

# Usage that is no usage

mutant("servers: a 0 is a count", by=_sent("F92-zero"))(
    lambda: patch.object(Transcript, "_believed", lambda self, told: told)
)
mutant("servers: counts may fall", by=("tests/guards/test_metering.py::test_counts_that_fall_are_an_interval",))(
    lambda: patch.object(transcript, "_fell", lambda *told: False)
)


@mutant("servers: only a number is a count", by=_sent("F92-text"))
def _numbers() -> Any:
    original = usage.count

    def count(value: object) -> int | None:
        return original(value) if type(value) is int else None

    return patch.object(usage, "count", count)


@mutant("servers: nothing is counted with the end", by=(_ODD + "test_counts_may_come_with_the_end",))
def _uncounted() -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(wire_events, "neutral", lambda told, final: Usage()))
    stack.enter_context(patch.object(wire_events, "invocation", lambda told: Usage()))
    return stack


off("servers: calls have no framing", Transcript, "framing", 0.0, by=("tests/engine/test_learning.py",))

# Errors and labels

off("servers: no object is an error without its type", failures, "is_error", False, by=_sent("F93-text", "F93-detail"))
mutant("servers: a type that says nothing beats the status", by=_sent("F93-key", "F93-request", "F93-limit"))(
    lambda: _both(patch.object(failures, "GENERIC", frozenset()), patch.object(failures, "TELLING", frozenset()))
)
mutant(
    "servers: errors have their words in one place", by=(_ODD + "test_an_object_that_only_errors_are_ends_the_stream",)
)(lambda: patch.object(failures, "_WORDS", ("message",)))
mutant("servers: the label says what a body is", by=("tests/adapters/anthropic/test_opening.py",))(
    lambda: patch.object(Opening, "_seen", lambda self: "stream" if self.labelled else "text")
)


def _both(*patches: Any) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for one in patches:
        stack.enter_context(one)
    return stack


# Clocks, and who sees a call when

after(
    "servers: silence is death from the start",
    TimeoutsWatch,
    "__init__",
    lambda self, result, *args: setattr(self, "_alive", self._alive_limit),
    by=_sent("F97-no-pings"),
)
after(
    "servers: a call's input comes as text does",
    TimeoutsWatch,
    "__init__",
    lambda self, result, *args: setattr(self, "_tool", self._progress),
    by=_sent("F97-long-value"),
)
mutant(
    "servers: the proxy's connect waits for the head",
    by=("tests/proxy/test_upstream.py::test_the_head_belongs_to_the_first_token",),
)(lambda: patch.object(UpstreamSource, "times_connection", False))

_SHOWN = ("tests/engine/test_call_delivery.py::test_a_whole_input_is_handed_out_with_its_blocks_end",)
mutant("servers: a whole call waits", by=_SHOWN)(lambda: patch.object(delivery, "_is_whole", lambda text: False))
mutant("servers: a call that may be cut is shown", by=_SHOWN)(
    lambda: patch.object(delivery, "_is_whole", lambda text: text is not None)
)
