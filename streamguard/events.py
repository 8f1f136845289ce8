"""What a stream says, in neutral words.

This file is in charge of the vocabulary between adapters, guards and consumers. It does not know any provider's wire
form, and it holds no state: every event is a small frozen value that is cheap to build.

A stream is `Started`, then blocks (`BlockStarted`, `Delta`…, `BlockStopped`, each carrying its block's index), then
`Metered` (usage and stop reason, cumulative, may come several times), then `Stopped`. `Ping` and `Other` may stand
anywhere; `Failed` ends the stream. `Restarted` never comes from a source: the engine puts it between attempts.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from streamguard.pace.limits import Limits
from streamguard.verdict import Decision, Where

DeltaKind = Literal["text", "thinking", "tool_input"]
"""What a piece of output belongs to."""

BlockKind = Literal["text", "thinking", "tool_input", "server_tool", "other"]
"""What a block is: `tool_input` is a tool of the caller's, `server_tool` one that the provider runs itself."""

PIECES: Final[dict[BlockKind, DeltaKind]] = {
    "text": "text",
    "thinking": "thinking",
    "tool_input": "tool_input",
    "server_tool": "tool_input",
}
"""What blocks are made of. Of other blocks we know too little to say."""


CUTS: Final = frozenset({"max_tokens", "model_context_window_exceeded", "refusal", "pause_turn"})
"""Stop reasons after which the last block may be unfinished through no fault of its own."""

COUNTS: Final = (
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("thinking_tokens", "web_searches"),
)
"""The fields of `Usage` that are numbers: they can be added up."""


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One sampling of an answer that took several, as the provider counted it. `None` means that it did not say."""

    type: str
    """The provider's word: `message`, `compaction`, `advisor_message`, `fallback_message`, or one yet to be
    invented."""
    model: str | None = None
    """Which model sampled; `None` for the answer's own."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None

    @property
    def apart(self) -> bool:
        """Whether the answer's own counts leave it out (SDK 2.11.0, `usage.iterations`)."""
        return self.type != "message" and self.type != "fallback_message"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them. `None` means that it did not say, never zero."""

    input_tokens: int | None = None
    """Input that was neither read from nor written to a cache."""
    output_tokens: int | None = None
    """All output billed, thinking included."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    """All tokens written to a cache, whatever their lifetime."""
    cache_write_1h_tokens: int | None = None
    """The part of `cache_write_tokens` with a lifetime of one hour (priced higher than five minutes)."""
    thinking_tokens: int | None = None
    """The part of `output_tokens` spent on thinking."""
    web_searches: int | None = None
    """Searches that the provider ran and bills by the piece."""
    inference_geo: str | None = None
    """Where the answer was made, in the provider's word: it may cost more there."""
    speed: str | None = None
    """How fast it was made: `standard`, or `fast`, which costs more."""
    service_tier: str | None = None
    """`standard`, `priority` or `batch`."""
    impossible: bool = False
    """Whether a count was given that cannot be true: negative, or beyond belief. It is left out of the fields above."""
    iterations: tuple[Iteration, ...] | None = None
    """Every sampling of an answer that took several. What is marked as apart is in none of the counts above."""

    @property
    def whole_input(self) -> int | None:
        """All input, cached or not; `None` if nothing of it was told."""
        told = [count for name in _INPUT if (count := getattr(self, name)) is not None]
        return sum(told) if told else None

    @property
    def billed(self) -> Usage:
        """The counts of everything that is billed: the sum of the samplings, where that is more than the answer's own.

        A sampling without counts makes input and output unknown.
        """
        if not self.iterations:
            return self
        total: dict[str, Any] = {}
        for name in (*_INPUT, "cache_write_1h_tokens", "output_tokens"):
            known = [count for one in self.iterations if (count := getattr(one, name)) is not None]
            total[name] = sum(known) if known else getattr(self, name)
        if any(one.input_tokens is None or one.output_tokens is None for one in self.iterations):
            total |= {"input_tokens": None, "output_tokens": None}
        elif sum(total[name] or 0 for name in _INPUT) < (self.whole_input or 0) or (total["output_tokens"] or 0) < (
            self.output_tokens or 0
        ):
            return self
        return msgspec.structs.replace(self, **total)

    def updated(self, newer: Usage) -> Usage:
        """Return the counts after `newer` came. Counts are cumulative: they replace and never add, and cannot fall.

        Input is compared as a whole, since a later count may split it otherwise into cached and not cached. A count
        that would fall is left as it was.
        """
        merged = {
            name: getattr(self, name) if getattr(newer, name) is None else getattr(newer, name)
            for name in self.__struct_fields__
        }
        merged["impossible"] = self.impossible or newer.impossible
        if newer.iterations:  # they say what each part was, so the answer's own counts may be lower than before
            return Usage(**merged)
        if (was := self.whole_input) is not None:
            told = [merged[name] for name in _INPUT if merged[name] is not None]
            if sum(told) < was:
                merged |= {name: getattr(self, name) for name in (*_INPUT, "cache_write_1h_tokens")}
        for name in ("output_tokens", "thinking_tokens", "web_searches"):
            earlier, later = getattr(self, name), getattr(newer, name)
            if earlier is not None and later is not None:
                merged[name] = max(earlier, later)
        return Usage(**merged)


