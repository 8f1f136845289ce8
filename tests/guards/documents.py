"""Documents as streams: a text, cut anywhere, as the events of one attempt, fed to a guard's watch."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext, Document
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.watches import TextWatch, ToolWatch
from streamguard.request import Request
from streamguard.verdict import Enough, Trip


class Run(msgspec.Struct):
    """What became of a stream."""

    verdict: Trip | Enough | None
    event: int | None
    """Index of the event that brought the verdict."""
    document: Document


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    """The text, cut at the given places."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(text)}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def ways(text: str, seed: int = 0) -> Iterator[list[str]]:
    """The text whole, in single characters, and cut at random."""
    yield [text]
    yield list(text)
    draw = random.Random(seed)
    for _ in range(3):
        yield pieces(text, draw.choices(range(len(text) + 1), k=1 + len(text) // 4))


class Written:
    """A document as a text, with how many characters show that each of its values is complete."""

    def __init__(self, value: Any) -> None:
        self.text = ""
        self.ends: dict[str, int] = {}
        self.values: dict[str, Any] = {}
        self._write(value, "")

    def _write(self, value: Any, path: str) -> None:
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            self.text += "{" if isinstance(value, dict) else "["
            for count, (key, one) in enumerate(pairs):
                self.text += ", " if count else ""
                self.text += f"{json.dumps(key)}: " if isinstance(key, str) else ""
                self._write(one, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")
            self.text += "}" if isinstance(value, dict) else "]"
        else:
            self.text += json.dumps(value, ensure_ascii=False)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        self.ends[path] = len(self.text) + number
        self.values[path] = json.loads(json.dumps(value), parse_float=Decimal)

    def complete(self, length: int) -> dict[str, Any]:
        """The values that so many characters complete, in order."""
        return {path: self.values[path] for path, end in self.ends.items() if end <= length}


def text_events(parts: Iterable[str]) -> list[Event]:
    """An answer of one text block."""
    deltas = [Delta(0, "text", part) for part in parts]
    metered = Metered(Usage(output_tokens=1), stop_reason="end_turn")
    return [Started(), BlockStarted(0, "text"), *deltas, BlockStopped(0), metered, Stopped("end_turn")]


def tool_events(*inputs: tuple[str, Iterable[str]]) -> list[Event]:
    """An answer of tool calls: name and input of each."""
    events: list[Event] = [Started()]
    for index, (name, parts) in enumerate(inputs):
        deltas = [Delta(index, "tool_input", part) for part in parts]
        events += [BlockStarted(index, "tool_input", name=name, id=f"id{index}"), *deltas, BlockStopped(index)]
    return [*events, Metered(Usage(output_tokens=1), stop_reason="tool_use"), Stopped("tool_use")]


def watch(spec: JsonDocument, body: dict[str, Any] | None = None) -> TextWatch | ToolWatch:
    """A watch for an attempt with this request, or an opaque one."""
    return spec.watch(AttemptContext(request=None if body is None else Request(body)), 0.0)


def run(spec: JsonDocument, events: Iterable[Event], body: dict[str, Any] | None = None) -> Run:
    """Feed a watch what it wants, up to its verdict."""
    state = watch(spec, body)
    for index, event in enumerate(events):
        if type(event) in state.wants and (verdict := state.feed(event, float(index))) is not None:
            return Run(verdict, index, state.document())
    return Run(None, None, state.document())


def said(result: Run) -> tuple[Any, ...]:
    """A run, without what depends on how the text was cut."""
    verdict = result.verdict
    if isinstance(verdict, Trip):
        verdict = msgspec.structs.replace(verdict, at=None)
    return verdict, result.document.complete, result.document.value
