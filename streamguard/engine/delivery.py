"""When an attempt's events reach the consumer.

`committed` holds everything until the attempt stands (pings pass). `live` and `restarting` hand events out as they are
read, with two exceptions: what comes before the first output is held, so that an attempt that produced nothing leaves
no trace; and a tool's input is held until its block is complete and was checked. Pure state; the engine asks it.
"""

from __future__ import annotations

from streamguard.engine.continuation import Continuation
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping
from streamguard.policy.model import Deliver


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
        self._output = False
        self._ready: list[Event] = []
        self._held: list[Event] = []
        self._tools: dict[int, list[Event]] = {}

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
        if self._is_output(event):
            self._output = True
            held, self._held = self._held, []
            for earlier in held:
                self._release(earlier)

    def _is_output(self, event: Event) -> bool:
        """Whether the attempt begins to show: as the `first_token` clock has it, but for a tool's input, which is
        output when its block is complete."""
        if type(event) is Delta:
            return bool(event.text) and event.kind != "tool_input"
        if type(event) is BlockStarted:
            return event.kind in ("thinking", "server_tool")
        if type(event) is BlockStopped:
            index = event.index
            return any(type(one) is Delta and one.index == index and one.text for one in self._held)
        return False

    def _release(self, event: Event) -> None:
        if type(event) is Delta and event.kind == "tool_input":
            self._tools.setdefault(event.index, []).append(event)
            return
        if type(event) is BlockStopped:
            self._ready += self._tools.pop(event.index, ())
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
        ready = [*self._ready, *self._held]
        for held in self._tools.values():
            ready += held
        self._ready, self._held, self._tools = [], [], {}
        return ready
