"""A stream that a caller opened on a synchronous client, as an asynchronous one.

In charge of reading it in a thread, one event at a time, and of ending a read that nobody waits for any more. A blocked
`recv()` is not ended by closing its socket from another thread; `shutdown()` ends it within a millisecond.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Self

import anyio

from streamguard.errors import ConfigError
from streamguard.source import CLOSE_LIMIT

_END: Final = object()


class BlockingStream:
    """What the SDK's asynchronous streams are to `sdk_events`.

    :param stream: what `client.messages.create(…, stream=True)` or `with client.messages.stream(…)` gave.
    :raises ConfigError: it is no open, synchronous stream.
    """

    def __init__(self, stream: Any) -> None:
        if not hasattr(stream, "__next__"):
            if hasattr(stream, "__anext__"):
                raise ConfigError("this is an asynchronous stream: use `streamguard.guarded` in its event loop")
            if hasattr(stream, "__enter__"):
                raise ConfigError("enter the manager first: `with client.messages.stream(…) as stream`")
            raise ConfigError(f"{type(stream).__name__} is no stream of the SDK")
        self._stream = stream
        self._items: Iterator[Any] = iter(stream)
        self._reading = threading.Lock()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True)
        if item is _END:
            raise StopAsyncIteration
        return item

    def _next(self) -> Any:
        with self._reading:
            item = next(self._items, _END)
            self._ended = self._ended or item is _END
            return item

    async def close(self) -> None:
        """Close the stream, and end a read that still blocks."""
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        if not self._ended and self._reading.locked():
            _shut_down(getattr(self._stream, "response", None))
        if self._reading.acquire(timeout=CLOSE_LIMIT):
            self._reading.release()
        self._stream.close()


def _shut_down(response: Any) -> None:
    """Make a blocked read of the response's socket return."""
    if response is None or response.is_closed:
        return
    stream = response.extensions.get("network_stream")
    raw = None if stream is None else stream.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
