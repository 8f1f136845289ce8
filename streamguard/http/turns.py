"""Who has its turn next: work of many clients, a little in each pass of the event loop.

In charge of order alone. Known clients come by turns, whoever has more to do than others; strangers come last, a few
in a pass. So what one client, or a thousand strangers, have to do holds up nobody for longer than a pass takes. It
knows no sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 16
"""Pieces of work of known clients in one pass."""

STRANGERS_AT_ONCE: Final = 4
"""Of strangers; each takes a tenth of a millisecond to one."""


class Turns:
    """Work that waits for its turn. Belongs to the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, deque[Callable[[], object]]] = {}
        self._strangers: deque[Callable[[], object]] = deque()
        self._due = False

    def add(self, client: str | None, work: Callable[[], object]) -> None:
        """Do some work when its turn has come. Work that returns `False` had nothing to do, and took no turn.

        :param client: who it is for; `None`: a stranger.
        """
        (self._strangers if client is None else self._lanes.setdefault(client, deque())).append(work)
        self._go_on()

    def _go_on(self) -> None:
        if not self._due and (self._lanes or self._strangers):
            self._due = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._due = False
        left = AT_ONCE
        while left and self._lanes:
            client = next(iter(self._lanes))
            lane = self._lanes.pop(client)
            work = lane.popleft()
            if lane:
                self._lanes[client] = lane
            left -= work() is not False
        left = STRANGERS_AT_ONCE
        # No more than there are: work may make work.
        for _ in range(len(self._strangers)):
            if not left:
                break
            left -= self._strangers.popleft()() is not False
        self._go_on()
