"""A truthful end: the protocol was kept, the provider stopped for a good reason, and something was said.

In charge of the order of events and of stop reasons. It does not know what the content means. That a stream ended
without `Stopped` is not seen here, since nothing is fed any more: the panel says so.

The protocol, from which nothing but `Ping` and `Other` is exempt:

    Started+  ( BlockStarted  Delta*  BlockStopped )*  Metered*  Stopped

where blocks may interleave, each index is used once, pieces are of their block's kind, and `Metered` may stand anywhere
between `Started` and `Stopped`. A second `Started` is a repetition if it has the same id and no block has begun; with
another id it is the beginning of another answer, which is never joined to the first. After `Stopped` nothing is fed.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator

from streamguard.events import (
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
)
from streamguard.files.suggest import closest
from streamguard.guards.base import AttemptContext, BaseWatch, Mode, Spec
from streamguard.guards.knobs import Items
from streamguard.verdict import Trip, Where

STOP_REASONS: Final[dict[str, tuple[str, str]]] = {
    "end_turn": ("stop.not_allowed", "the model ended its turn"),
    "stop_sequence": ("stop.not_allowed", "the model came to a stop sequence"),
    "tool_use": ("stop.not_allowed", "the model called a tool"),
    "max_tokens": ("stop.max_tokens", "the answer was cut off at max_tokens"),
    "refusal": ("stop.refusal", "the model refused"),
    "pause_turn": ("stop.pause", "the provider paused the turn"),
    "model_context_window_exceeded": ("stop.context_window", "the answer was cut off where the context window ends"),
    "compaction": ("stop.not_allowed", "the provider compacted the conversation"),
}
"""The provider's stop reasons (Messages API, 2026-11, betas included), with our reason for one that is not accepted."""


StopReason = Annotated[str, Field(json_schema_extra={"enum": list(STOP_REASONS)})]


