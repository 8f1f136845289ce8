"""A guarded call as the stream of a synchronous client: the same `Reading`, each step made by a loop in a thread.

In charge of waiting for that loop, of interrupting it, and of leaving no thread behind. A thread that reads never waits
in `recv()`, so a clock can end its wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Self, TypeVar

import anthropic
import httpx2

from streamguard.adapters.anthropic.middleware.stream import EXTENSION, Objects, Reading, log_of
from streamguard.adapters.sse.frame_names import named
from streamguard.engine.shared_loop import Lease
from streamguard.events import Event

T = TypeVar("T")


class BlockingReading:
    """One guarded call, read by the thread of the SDK's caller. Closed by any thread, or by nobody.

    :param begin: makes the reading, in the loop. What it raises is raised here.
    """

    def __init__(self, lease: Lease, begin: Callable[[], Awaitable[Reading]]) -> None:
        self._lease = lease
        self._closed = False
        try:
            self.reading: Reading = lease.run(begin)
        except BaseException:
            self._closed = True
            lease.release()
            raise

    def batch(self) -> list[Event] | None:
        """Wait for the next events; `None` at the end.

        :raises CallError: the call ended otherwise.
        :raises RuntimeError: it was closed.
        """
        if self._closed:
            raise RuntimeError("this stream cannot be read: it was closed")
        try:
            return self._lease.run(self.reading.batch)
        except CancelledError:
            raise RuntimeError("this stream cannot be read: another thread has closed it") from None

    def close(self) -> None:
        """Leave the call, finished or not; once, from any thread."""
        if self._closed:
            return
        self._closed = True
        self._lease.cancel()
        try:
            self._lease.run(self.reading.close)
        finally:
            self._lease.release()

    def __del__(self) -> None:
        # Nobody closed it. A finalizer may not wait: the loop closes it, and goes.
        if not self._closed:
            self._closed = True
            self._lease.release(self.reading.close)


class BlockingBody(httpx2.SyncByteStream):
    """The bytes of a guarded call, for callers who read the response themselves."""

    def __init__(self, blocking: BlockingReading) -> None:
        self._blocking = blocking

    def __iter__(self) -> Iterator[bytes]:
        log = log_of(self._blocking.reading)
        while (events := self._blocking.batch()) is not None:
            if frames := log.release(events):
                yield b"".join(map(named, frames))
        if frames := log.rest():
            yield b"".join(map(named, frames))

    def close(self) -> None:
        """Leave the call."""
        self._blocking.close()


class BlockingEvents(anthropic.Stream[T]):
    """The events of a guarded call, in the SDK's own classes; everything else is as the SDK's stream has it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._blocking: BlockingReading = given["response"].extensions[EXTENSION]
        self._objects = Objects(self._blocking.reading, given)

    def __next__(self) -> T:
        objects = self._objects
        if objects.empty:
            self._fill()
        item: T = objects.next()
        return item

    def __iter__(self) -> Self:
        return self

    def _fill(self) -> None:
        """Make more events ready.

        :raises StopIteration: there are none.
        """
        objects = self._objects
        objects.begin()
        try:
            while (batch := self._blocking.batch()) is not None:
                if objects.add(batch):
                    return
        except Exception as error:
            objects.end("failed", error)
            self._blocking.close()
            raise
        objects.end("read")
        self._blocking.close()
        raise StopIteration

    def close(self) -> None:
        """Close the connection, if it is still open."""
        self._objects.end("closed")
        self._blocking.close()
