"""The order of events that the API documents, as a check of one event after another."""

from __future__ import annotations

from streamguard.testing.oracle.reading import Said

_PIECES_OF = {"text": "text", "thinking": "thinking"} | dict.fromkeys(
    ("tool_use", "server_tool_use", "mcp_tool_use"), "tool_input"
)
"""The pieces that blocks of these types are made of; the API documents no others for them."""


class Protocol:
    """The order of events that the API documents."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self.called = False
        self._started = self._over = False
        self._open: dict[int, str] = {}
        self._used: set[int] = set()

    def broken(self, said: Said) -> bool:
        """Take the next event; whether it may not stand here."""
        kind, about = said.kind, said.about
        if kind in ("head", "bytes", "ping", "other"):
            return False
        if self._over:  # the answer is final
            return False
        if (kind != "start") != self._started:
            return True
        if kind == "start":
            self._started = True
        elif kind == "open":
            self.called |= about[1] == "tool_use"
            if about[0] in self._used:
                return True
            self._open[about[0]] = about[1]
            self._used.add(about[0])
        elif kind == "delta":
            block = self._open.get(about[0])
            return block is None or about[1] != _PIECES_OF.get(block, about[1])
        elif kind == "close":
            if about not in self._open:
                return True
            del self._open[about]
        elif kind == "usage":
            self.stop_reason = about[0] or self.stop_reason
        elif kind == "stop":
            self._over = True
            return bool(self._open)
        return False