class Completion(Spec):
    """What counts as the end of an answer. Always on: an absent section means these defaults.

    ```python
    Completion(accept=["end_turn", "tool_use"])
    ```
    """

    accept: Items[StopReason] = ("end_turn", "stop_sequence", "tool_use")
    """The provider's stop reasons that count as success."""
    require_content: bool = True
    """Whether an answer needs text that is not blank, or a call of one of the caller's tools. A paused or compacted
    turn that is accepted needs any block."""
    done_ends: bool = False
    """Whether OpenAI's `data: [DONE]` ends an answer whose stop reason is known and whose blocks are closed, where a
    server sends it instead of `message_stop`. Without it such an answer is `transport.incomplete`."""
    mode: Mode | None = None

    @field_validator("accept")
    @classmethod
    def _known(cls, accept: tuple[str, ...]) -> tuple[str, ...]:
        if not accept:
            raise ValueError("accept needs at least one stop reason: without one every answer trips")
        for reason in accept:
            if reason not in STOP_REASONS:
                near = closest(reason, STOP_REASONS)
                hint = f"did you mean {near!r}?" if near else f"known are {', '.join(STOP_REASONS)}"
                raise ValueError(f"accept: unknown stop reason {reason!r}; {hint}")
        return accept

    @property
    def name(self) -> str:
        return "completion"

    def watch(self, ctx: AttemptContext, now: float) -> CompletionWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop\'s clock.
        """
        return CompletionWatch(self, ctx)


class CompletionWatch(BaseWatch):
    """Where one attempt is in the protocol."""

    wants = (Started, BlockStarted, Delta, BlockStopped, Metered, Stopped, Other)

    def __init__(self, spec: Completion, ctx: AttemptContext) -> None:
        self._spec = spec
        self._max_tokens = ctx.request.max_tokens if ctx.request is not None else None
        self._max_tokens_knob = ctx.max_tokens_knob
        stops = ctx.request.body.get("stop_sequences") if ctx.request is not None else None
        self._no_stop_sequences = ctx.request is not None and not stops
        self._started = False
        self._stopped = False
        self._id: str | None = None
        self._open: dict[int, BlockKind] = {}
        self._closed: set[int] = set()
        self._content = False
        """Whether there was text that is not blank, or a call of a caller's tool."""
        self._called = False
        """Whether one of the caller's tools was called."""
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._done = False
        self._handlers = {
            Started: self._on_started,
            BlockStarted: self._on_block_started,
            BlockStopped: self._on_block_stopped,
            Metered: self._on_metered,
            Stopped: self._on_stopped,
        }

    def feed(self, event: Event, now: float) -> Trip | None:
        if type(event) is Delta:
            # Nothing is open before Started and after Stopped.
            kind = self._open.get(event.index)
            if kind != event.kind and (kind is None or PIECES.get(kind, event.kind) != event.kind):
                return self._stray(event)
            if not self._content and event.kind == "text" and event.text and not event.text.isspace():
                self._content = True
            return None
        handler = self._handlers.get(type(event))
        if handler is None:
            self._done = self._done or (type(event) is Other and event.type == "[DONE]")
            return None
        if not self._started and type(event) is not Started:
            return _broken(f"{_called(event)} before the message's start", event)
        return handler(event)  # type: ignore[operator, no-any-return]

    def _stray(self, delta: Delta) -> Trip:
        if not self._started:
            return _broken("output before the message's start", delta)
        if delta.index in self._open:
            kind = self._open[delta.index]
            return _broken(f"a piece of {delta.kind} in content block {delta.index}, which is {kind}", delta)
        state = "is closed" if delta.index in self._closed else "was never opened"
        return _broken(f"output for content block {delta.index}, which {state}", delta)

    def _on_started(self, event: Started) -> Trip | None:
        if self._started and (self._open or self._closed or event.id is None or event.id != self._id):
            return _broken("a second message start", event)
        self._started, self._id = True, event.id
        return None

    @property
    def ended(self) -> bool:
        """Whether the answer has come to an end that the policy takes for the provider's own."""
        return self._spec.done_ends and self._done and not self._open and self._stop_reason is not None

    def _on_block_started(self, event: BlockStarted) -> Trip | None:
        if event.index in self._open or event.index in self._closed:
            return _broken(f"content block {event.index} opened a second time", event)
        self._open[event.index] = event.kind
        if event.kind == "tool_input":
            self._called = self._content = True
        return None

    def _on_block_stopped(self, event: BlockStopped) -> Trip | None:
        if event.index not in self._open:
            state = "closed already" if event.index in self._closed else "never opened"
            return _broken(f"the end of content block {event.index}, which was {state}", event)
        del self._open[event.index]
        self._closed.add(event.index)
        return None

    def _on_metered(self, event: Metered) -> None:
        self._stop_reason = event.stop_reason or self._stop_reason
        self._stop_sequence = event.stop_sequence or self._stop_sequence

    def _on_stopped(self, event: Stopped) -> Trip | None:
        self._stopped = True
        if self._open:
            which = ", ".join(map(str, sorted(self._open)[:5]))
            self._open.clear()
            return _broken(f"the message's end while content block {which} is open", event)
        return self._judged(event.stop_reason or self._stop_reason)

    def _judged(self, stop_reason: str | None) -> Trip | None:
        """Whether an answer that is complete by the protocol counts as a success."""
        if stop_reason not in self._spec.accept:
            return self._refused(stop_reason)
        if stop_reason == "stop_sequence" and self._stop_sequence is None and self._no_stop_sequences:
            text = "the stop reason is stop_sequence, but the request has no stop sequences and the answer names none"
            return _trip("stop.unknown", text, None, observed=stop_reason)
        if stop_reason == "tool_use" and not self._called:
            return _trip("stop.empty", "the stop reason is tool_use, but no tool was called", "completion.accept")
        content = self._content or (stop_reason in _UNFINISHED and bool(self._closed))
        if self._spec.require_content and not content:
            text = f"an answer without text and without a tool call (stop reason {stop_reason})"
            return _trip("stop.empty", text, "completion.require_content", limit=True, observed=False)
        return None

    def _refused(self, stop_reason: str | None) -> Trip:
        unknown = "the provider gave no stop reason" if stop_reason is None else f"unknown stop reason {stop_reason!r}"
        reason, text = STOP_REASONS.get(stop_reason or "", ("stop.unknown", unknown))
        if stop_reason == "max_tokens" and self._max_tokens_knob is not None:
            # The caller allowed more: it is the cap that was reached, which asking for more tokens cannot mend.
            text = f"{text} ({self._max_tokens}), which {self._max_tokens_knob} had lowered"
            return _trip("cap.output_tokens", text, self._max_tokens_knob, limit=self._max_tokens)
        if stop_reason == "max_tokens" and self._max_tokens is not None:
            text = f"{text} ({self._max_tokens})"
        accept = self._spec.accept
        text = f"{text}; completion.accept is {', '.join(accept)}"
        if (fits := _FITS.get(stop_reason or "")) is not None:
            text += f"; {fits}"
        return _trip(reason, text, "completion.accept", limit=accept, observed=stop_reason)


def _trip(reason: str, message: str, knob: str | None, *, limit: object = None, observed: object = None) -> Trip:
    return Trip(reason=reason, message=message, knob=knob, limit=limit, observed=observed, guard="completion")


_UNFINISHED: Final = frozenset({"pause_turn", "compaction"})
"""Stop reasons of turns that go on: by nature they may hold no text."""

_FITS: Final[dict[str, str]] = {
    "tool_use": "streamguard:tool_input and streamguard:agent accept it",
    "pause_turn": "streamguard:agent accepts it",
    "compaction": "add it there, and send the turn back to go on",
    "end_turn": "every shipped policy accepts it",
    "stop_sequence": "every shipped policy accepts it",
    "refusal": "streamguard:interactive_chat accepts it",
    "max_tokens": "a rule of retry.rules can ask again with more (patch: max_tokens)",
}
"""Stop reason → where it is accepted, or what else to do."""

_CALLED: Final[dict[type, str]] = {
    Started: "a message start",
    BlockStarted: "the start of a content block",
    BlockStopped: "the end of a content block",
    Metered: "usage",
    Stopped: "a message end",
}


def _called(event: Event) -> str:
    return _CALLED[type(event)]


def _broken(what: str, event: Event) -> Trip:
    """The stream breaks the protocol: events are missing, doubled or mixed up, so nothing in it can be trusted."""
    return Trip(
        reason="transport.decode",
        message=f"the stream breaks the protocol: {what}",
        where=Where(block=getattr(event, "index", None)),
        guard="completion",
    )
