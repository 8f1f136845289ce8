"""The same source for a synchronous client, whose rest of the chain blocks.

In charge of: one thread per attempt that asks the rest of the chain and reads the answer, while the call's clocks run
in an event loop beside it; and of ending that thread when the attempt is given up. There is no second engine: what the
thread reads is the body of an asynchronous stream like any other.

A blocked `recv()` is not ended by closing its socket from another thread (the reader stays, and so does the provider);
`shutdown()` ends both within a millisecond. Before the response head there is no socket that could be had, so until
then the SDK's own timeouts are set to the `connect` clock, and taken off before the body is read.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anthropic
import anyio
import httpx2

from streamguard.adapters.anthropic.middleware.source import (
    NO_ANSWER,
    ChainSource,
    GuardedSync,
    MessageStream,
)
from streamguard.adapters.sse.content_encoding import UnreadableEncoding, codings
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.source import CLOSE_LIMIT, Attempt

SLACK: Final = 0.25
"""Seconds that the SDK's timeouts are longer than the clocks, which are to trip first and say so."""

_END: Final = object()


class BlockingSource(ChainSource):
    """One call of a synchronous client, asked anew for each attempt.

    :param connect: seconds of the `connect` clock; `None` leaves the request's own timeouts as they are.
    :param head: seconds that the response's head may take; `None` for no limit.
    """

    marker = GuardedSync

    def __init__(
        self,
        request: anthropic.APIRequest,
        call_next: Callable[[anthropic.APIRequest], Any],
        *,
        max_event_bytes: int,
        connect: float | None,
        head: float | None = None,
        log: FrameLog | None = None,
    ) -> None:
        super().__init__(request, call_next, max_event_bytes=max_event_bytes, log=log)
        self._connect = connect
        self._head = head
        # What the caller's thread has set, tracing for one, is seen by the threads that ask.
        self._context = contextvars.copy_context()

    def upstream(self, attempt: Attempt) -> anthropic.APIRequest:
        """The request of an attempt: the caller's own, patched and streaming."""
        request = super().upstream(attempt)
        if self._connect is not None:
            # The head belongs to the `first_token` clock, which is to trip first and say so.
            head = None if self._head is None else self._head + SLACK
            connect = self._connect
            request.options.timeout = httpx2.Timeout(connect=connect, pool=connect, read=head, write=head)
        return request

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[MessageStream]:
        """Ask the rest of the chain, once, and wait for the response head.

        :raises SourceFailed: no connection, an HTTP status from 300, or an answer that is no event stream.
        """
        self.response, self.stream, self.sdk_error = None, None, None
        request = self.upstream(attempt)
        exchange = _Exchange(self._call_next, request, timed=self._connect is not None)
        try:
            response = self._looked_at(await self._answer(exchange))
            if response.http_response.status_code >= NO_ANSWER:
                self.refuse(response)
            stream = self._stream_of(exchange)
            await self.look_at(stream)
            self.response, self.stream = response, stream
            yield stream
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
                await exchange.close()

    async def _answer(self, exchange: _Exchange) -> Any:
        exchange.start(self._context.copy())
        try:
            return await exchange.head()
        except Exception as error:
            raise self._failed(error) from None


class _Exchange:
    """One request and its answer: made by a thread, read by a task of the event loop that runs. It stands for the
    response and for its body, as `BodyStream` knows them."""

    def __init__(self, call_next: Callable[[Any], Any], request: Any, *, timed: bool) -> None:
        self._call_next = call_next
        self._request = request
        self._timed = timed
        self._loop = asyncio.get_running_loop()
        self._items: deque[Any] = deque()
        self._more = anyio.Event()
        self._response: Any = None
        self._left = threading.Event()
        """Set by the reader: whatever comes now is nobody's."""
        self._read = False
        """Whether the body was read to its end: then its connection is free for the next request, and not ours."""
        self._done = anyio.Event()
        self.is_stream_consumed = False
        """Whether somebody before us has read the body, and so decompressed it."""
        self._raw = False

    # -- the reader's side -------------------------------------------------------------------------------------------

    def start(self, context: contextvars.Context) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="streamguard-exchange", daemon=True
        )
        self._thread.start()

    async def head(self) -> Any:
        """The response, once its head has come."""
        return await self._next()

    @property
    def http_response(self) -> _Exchange:
        return self

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers."""
        headers: Mapping[str, str] = self._response.http_response.headers
        return headers

    @property
    def request(self) -> Any:
        """The HTTP request that was sent."""
        return self._response.http_response.request

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body; decompressed, unless that is done here."""
        while (item := await self._next()) is not _END:
            yield item

    aiter_raw = aiter_bytes

    async def close(self) -> None:
        """End the thread, wherever it is, and wait for it a little."""
        self._left.set()
        if not self._read:
            _shut_down(self._response)
        if self._response is not None:
            await self._done.wait()
            # Its last step was to say so: it ends within microseconds, and nobody finds a thread that is left.
            self._thread.join(CLOSE_LIMIT)

    async def _next(self) -> Any:
        while not self._items:
            await self._more.wait()
            self._more = anyio.Event()
        item = self._items.popleft()
        if isinstance(item, BaseException):
            raise item
        return item

    def _put(self, item: Any) -> None:
        self._items.append(item)
        self._more.set()

    # -- the thread's side -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            response = self._call_next(self._request)
            if not hasattr(response, "http_response"):
                self._tell(self._put, response)
                return
            try:
                self._pump(response)
            finally:
                response.close()
        except BaseException as error:  # whatever it is, the reader has to hear of it, or waits for ever
            self._tell(self._put, error)
        finally:
            self._tell(self._done.set)

    def _pump(self, response: Any) -> None:
        http = response.http_response
        if http.status_code >= NO_ANSWER:
            http.read()
            self._read = True
        elif self._timed:
            # The clocks count from here; a read that they end is ended by shutting the socket down.
            timeouts = http.request.extensions.get("timeout")
            if isinstance(timeouts, dict):
                timeouts["read"] = None
        self.is_stream_consumed = http.is_stream_consumed
        self._raw = not self.is_stream_consumed and _undone_here(http.headers.get("content-encoding", ""))
        self._response = response
        self._tell(self._put, response)
        if self._read or self._left.is_set():
            return
        for chunk in http.iter_raw() if self._raw else http.iter_bytes():
            if self._left.is_set():
                return
            self._tell(self._put, chunk)
        self._read = True
        self._tell(self._put, _END)

    def _tell(self, what: Callable[..., Any], *args: Any) -> None:
        # The loop is gone when its call was given up and this thread was the slower one.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *args)


def _undone_here(encoding: str) -> bool:
    """Whether a body of this `Content-Encoding` is decompressed by `BodyStream`."""
    try:
        return bool(codings(encoding))
    except UnreadableEncoding:
        return False


def _shut_down(response: Any) -> None:
    """Make a blocked read of the response's socket return, here and at the other end."""
    if response is None or response.http_response.is_closed:
        return
    stream = response.http_response.extensions.get("network_stream")
    raw = None if stream is None else stream.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
