"""Every call of a caller's tool that is handed out has an input that the model wrote: a JSON object, in full.

In charge of one rule that no policy switches off, and that no `mode: observe` weakens: a tool's block that is closed
and holds no JSON object ends the attempt. Loops that run tools read an input they cannot parse as `{}`, or as the part
of it that they can, and call the tool with that.

Servers close a block before they say why the message stopped. So an input that is *unfinished*, and could still have
become an object, waits for what the message says next: a stop reason that means "cut off" leaves the decision to
`completion.accept`; an end of the model's own, or another block, is `json.incomplete`. An input that no continuation
can mend is `json.malformed` at once.

The panel asks it, with the text it gathers anyway. It knows no schema: that is the `json` section's business.
"""

from __future__ import annotations

import json
from typing import Final

from streamguard.events import CUTS, BlockStarted, BlockStopped, Event, Stopped
from streamguard.files.strict_json import no_constant
from streamguard.guards.transcript import Transcript
from streamguard.verdict import Trip, Where
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.scanner import SyntaxPrefix

GUARD: Final = "tool_calls"

_DEPTH: Final = 900
"""Open objects and arrays that Python's own parser follows."""


class ToolCallWatch:
    """The inputs of tool calls of one attempt."""

    wants = (BlockStarted, BlockStopped, Stopped)

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._pending: Trip | None = None

    def feed(self, event: Event, now: float) -> Trip | None:
        """Take the next event; the transcript has it already."""
        if type(event) is BlockStopped:
            asked = self._transcript.kind(event.index) == "tool_input" and self._pending is None
            return self._closed(event.index) if asked else None
        if type(event) is BlockStarted:
            return self._pending
        cut = type(event) is Stopped and (event.stop_reason or self._transcript.stop_reason) in CUTS
        return None if cut else self._pending

    def _closed(self, index: int) -> Trip | None:
        text = self._transcript.block_text(index)
        if not text:
            return None  # a call without arguments
        try:
            value = json.loads(text, parse_constant=no_constant)
        except (ValueError, RecursionError):
            return self._broken(index, text)
        if isinstance(value, dict):
            return None
        return self._trip("json.malformed", index, f"{quote(text[:40])} is no JSON object")

    def _broken(self, index: int, text: str) -> Trip | None:
        prefix = SyntaxPrefix(duplicate_names="allow", max_depth=_DEPTH, expect="object")
        dead = prefix.feed(text)
        if dead is not None or prefix.complete:
            said = f"{dead.message} (at character {dead.char})" if dead is not None else "it cannot be parsed"
            return self._trip("json.malformed", index, said)
        self._pending = self._trip("json.incomplete", index, f"it ended inside the document: {quote(text[-40:])}")
        return None

    def _trip(self, reason: str, index: int, problem: str) -> Trip:
        block = self._transcript.blocks[index]
        message = f"the input of the tool call {block.name!r} is closed and is no JSON object: {problem}"
        return Trip(reason=reason, message=message, where=Where(block=index), guard=GUARD)
