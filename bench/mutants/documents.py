# ruff: noqa: ARG001  a patch takes what the original takes
"""Switch off what is asked of documents."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from unittest.mock import patch

import msgspec

from bench.mutants.registry import MUTANTS, both, mutant, off
from streamguard.guards.document import reader
from streamguard.guards.document.guard import JsonDocument, ToolWatch
from streamguard.viability.judge.judge import Judge
from streamguard.viability.syntax import strict

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
