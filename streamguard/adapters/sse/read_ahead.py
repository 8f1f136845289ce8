"""An asynchronous iterator, read ahead of its reader once its items come faster than they are wanted.

HTTP clients hand out one HTTP chunk at a time, though hundreds may have come with one read of the socket. To take them
one by one costs a turn of everything above for each: several times what is done with it. Whether the next one is there
already cannot be seen without asking, and who asks has to wait if it is not. So after a row of items that came at once,
a task of its own asks, and the reader takes what has gathered meanwhile. Streams as models write them, an event now and
then, are never read ahead: there the task would cost more than it saves.

In charge of that task and of nothing else. Only on asyncio: elsewhere items come one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 100e-6
"""Seconds within which an item comes if nobody had to wait for it: ten thousand items a second are no model's pace."""

IN_A_ROW: Final = 16
"""Items at once before a task is worth its start."""

MAX_WAITING: Final = 131_072
"""What is held ahead of the reader at the most, in the unit of `weigh`: two reads of a socket."""


class ReadAhead(Generic[T]):
    """The items of `source`, in lists. Used by one task, which closes it.

    :param weigh: what an item counts towards `MAX_WAITING`.
    """

    def __init__(self, source: AsyncIterator[T], weigh: Callable[[T], int]) -> None:
        self.ahead: _Ahead[T] | None = None
        """What reads ahead, once it pays. Until then a reader may ask the source itself, and tell `came`."""
        self._source = source
        self._weigh = weigh
        self._row = 0

    async def next(self) -> list[T]:
        """At least one item. What the source raises is raised here, after the items before it."""
        if self.ahead is not None:
            return await self.ahead.take()
        began = perf_counter()
        item = await self._source.__anext__()
        self.came(perf_counter() - began)
        return [item]

    def came(self, seconds: float) -> None:
        """An item of the source came after so many seconds."""
        if seconds > AT_ONCE:
            self._row = 0
            return
        self._row += 1
        if self._row >= IN_A_ROW:
            self._row = 0
            self.ahead = _begun(self._source, self._weigh)

    async def aclose(self) -> bool:
        """End the task, if there is one; whether there was. The source's own closing is its owner's."""
        if self.ahead is None:
            return False
        await self.ahead.aclose()
        return True

    def __del__(self) -> None:
        # Whoever drops a stream without closing it has its connection closed all the same, but for our task.
        if self.ahead is not None:
            self.ahead.abandon()


def _begun(source: AsyncIterator[T], weigh: Callable[[T], int]) -> _Ahead[T] | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return _Ahead(source, weigh, loop)


class _Ahead(Generic[T]):
    """What has gathered. The task holds it and not the reader, who can so be dropped."""

    def __init__(self, source: AsyncIterator[T], weigh: Callable[[T], int], loop: asyncio.AbstractEventLoop) -> None:
        self._items: list[T] = []
        self._size = 0
        self._end: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        """Waits for an item."""
        self._room: asyncio.Future[None] | None = None
        """The task waits for the reader."""
        self._loop = loop
        self._task = loop.create_task(self._run(source, weigh))

    async def take(self) -> list[T]:
        if not self._items and self._end is None:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if not self._items:
            assert self._end is not None
            raise self._end
        items, self._items, self._size = self._items, [], 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return items

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def abandon(self) -> None:
        if not self._task.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _run(self, source: AsyncIterator[T], weigh: Callable[[T], int]) -> None:
        try:
            while True:
                item = await source.__anext__()
                self._items.append(item)
                self._size += weigh(item)
                self._tell()
                if self._size >= MAX_WAITING:
                    self._room = self._loop.create_future()
                    await self._room
                    self._room = None
        except Exception as error:  # the end, too
            self._end = error
        except BaseException:
            self._end = StopAsyncIteration()
            raise
        finally:
            self._tell()

    def _tell(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
