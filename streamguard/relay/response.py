"""A guarded stream as the response of a Starlette or FastAPI application.

In charge of ASGI: the head, the frames, and a client that goes away or takes nothing. Starlette itself is imported by
`response()` alone.

Why not Starlette's `StreamingResponse`: on servers of ASGI 2.4 it learns that a client has gone when it next writes,
and a call that holds its answer back (`deliver: committed`) writes nothing for a minute, which would be paid for. Here
the connection is listened to all the time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio

from streamguard.doors import GuardedStream
from streamguard.outcome import Outcome
from streamguard.relay.frames import Include, Style
from streamguard.relay.relay import HEADERS, Relay

if TYPE_CHECKING:
    from starlette.responses import Response

_log = logging.getLogger("streamguard")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def response(
    events: GuardedStream,
    *,
    style: Style = "named",
    include: Collection[Include] = (),
    keep_alive: float = 15.0,
    send_timeout: float = 30.0,
    on_outcome: Callable[[Outcome], Any] | None = None,
) -> Response:
    """A response that relays a call: `return relay.response(stream(source, policy=policy, deliver="restarting"))`.

    The call starts when the response does. A client that goes away ends it, as does one that takes no byte for
    `send_timeout` seconds. `EventSource` comes back after every interruption: such a request, with a `Last-Event-ID`,
    is answered with 204, which makes it stop, and nothing is asked again.

    The other parameters are those of `Relay`.

    :raises ValueError: a parameter that cannot be used.
    """
    from starlette.responses import Response

    relay = Relay(events, style=style, include=include, keep_alive=keep_alive, on_outcome=on_outcome)

    class RelayResponse(Response):
        """Starlette's form of a relay."""

        async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
            head = {name.decode("latin-1").lower(): value for name, value in self.raw_headers}
            again = any(name == b"last-event-id" for name, _ in scope["headers"])
            if again or scope["method"] == "HEAD":
                plain = [(b"cache-control", b"no-store")] if again else self.raw_headers
                await send({"type": "http.response.start", "status": 204 if again else 200, "headers": plain})
                await send({"type": "http.response.body", "body": b""})
            else:
                await serve(relay, receive, send, head, status=self.status_code, send_timeout=send_timeout)
            if self.background is not None:
                await self.background()

    made = RelayResponse(headers=HEADERS)
    del made.headers["content-length"]
    return made


async def serve(
    stream: AbstractAsyncContextManager[AsyncIterator[bytes]],
    receive: Receive,
    send: Send,
    headers: dict[str, bytes] | None = None,
    *,
    status: int = 200,
    send_timeout: float = 30.0,
) -> None:
    """Answer an ASGI request with the frames of a `Relay`, or of its like, until they end or the client has gone.

    :param headers: of the response; those of `HEADERS` unless given.
    """
    given = {name: value.encode() for name, value in HEADERS.items()} if headers is None else headers
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode("latin-1"), value) for name, value in given.items()],
    }
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass  # what is left of the request's body
            tasks.cancel_scope.cancel()

        async def write(message: Message) -> None:
            try:
                with anyio.fail_after(send_timeout):
                    await send(message)
            except (
                OSError
            ) as error:  # servers of ASGI 2.4 raise one where the client has gone; a TimeoutError is one too
                raise _Gone from error

        tasks.start_soon(listen)
        try:
            await write(start)
            async with stream as pieces:
                try:
                    async for frames in pieces:
                        await write({"type": "http.response.body", "body": frames, "more_body": True})
                except Exception as error:
                    raised = error  # raised below, when the response is whole; and a task group would wrap it
            await write({"type": "http.response.body", "body": b""})
        except _Gone as gone:
            _log.debug("the client of a relay has gone, or takes nothing: %r", gone.__cause__)
        tasks.cancel_scope.cancel()
    if raised is not None and not isinstance(raised, _Gone):
        raise raised


class _Gone(Exception):
    """The client has."""
