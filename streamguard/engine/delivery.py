"""When an attempt's events reach the consumer.

`committed` holds everything until the attempt stands (pings pass). `live` and `restarting` hand events out as they are
read, with two exceptions: what comes before the first output is held, so that an attempt that produced nothing leaves
no trace; and a tool's input is held until its block is complete and was checked. Servers close the block of an input
that was cut before they say so, so the block's end waits for the next block or for the message's end. Pure state; the
engine asks it.
"""

from __future__ import annotations

from typing import Final

from streamguard.engine.continuation import Continuation
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping, Stopped
from streamguard.files.strict_json import is_object
from streamguard.policy.model import Deliver

_SETTLES: Final = (BlockStarted, Stopped)
"""Events by which it is known that a block which was closed is whole, whatever its input looks like."""

_NOTHING: Final = "{}"
"""The input of a call without arguments, and of one that was cut before its first character."""


class Delivery:
    """The way of one attempt's events to the consumer.

    :param keep: False for a consumer who wants only the outcome: nothing is held or handed out.
    :param after: what the consumer has already of the attempt's answer; events up to its end are not handed out again.
    """

    def __init__(self, mode: Deliver, *, keep: bool = True, after: Continuation | None = None) -> None:
        self.mode = mode
        self.delivered = False
        """Whether output was handed out that cannot be taken back."""
        self.keep = keep
        self._after = after
        self._output = self._due = False
        self._ready: list[Event] = []
        self._held: list[Event] = []
        self._tools: dict[int, list[Event]] = {}
        self._closed: list[Event] = []
        """A tool's input and its block's end, and what came behind, until it is known that the input is whole."""

    def push(self, event: Event) -> None:
        """An event passed all guards."""
        if not self.keep:
            return
        if self._after is not None and type(event) is not Ping:
            if event is self._after.given:
                self._after, self._output = None, True
            return
        if self.mode == "committed":
            (self._ready if type(event) is Ping else self._held).append(event)
            return
        if type(event) is Ping:
            self._ready.append(event)
            return
        if self._output:
            self._release(event)
            return
        self._held.append(event)
        closed = self._input_of(event, self._held)
        self._due = self._due or bool(closed)
        if self._is_output(event) or _is_whole(closed) or (self._due and type(event) in _SETTLES):
            self._output = True
            held, self._held = self._held, []
            for earlier in held:
                self._release(earlier)

    def _is_output(self, event: Event) -> bool:
        """Whether the attempt begins to show: as the `first_token` clock has it, but for a tool's input, which is
        output when its block is complete and the message has gone on."""
        if type(event) is Delta:
            return bool(event.text) and event.kind != "tool_input"
        return type(event) is BlockStarted and event.kind in ("thinking", "server_tool")

    @staticmethod
    def _input_of(event: Event, held: list[Event]) -> str | None:
        """The input of the tool's block that the event closes, among what is held; `None` if it closes none."""
        if type(event) is not BlockStopped:
            return None
        pieces = [one.text for one in held if type(one) is Delta and one.index == event.index]
        return "".join(pieces) if pieces else None

    def _release(self, event: Event) -> None:
        if type(event) is Delta and event.kind == "tool_input":
            self._tools.setdefault(event.index, []).append(event)
            return
        if self._closed:
            if type(event) not in _SETTLES:
                self._closed.append(event)
                return
            self._ready += self._closed
            self._closed = []
        if type(event) is BlockStopped and (held := self._tools.pop(event.index, None)) is not None:
            if _is_whole(self._input_of(event, held)):
                self._ready += [*held, event]
            else:
                self._closed = [*held, event]
            return
        self._ready.append(event)

    @property
    def ready(self) -> bool:
        """Whether something may go out now."""
        return bool(self._ready)

    def take(self) -> list[Event]:
        """What may go out now."""
        ready, self._ready = self._ready, []
        if self._output and ready:
            self.delivered = True
        return ready

    def commit(self) -> list[Event]:
        """The attempt stands: everything goes out."""
        ready = [*self._ready, *self._held, *self._closed]
        for held in self._tools.values():
            ready += held
        self._ready, self._held, self._closed, self._tools = [], [], [], {}
        return ready


def _is_whole(text: str | None) -> bool:
    """Whether a closed input is surely all of one: a JSON object cannot go on."""
    return text is not None and text.strip() != _NOTHING and is_object(text)
