"""The kit that this package is tested with: scripts, a scripted server, virtual time, a pytest plugin.

Names are loaded when they are used, so that the pytest plugin costs nothing where it is not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamguard.testing import wire
    from streamguard.testing.batches import BatchProvider
    from streamguard.testing.clock import BACKENDS, Backend, VirtualLoop, run_virtual
    from streamguard.testing.play import Chunk
    from streamguard.testing.record import Bill, Exchange, total
    from streamguard.testing.scripted import (
        Script,
        ScriptedSource,
        ScriptedStream,
        answer,
        chunkings,
        script,
        tool_answer,
    )
    from streamguard.testing.server import ScriptedServer, burst, endless, paced
    from streamguard.testing.steps import (
        Item,
        Step,
        drip,
        encode,
        error,
        event,
        expect_disconnect,
        fin,
        gather,
        half_close,
        omit_last_chunk,
        on_attempt,
        pace,
        pause,
        raw,
        repeat,
        rst,
        send,
        sleep,
        split,
        stall,
        status,
        truth,
    )

_HOMES: dict[str, tuple[str, ...]] = {
    "batches": ("BatchProvider",),
    "clock": ("BACKENDS", "Backend", "VirtualLoop", "run_virtual"),
    "play": ("Chunk",),
    "record": ("Bill", "Exchange", "total"),
    "scripted": ("Script", "ScriptedSource", "ScriptedStream", "answer", "chunkings", "script", "tool_answer"),
    "server": ("ScriptedServer", "burst", "endless", "paced"),
    "steps": (
        *("Item", "Step", "drip", "encode", "error", "event", "expect_disconnect", "fin", "gather", "half_close"),
        *("omit_last_chunk", "on_attempt", "pace", "pause", "raw", "repeat", "rst", "send", "sleep", "split", "stall"),
        *("status", "truth"),
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BatchProvider",
    "BACKENDS",
    "Backend",
    "VirtualLoop",
    "run_virtual",
    "Chunk",
    "Bill",
    "Exchange",
    "total",
    "Script",
    "ScriptedSource",
    "ScriptedStream",
    "answer",
    "chunkings",
    "script",
    "tool_answer",
    "ScriptedServer",
    "burst",
    "endless",
    "paced",
    "Item",
    "Step",
    "drip",
    "encode",
    "error",
    "event",
    "expect_disconnect",
    "fin",
    "gather",
    "half_close",
    "omit_last_chunk",
    "on_attempt",
    "pace",
    "pause",
    "raw",
    "repeat",
    "rst",
    "send",
    "sleep",
    "split",
    "stall",
    "status",
    "truth",
    "wire",
]


def __getattr__(name: str) -> Any:
    if name == "wire":
        return importlib.import_module("streamguard.testing.wire")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"streamguard.testing.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
