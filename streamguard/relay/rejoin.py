"""Coming back to a call: a browser that lost its connection goes on where it was, and the call has not noticed.

In charge of calls that outlive one connection: of what they said, of how long they are kept for somebody to come back,
and of ending those that nobody comes back to. It knows no framework.

A call that can be come back to is read at the provider's speed and kept whole until it is forgotten, so its memory is
the answer's, where a plain relay holds one batch.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc

from streamguard.relay.frames import KEEP_ALIVE
from streamguard.relay.relay import Relay

_log = logging.getLogger("streamguard")

FRAME: Final = b"\n\n"

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one call: a hundred times the longest answer."""


class Line:
    """One call, and what it has said so far."""

    def __init__(self, relay: Relay, owner: str | None, linger: float, most_bytes: int) -> None:
        self.relay = relay
        self._left = most_bytes
        self.owner = owner
        self.frames: list[bytes] = []
        """Each with its number as id, the first is 1."""
        self.over = False
        self.ended_at = math.inf
        self._linger = linger
        self._followers = 0
        # Whoever asked may be gone before the first frame.
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + linger)
        self._news = anyio.Event()

    async def run(self) -> None:
        """Read the call to its end, or until nobody has followed it for `linger` seconds."""
        try:
            async with self.relay as pieces:
                with self._scope:
                    async for piece in pieces:
                        if piece != KEEP_ALIVE:
                            self._left -= len(piece)
                            if self._left < 0:
                                _log.warning("a relayed call has said more than is kept (most_bytes); it is ended")
                                self.frames.append(self.relay.failed(OverflowError("more than is kept")))
                                break
                            self.frames += [frame + FRAME for frame in piece.split(FRAME)[:-1]]
                            self._tell()
        except Exception:
            # What is not the call's is the application's own; the browser was told of an internal error.
            _log.exception("a relayed call's own application raised")
        finally:
            self.over = True
            self.ended_at = anyio.current_time()
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    def joined(self) -> None:
        """Somebody follows."""
        self._followers += 1
        self._scope.deadline = math.inf

    def left(self) -> None:
        """Somebody does no more."""
        self._followers -= 1
        if not self._followers:
            self._scope.deadline = anyio.current_time() + self._linger

    async def news(self, patience: float) -> bool:
        """Wait until something was said, or it is over; whether it was within `patience` seconds."""
        news = self._news
        with anyio.move_on_after(patience):
            await news.wait()
        return news.is_set()


class Following:
    """What a call says from one frame on: whole frames, and comments in silence. Enter it and iterate."""

    def __init__(self, line: Line, after: int, keep_alive: float) -> None:
        self._line = line
        self._next = after
        self._keep_alive = keep_alive
        self._began = False

    async def __aenter__(self) -> Self:
        self._line.joined()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.left()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = self._line
        if not self._began:
            self._began = True
            return KEEP_ALIVE
        while self._next >= len(line.frames):
            if line.over:
                raise StopAsyncIteration
            if not await line.news(self._keep_alive):
                return KEEP_ALIVE
        frames, self._next = line.frames[self._next :], len(line.frames)
        return b"".join(frames)


class Rejoin:
    """The calls that browsers can come back to. Enter it for the life of the application:
    `async with relay.Rejoin() as rejoin:`, then `relay.response(events, rejoin=rejoin)`.

    Leaving it ends the calls that still run.

    :param linger: seconds that a call goes on, and costs, though nobody follows it.
    :param keep: seconds that a call is kept after its end, for a browser that was away at that moment.
    :param most: calls that are kept; of those that are over, the oldest is forgotten first.
    :param most_bytes: of one call's frames. A call that says more is ended: nobody can come back to a part of it.
    """

    def __init__(
        self, *, linger: float = 15.0, keep: float = 60.0, most: int = 1000, most_bytes: int = MOST_BYTES
    ) -> None:
        self._linger, self._keep, self._most, self._most_bytes = linger, keep, most, most_bytes
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            # Not the block's own error: it would come out inside of an exception group.
            await tasks.__aexit__(None, None, None)
        self._lines.clear()

    def begin(self, relay: Relay, *, owner: str | None, keep_alive: float) -> Following:
        """Ask, and follow from the start.

        :param owner: whose call it is; nobody else can come back to it.
        :param relay: the relay of the call.
        :param keep_alive: seconds between comments.
        :returns: the frames from the start.
        :raises RuntimeError: the `Rejoin` was not entered.
        """
        if self._tasks is None:
            raise RuntimeError("enter the Rejoin first, for the life of the application: async with Rejoin() as rejoin")
        self._forget()
        line = self._lines[relay.id] = Line(relay, owner, self._linger, self._most_bytes)
        self._tasks.start_soon(line.run)
        return Following(line, 0, keep_alive)

    def back(self, last_event_id: str, *, owner: str | None, keep_alive: float) -> Following | None:
        """Follow a call from behind the frame with that id; `None` if there is no such call of the owner's, or no more
        of it.

        :param last_event_id: what the browser saw last.
        :param owner: who asks; must be who began it.
        :param keep_alive: seconds between comments.
        :returns: the frames behind that id, or `None`.
        """
        self._forget()
        name, _, number = last_event_id.rpartition(":")
        line = self._lines.get(name)
        if line is None or line.owner != owner or not (number.isascii() and number.isdigit() and len(number) < 12):
            return None
        if int(number) > len(line.frames):
            return None  # nobody was ever told so much
        if line.over and int(number) == len(line.frames):
            return None  # there is nothing more to say, and an empty answer would have the browser ask for ever
        return Following(line, int(number), keep_alive)

    def _forget(self) -> None:
        """Let go of calls whose time is over, and of the oldest, if there are too many."""
        old = anyio.current_time() - self._keep
        over = [name for name, line in self._lines.items() if line.over]
        many = len(self._lines) - self._most + 1
        for place, name in enumerate(over):
            if place < many or self._lines[name].ended_at < old:
                del self._lines[name]
