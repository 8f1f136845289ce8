# ruff: noqa: ARG001, ARG005  a patch takes what the original takes
"""Mutants of the wire form."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import MUTANTS, after, mutant
from streamguard.adapters.anthropic import events as wire_events
from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.opening import Opening
from streamguard.adapters.sse.content_encoding import Decompressor
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import Delta, Failed, Ping

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


@mutant(
    "wire: a body of any kind is a stream",
    by=("tests/adapters/anthropic/test_opening.py::test_what_an_answer_begins_with",),
)
def _any_kind() -> Any:
    return patch.object(Opening, "end", lambda self: None)


@mutant("wire: gzip may be cut", by=("tests/adapters/sse/test_content_encoding.py::test_every_cut_is_noticed",))
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