_INPUT: Final = ("input_tokens", "cache_read_tokens", "cache_write_tokens")


class Started(msgspec.Struct, frozen=True):
    """The provider accepted the request and began to answer. Its output count is a placeholder and is left out."""

    id: str | None = None
    model: str | None = None
    usage: Usage = Usage()


class BlockStarted(msgspec.Struct, frozen=True, gc=False):
    """A content block opened."""

    index: int
    kind: BlockKind
    type: str = ""
    """The provider's own word for the block, such as `redacted_thinking`."""
    name: str | None = None
    """The tool's name, for tools."""
    id: str | None = None
    """The tool call's id, for tools."""


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A piece of output of one block. Sources leave empty pieces out; guards ignore them all the same."""

    index: int
    kind: DeltaKind
    text: str


class BlockStopped(msgspec.Struct, frozen=True, gc=False):
    """A content block is complete."""

    index: int


class Metered(msgspec.Struct, frozen=True):
    """Cumulative usage, and why the provider stopped once it knows. May come more than once; the last one counts."""

    usage: Usage
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Stopped(msgspec.Struct, frozen=True, gc=False):
    """The provider's own end of the message. The answer is final here; the socket may end later."""

    stop_reason: str | None = None
    """Of the last `Metered`."""


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A keep-alive: the connection lives, nothing was produced."""


class Other(msgspec.Struct, frozen=True, gc=False):
    """An event this vocabulary has no word for (signatures, citations, event types yet to be invented)."""

    type: str
    index: int | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt ended by a failure of the provider or of the transport, before or inside the stream."""

    reason: str
    """One of `verdict.REASONS`: `provider.*` or `transport.*`, or `source.error`."""
    message: str
    type: str | None = None
    """The provider's own error type, such as `overloaded_error`."""
    status: int | None = None
    """The HTTP status; 200 for an error inside a stream."""
    code: str | None = None
    """The provider's finer error code, such as `enforced_spend_limit_reached`."""
    retry_after: float | None = None
    """Seconds the provider asks to wait, from the response."""
    request_id: str | None = None
    sent: bool = True
    """Whether any byte of the request may have reached the provider. False means that nothing can have been billed."""
    billable: bool = True
    """Whether the provider may bill for this attempt. False for a request it refused before working on it."""
    limits: Limits | None = None
    """The rate limits that the response stated, if it stated any."""

    @property
    def where(self) -> Where | None:
        """The place in the stream, which is unknown for a failure. A `Trip` has the same."""
        return None

    @property
    def knob(self) -> None:
        """A failure is nobody's knob."""
        return None


class Restarted(msgspec.Struct, frozen=True):
    """What came before is void: a new attempt begins. Only under `deliver: restarting`."""

    attempt: int
    """The number of the new attempt, from 2."""
    decision: Decision | None = None


Event = Started | BlockStarted | Delta | BlockStopped | Metered | Stopped | Ping | Other | Failed | Restarted
"""Everything a stream can say."""
