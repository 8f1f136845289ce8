"""A guarded stream as the response of a Starlette or FastAPI application.

In charge of ASGI: the head, the frames, and a client that goes away or takes nothing. Starlette itself is imported by
`response()` alone.

Why not Starlette's `StreamingResponse`: on servers of ASGI 2.4 it learns that a client has gone when it next writes,
and a call that holds its answer back (`deliver: committed`) writes nothing for a minute, which would be paid for. Here
the connection is listened to all the time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio

from streamguard.api import GuardedStream
from streamguard.files.extras import needs
from streamguard.outcome import Outcome
from streamguard.relay.frames import Include, Style
from streamguard.relay.rejoin import Rejoin
from streamguard.relay.relay import HEADERS, Relay

if TYPE_CHECKING:
    from starlette.responses import Response

_log = logging.getLogger("streamguard")

Frames = AbstractAsyncContextManager[AsyncIterator[bytes]]
"""What `serve` takes: a `Relay`, or its like."""

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
    rejoin: Rejoin | None = None,
    owner: str | None = None,
) -> Response:
    """A response that relays a call: `return relay.response(stream(source, policy=policy, deliver="restarting"))`.

    The call starts when the response does. A client that goes away ends it, as does one that takes no byte for
    `send_timeout` seconds.

    `EventSource` comes back after every interruption. Such a request, with a `Last-Event-ID`, never asks the provider
    again: with `rejoin` it goes on where it was; without, or if that call is known no more, it is answered with 204,
    which makes the browser stop.

    The other parameters are those of `Relay`.

    :param rejoin: where calls live that can be come back to. A client that goes away ends its call there only if it is
        not back in time.
    :param owner: whose call it is, such as the id of the user who is logged in: nobody else can come back to it.
    :raises ValueError: a parameter that cannot be used.
    """
    with needs("a relay's response", "proxy"):
        from starlette.responses import Response

    if rejoin is not None and style != "named":
        raise ValueError("rejoin needs the style named: the other has no ids to come back with")
    relay = Relay(events, style=style, include=include, keep_alive=keep_alive, on_outcome=on_outcome)

    def chosen(method: str, last_event_id: bytes | None) -> Frames | None:
        """What this request is answered with, if with frames."""
        if last_event_id is not None:
            name = last_event_id.decode("latin-1")
            return None if rejoin is None else rejoin.back(name, owner=owner, keep_alive=keep_alive)
        if method == "HEAD":
            return None
        return relay if rejoin is None else rejoin.begin(relay, owner=owner, keep_alive=keep_alive)

    class RelayResponse(Response):
        """Starlette's form of a relay."""

        async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
            last = next((value for name, value in scope["headers"] if name == b"last-event-id"), None)
            frames = chosen(scope["method"], last)
            if frames is not None:
                await serve(frames, receive, send, self.raw_headers, status=self.status_code, send_timeout=send_timeout)
            else:
                plain = self.raw_headers if last is None else [(b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200 if last is None else 204, "headers": plain})
                await send({"type": "http.response.body", "body": b""})
            if self.background is not None:
                await self.background()

    made = RelayResponse(headers=HEADERS)
    del made.headers["content-length"]
    return made


async def serve(
    frames: Frames,
    receive: Receive,
    send: Send,
    headers: Sequence[tuple[bytes, bytes]] | None = None,
    *,
    status: int = 200,
    send_timeout: float = 30.0,
) -> None:
    """Answer an ASGI request with the frames of a `Relay`, or of its like, until they end or the client has gone.

    :param headers: of the response; those of `HEADERS` unless given.
    """
    if headers is None:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    start = {"type": "http.response.start", "status": status, "headers": list(headers)}
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
            except OSError as error:
                # Servers of ASGI 2.4 raise one where the client has gone. A TimeoutError is one too.
                raise _Gone from error

        tasks.start_soon(listen)
        try:
            await write(start)
            async with frames as pieces:
                try:
                    async for piece in pieces:
                        await write({"type": "http.response.body", "body": piece, "more_body": True})
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
