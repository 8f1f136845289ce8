"""The clocks of a policy's `timeouts` section, for a consumer who takes no time: when each runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from streamguard.testing.oracle.causes import NEVER, RANKS, Cause, Moment
from streamguard.testing.oracle.reading import Said

THINKING = ("thinking", "redacted_thinking")
SERVER_TOOLS = ("server_tool_use", "mcp_tool_use")


class Clocks:
    """The clocks of the `timeouts` section, for a consumer who takes no time."""

    def __init__(self, section: Any, request: Mapping[str, Any], left: float, *, sees_bytes: bool, off: bool) -> None:
        self._section = section
        self._off = off
        self._left = left
        self._alive = section.alive if sees_bytes else None
        # A token has at least a byte, so this bounds the allowance for the input from above.
        self._slack = section.first_token_per_1k_input * len(repr(request)) / 1000
        self._tool = _tool(section, request)
        self._eager = {tool["name"] for tool in request.get("tools", ()) if tool.get("eager_input_streaming")}
        self._pinged = False
        self._calls: set[int] = set()
        self._head: float | None = None
        self._heard = 0.0
        self._output: float | None = None
        self._thinking: set[int] = set()
        self._tools = 0
        self._pieces: list[tuple[float, int]] = []

    def heard(self, said: Said) -> None:
        """Something came."""
        now = self._heard = said.time
        if said.kind == "head":
            self._head = now
        elif said.kind == "delta":
            self._output = now
            self._pieces.append((now, len(said.about[2].encode("utf-8", "surrogatepass"))))
        elif said.kind == "open":
            kind = said.about[1]
            if kind in THINKING:
                self._thinking.add(said.about[0])
            self._tools = self._tools + 1 if kind in SERVER_TOOLS else 0
            if kind == "tool_use" and said.about[2].get("name") not in self._eager:
                self._calls.add(said.about[0])
            if self._output is None and kind in (*THINKING, *SERVER_TOOLS, "tool_use"):
                self._output = now
        elif said.kind == "ping":
            self._pinged = True
        elif said.kind == "close" and said.about in self._thinking | self._calls:
            self._thinking.discard(said.about)
            self._calls.discard(said.about)
            self._output = now

    def run_out(self, since: float, until: float, number: int) -> Iterator[Cause]:
        """The clocks that run out while nothing comes."""
        yield from self._due("timeout.total", self._left, until, number)
        if self._off:
            return
        section = self._section
        if self._head is None:
            # It ends with the head or, where that is seen, with the connection: then `first_token` has the rest.
            yield from self._due("timeout.connect", section.connect, until, number, slack=math.inf)
        elif self._alive is not None and self._pinged:
            yield from self._due("timeout.alive", self._heard + self._alive, until, number)
        if self._output is None:
            first = section.first_token
            yield from self._due("timeout.first_token", first, until, number, slack=self._slack)
        else:
            thinks = self._thinking or self._tools
            busy = thinks or self._calls
            progress = section.progress_thinking if thinks else self._tool if self._calls else section.progress
            if progress is not None:
                yield from self._due("timeout.progress", self._output + progress, until, number)
            if section.min_rate is not None and not busy:
                yield from self._rate(section.min_rate, since, until, number)
        yield from self._due("timeout.attempt", section.attempt, until, number)

    def _due(self, reason: str, due: float | None, until: float, number: int, slack: float = 0.0) -> Iterator[Cause]:
        if due is None or due > until + 1e-6:
            return
        rank = RANKS.index("clocks")
        # A clock that runs out at the very moment at which something comes may speak or not.
        last = due + slack
        sure = last < until - 1e-6
        yield Cause(
            (reason,), Moment(due - 1e-6, -1, rank), Moment(last + 1e-6, number, rank) if sure else Moment(NEVER)
        )

    def _rate(self, section: Any, since: float, until: float, number: int) -> Iterator[Cause]:
        """A rate that is estimated: surely kept where there are eight bytes to a token, surely missed below a fifth."""
        need, window = section.tokens_per_second * section.window, section.window
        begin = self._pieces[0][0] if self._pieces else 0.0
        rank = RANKS.index("clocks")
        for moment in sorted({begin + window, *(at + window for at, _ in self._pieces), until}):
            if not max(since, begin + window) <= moment <= until:
                continue
            inside = sum(size for at, size in self._pieces if at > moment - window)
            if inside < need * 8:
                sure = inside * 5 < need and moment < until
                last = Moment(moment + 1e-6, number, rank) if sure else Moment(NEVER)
                yield Cause(("timeout.min_rate",), Moment(moment - 1e-6, -1, rank), last)


def _tool(section: Any, request: Mapping[str, Any]) -> float | None:
    """How long an open block of a tool may be silent."""
    if section.progress is None or section.progress_tool is None:
        return None
    scaled: float = section.progress_tool_per_1k_max_tokens * request.get("max_tokens", 0) / 1000
    least: float = section.progress
    base: float = section.progress_tool
    return max(least, base + scaled)
