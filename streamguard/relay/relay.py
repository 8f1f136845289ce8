"""One guarded stream as bytes for a browser, with keep-alives, and an end whatever happens.

In charge of reading the call beside whoever writes, so that a comment can go out while nothing comes in, and of ending
the call when the reader leaves. It knows no framework.

A call is read by one task of its own: a read must not be cancelled for the sake of a keep-alive, because a cancelled
read ends its attempt. Nothing is read ahead of the consumer by more than one batch, so a slow browser slows the
provider down, and its time is not counted by the provider's clocks.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import secrets
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.abc

from streamguard.api import GuardedStream
from streamguard.errors import CallError
from streamguard.outcome import Outcome
from streamguard.relay.frames import KEEP_ALIVE, Frames, Include, Style

_log = logging.getLogger("streamguard")

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
}
"""The headers of such a response. `no-transform` and `x-accel-buffering` keep proxies from holding events back."""

SAVE_LIMIT: Final = 30.0
"""Seconds that `on_outcome` has to come to its end though the reader left: the answer is there, and paid for."""


class Relay:
    """The frames of a guarded stream. Enter it with `async with` and iterate: `bytes`, each a number of whole frames.

    The last frames say how the call ended, so the iteration itself raises only what is not the call's: an exception of
    `on_outcome`, or a configuration that cannot be used; the browser is told of an `internal` error before. Leaving
    early ends the call and closes its connection (`CallLeft`, in telemetry).

    :param events: what `stream()` or `guarded()` gave, not entered yet.
    :param include: what to tell beside the text; see `frames`.
    :param keep_alive: seconds of silence after which a comment goes out. Proxies close silent connections after a
        minute (nginx's `proxy_read_timeout`), some load balancers earlier.
    :param on_outcome: called, and awaited, with the outcome before `done` goes out: to commit a conversation's turn, or
        to save the answer. If it raises, the browser gets an error and not `done`. It is called for every answer that
        stands, also if the reader has left meanwhile.
    :raises ValueError: a style or an inclusion that there is not.
    """

    def __init__(
        self,
        events: GuardedStream,
        *,
        style: Style = "named",
        include: Collection[Include] = (),
        keep_alive: float = 15.0,
        on_outcome: Callable[[Outcome], Any] | None = None,
    ) -> None:
        if not keep_alive > 0:
            raise ValueError(f"keep_alive is a number of seconds above 0, not {keep_alive}")
        self.id = secrets.token_urlsafe(12)
        """Names this stream in the ids of its frames; nobody can guess it."""
        self._events = events
        self._frames = Frames(style=style, include=include, id=self.id)
        self._keep_alive = keep_alive
        self._on_outcome = on_outcome
        self._saved = False
        self._raised: Exception | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._pump)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        tasks.cancel_scope.cancel()
        try:
            # Not the block's own error: it would come out inside of an exception group.
            await tasks.__aexit__(None, None, None)
        finally:
            self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with anyio.move_on_after(self._keep_alive):
            with contextlib.suppress(anyio.EndOfStream):
                return await self._receive.receive()
            raised, self._raised = self._raised, None
            raise StopAsyncIteration if raised is None else raised
        return KEEP_ALIVE

    def failed(self, error: Exception) -> bytes:
        """Return the frame that tells of an error that is not the call's.

        :param error: the exception.
        """
        return self._frames.error(error)

    async def _pump(self) -> None:
        events = self._events
        with self._send:
            try:
                async with events:
                    await self._send.send(await self._told())
            finally:
                if events.outcome is not None and not self._saved:
                    # The reader left while the answer was on its way to it.
                    try:
                        await self._save(events.outcome)
                    except Exception:
                        _log.exception("an answer that nobody waited for could not be saved")

    async def _told(self) -> bytes:
        """Tell everything but the last frames, and give those."""
        events = self._events
        try:
            # Something at once: whoever is on the way passes the head of the response on.
            await self._send.send(KEEP_ALIVE)
            while (batch := await events.batch()) is not None:
                if frames := self._frames.feed(batch):
                    await self._send.send(frames)
            outcome = events.outcome
            assert outcome is not None
            await self._save(outcome)
            return self._frames.done(outcome)
        except CallError as error:
            return self._frames.error(error)
        except Exception as error:
            # Raised by the iteration, where it belongs to whoever set this up.
            self._raised = error
            return self._frames.error(error)

    async def _save(self, outcome: Outcome) -> None:
        self._saved = True
        if self._on_outcome is None:
            return
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SAVE_LIMIT) as scope:
            answer = self._on_outcome(outcome)
            if inspect.isawaitable(answer):
                await answer
        if scope.cancelled_caught:
            raise TimeoutError(f"on_outcome took longer than {SAVE_LIMIT:g} s and was cut short")
