"""Events of a call → bytes of an event stream that a browser reads.

In charge of what a browser is told, and in which words. Pure state: no I/O, no time. What it does not tell unless
asked: thinking, tool calls, usage, and why something went wrong beyond the reason's own sentence, since such messages
quote policies, providers and answers.

In the style `named` each frame has an `event:` and an `id:` line, as `EventSource` likes it:

| event | data |
| --- | --- |
| `text` | `block`, `text`: the next piece |
| `thinking` | the same, if included |
| `tool` | `block`, `id`, `name`, `input`: a complete call, if included |
| `restarted` | `attempt`, `reason`, `message`: everything before it is void |
| `done` | `completed`, `stop_reason`, `attempts`; `value`, `usage`, `cost_usd` if included. The last event |
| `error` | `reason`, `message`, `attempts`. The last event |

In the style `data` there are data lines only, and `data: [DONE]` comes last. `type` stands in the data in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Literal, get_args

import msgspec

from streamguard.errors import CallError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Restarted
from streamguard.outcome import Outcome
from streamguard.verdict import REASONS

Style = Literal["named", "data"]
"""`named` for `EventSource`; `data` for readers that expect nothing but data lines and `[DONE]`."""

Include = Literal["thinking", "tools", "value", "usage", "messages"]
"""What a browser is told beside the text: `messages` are the full messages of errors and restarts."""

KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment: it keeps idle timers of proxies from firing, and no reader shows it."""

INTERNAL: Final = "internal"
"""The reason of an error that is the application's own."""

_STYLES: Final = get_args(Style)
_INCLUDES: Final = get_args(Include)


class Frames:
    """The frames of one relayed call.

    :param id: names the stream in the frames' ids.
    :raises ValueError: a style or an inclusion that there is not.
    """

    def __init__(self, *, style: Style = "named", include: Collection[Include] = (), id: str = "") -> None:  # noqa: A002
        if style not in _STYLES:
            raise ValueError(f"style is one of {', '.join(_STYLES)}, not {style!r}")
        if unknown := sorted(set(include) - set(_INCLUDES)):
            raise ValueError(f"include takes {', '.join(_INCLUDES)}, not {', '.join(map(repr, unknown))}")
        self.count = 0
        """How many frames were made."""
        self._named = style == "named"
        self._include = frozenset(include)
        self._id = id
        self._tools: dict[int, tuple[BlockStarted, list[str]]] = {}

    def feed(self, events: Iterable[Event]) -> bytes:
        """What a batch of events tells; perhaps nothing. Pieces of one block become one frame."""
        frames: list[bytes] = []
        piece: tuple[str, int] | None = None
        text: list[str] = []

        def flush() -> None:
            nonlocal piece
            if piece is not None and text:
                frames.append(self._frame(piece[0], block=piece[1], text="".join(text)))
            piece = None
            text.clear()

        for event in events:
            if type(event) is Delta and event.kind != "tool_input":
                if event.kind == "thinking" and "thinking" not in self._include:
                    continue
                if piece != (event.kind, event.index):
                    flush()
                    piece = (event.kind, event.index)
                text.append(event.text)
            elif told := self._tell(event):
                flush()
                frames.append(told())
        flush()
        return b"".join(frames)

    def _tell(self, event: Event) -> Callable[[], bytes] | None:
        """The frame of an event that is no piece, to be made after what came before it."""
        if type(event) is Restarted:
            self._tools.clear()
            return lambda: self._restarted(event)
        if "tools" not in self._include:
            return None
        if type(event) is BlockStarted and event.kind == "tool_input":
            self._tools[event.index] = (event, [])
        elif type(event) is Delta and event.index in self._tools:
            self._tools[event.index][1].append(event.text)
        elif type(event) is BlockStopped and event.index in self._tools:
            return lambda: self._tool(*self._tools.pop(event.index))
        return None

    def _restarted(self, event: Restarted) -> bytes:
        decision = event.decision
        reason = None if decision is None else decision.reason
        message = decision.why if decision is not None and "messages" in self._include else _meaning(reason)
        return self._frame("restarted", attempt=event.attempt, reason=reason, message=message)

    def _tool(self, block: BlockStarted, pieces: list[str]) -> bytes:
        text = "".join(pieces)
        call = {"block": block.index, "id": block.id, "name": block.name}
        try:
            return self._frame("tool", **call, input=json.loads(text or "{}"))
        except (ValueError, RecursionError):
            return self._frame("tool", **call, input=None, text=text)

    def done(self, outcome: Outcome) -> bytes:
        """The answer stands."""
        last = outcome.attempts[-1] if outcome.attempts else None
        told: dict[str, Any] = {
            "completed": outcome.completed,
            "stop_reason": None if last is None else last.stop_reason,
            "attempts": len(outcome.attempts),
        }
        if outcome.marked:
            told["marked"] = [trip.reason for trip in outcome.marked]
        if "value" in self._include:
            told["value"] = outcome.data
        if "usage" in self._include:
            usage, usd = outcome.usage, outcome.cost.usd_high
            told["usage"] = {"low": _counts(usage.low), "high": _counts(usage.high), "exact": usage.exact}
            told["cost_usd"] = None if usd is None else str(usd)
        return self._frame("done", **told) + self._end()

    def error(self, error: BaseException) -> bytes:
        """There is no answer."""
        if isinstance(error, CallError):
            message = str(error) if "messages" in self._include else _meaning(error.reason)
            frame = self._frame("error", reason=error.reason, message=message, attempts=len(error.attempts))
        else:
            frame = self._frame("error", reason=INTERNAL, message="something went wrong on our side", attempts=None)
        return frame + self._end()

    def _end(self) -> bytes:
        return b"" if self._named else b"data: [DONE]\n\n"

    def _frame(self, event: str, **data: Any) -> bytes:
        self.count += 1
        body = json_bytes({"type": event, **data})
        if not self._named:
            return b"data: %b\n\n" % body
        return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (self._id.encode(), self.count, event.encode(), body)


def json_bytes(data: Any) -> bytes:
    """JSON on one line."""
    try:
        return msgspec.json.encode(data)
    except UnicodeEncodeError:
        # Half of a pair of surrogates, the other half of which may be in the next piece: the reader joins them.
        return json.dumps(data, separators=(",", ":")).encode()


def _counts(usage: Any) -> dict[str, int | None]:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _meaning(reason: str | None) -> str:
    return REASONS.get(reason or "", "a guard of the application's own")
