"""What an attempt has said so far: text by block, usage, and the moments that matter.

Kept for every attempt, whatever the guards: it is what an outcome, an error and an estimate are made of. Bounded by the
stream itself; costs one list append per delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streamguard.events import (
    COUNTS,
    PIECES,
    BlockKind,
    BlockStarted,
    BlockStopped,
    Delta,
    Event,
    Metered,
    Other,
    Started,
    Stopped,
    Usage,
)
from streamguard.pricing.tokens import CALL_FRAMING, weigh

_STRAY: Final = -1
"""Stands for the block of what belongs to none."""


_NO_OUTPUT: Final = frozenset({"signature_delta", "citations_delta"})
"""Parts of a block that are no output of their own."""


def _input(usage: Usage) -> int:
    return (usage.input_tokens or 0) + (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)


class Transcript:
    """The record of one attempt's stream."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage = Usage()
        """The provider's own counts so far."""
        self.metered = False
        """Whether the provider gave its final count of the output."""
        self.fell: Usage | None = None
        """The lower counts, where some fell: one of the two is wrong, so neither is exact."""
        self.open: BlockStarted | None = None
        """The block that is being made; `None` where nothing is, or something that cannot be seen."""
        self.output_at: float | None = None
        """When the last piece of output came."""
        self.stop_reason: str | None = None
        self.stopped = False
        self.blocks: dict[int, BlockStarted] = {}
        self._pieces: dict[int, list[str]] = {}
        self._takers: dict[str, dict[int, list[str]]] = {"text": {}, "thinking": {}, "tool_input": {}}
        """The same by kind of piece: of each block that is made of such pieces."""
        self.given = 0.0
        """The weight of text at the beginning that an earlier attempt has made; see `engine.continuation`."""
        self.first_token_at: float | None = None
        self.routes: dict[type, Any] = {
            Started: self._started,
            BlockStarted: self._block_started,
            Delta: self._delta,
            BlockStopped: self._block_stopped,
            Other: self._other,
            Metered: self._metered,
            Stopped: self._stopped,
        }
        """The handler for each event type that matters here."""

    def feed(self, event: Event, now: float) -> None:
        """Take the next event."""
        handler = self.routes.get(type(event))
        if handler is not None:
            handler(event, now)

    def _started(self, event: Started, now: float) -> None:
        self.id, self.model = event.id or self.id, event.model or self.model
        self.usage = self.usage.updated(self._believed(event.usage))

    def _block_stopped(self, event: BlockStopped, now: float) -> None:
        self.open = None

    def _other(self, event: Other, now: float) -> None:
        if event.type not in _NO_OUTPUT:
            self.open = None

    def _block_started(self, event: BlockStarted, now: float) -> None:
        self.open, self.output_at = event, now
        self.blocks[event.index] = event
        pieces = self._pieces[event.index] = []
        for kind, taken in self._takers.items():
            taken.pop(event.index, None)
            if PIECES.get(event.kind, kind) == kind:
                taken[event.index] = pieces

    def _delta(self, event: Delta, now: float) -> None:
        if self.stopped:
            return  # what comes after the message's own end is no part of it
        self.output_at = now
        try:
            self._takers[event.kind][event.index].append(event.text)
        except KeyError:
            # Of no block that takes it: it was made and is billed, but it is no part of any block's text.
            self._pieces.setdefault(_STRAY, []).append(event.text)
        if self.first_token_at is None and event.text:
            self.first_token_at = now

    def _metered(self, event: Metered, now: float) -> None:
        told, before = self._believed(event.usage), self.usage
        self.usage = before.updated(told)
        if not event.usage.iterations and _fell(before, told):
            self.fell = _lower(before, told)
        self.stop_reason = event.stop_reason or self.stop_reason
        # A count that comes with the stop reason is the final one; earlier ones are running totals.
        self.metered = self.metered or (event.stop_reason is not None and told.output_tokens is not None)

    def _stopped(self, event: Stopped, now: float) -> None:
        self.stopped = True
        self.stop_reason = event.stop_reason or self.stop_reason
        # Nothing is counted any more after the message's own end, so the last count is final whatever came with it.
        self.metered = self.metered or self.usage.output_tokens is not None

    def _believed(self, usage: Usage) -> Usage:
        """What was counted, without a 0 that cannot be a count: gateways send it where they counted nothing."""
        unknown: dict[str, None] = {}
        if usage.input_tokens == 0 and not usage.whole_input:
            unknown["input_tokens"] = None
        if usage.output_tokens == 0 and (self.blocks or self.first_token_at is not None):
            unknown["output_tokens"] = None
        return msgspec.structs.replace(usage, **unknown) if unknown else usage

    def kind(self, index: int) -> BlockKind:
        """What a block is."""
        return self.blocks[index].kind if index in self.blocks else "other"

    def pieces(self, index: int) -> Sequence[str]:
        """The pieces of one block as they came; grows while the attempt runs, so a reader remembers how far it was."""
        return self._pieces.get(index, ())

    def block_text(self, index: int) -> str:
        """The text of one block so far."""
        return "".join(self._pieces.get(index, ()))

    @property
    def text(self) -> str:
        """The text blocks so far, one after the other."""
        return "".join(self.block_text(index) for index in self.blocks if self.blocks[index].kind == "text")

    @property
    def characters(self) -> int:
        """Characters of all output so far, of every kind."""
        return sum(len(piece) for pieces in self._pieces.values() for piece in pieces)

    def weights(self) -> dict[BlockKind, float]:
        """The weight of the output so far by kind of block: see `tokens.weigh`. Reads all text: once per attempt."""
        weights: dict[BlockKind, float] = {}
        for index in self._pieces:
            kind = self.kind(index)
            weights[kind] = weights.get(kind, 0.0) + weigh(self.block_text(index))
        if self.given and "text" in weights:
            weights["text"] = max(0.0, weights["text"] - self.given)
        return weights

    def framing(self) -> float:
        """The weight of what calls take beside their inputs: their names, and marks that no event shows."""
        calls = [block for block in self.blocks.values() if block.kind in ("tool_input", "server_tool")]
        return sum(CALL_FRAMING + weigh(block.name or "") for block in calls)

    @property
    def tool_calls(self) -> int:
        """The caller's own tools called so far."""
        return sum(block.kind == "tool_input" for block in self.blocks.values())


def _fell(before: Usage, told: Usage) -> bool:
    """Whether a count is lower than it was. What is left out did not fall."""
    if told.whole_input and before.whole_input is not None:
        whole = _lower(before, told).whole_input
        if whole is not None and whole < before.whole_input:
            return True
    output, earlier = told.output_tokens, before.output_tokens
    return output is not None and earlier is not None and output < earlier


def _lower(before: Usage, told: Usage) -> Usage:
    """The counts as they were told last, whatever they were before."""
    fields = {name: getattr(before if getattr(told, name) is None else told, name) for name in COUNTS}
    return msgspec.structs.replace(before, **fields)
