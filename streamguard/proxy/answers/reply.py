"""One response to a client: begun as late as possible, kept alive while there is nothing to say.

In charge of the ASGI side of a response. As long as nothing has been sent, how a call ends can still be a status; after
that only the body is left to say it. It knows no guards and no upstream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import anyio

from streamguard.proxy.body import Receive
from streamguard.proxy.key_mask import KeyMask

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

EVENTS: Final[HeaderList] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""What tells everybody on the way not to store, compress or hold back."""


class Reply:
    """A response.

    :param mask: takes the proxy's key out of all that is sent: what an upstream says is read, and said again in errors.
    """

    def __init__(self, send: Send, mask: KeyMask) -> None:
        self._send = send
        self._mask = mask
        self.head: Callable[[], Iterable[tuple[bytes, bytes]]] = tuple
        """The headers of a response that begins with its body; asked for when it does."""
        self.status: int | None = None
        """Once it has begun."""
        self.ended = False
        self.kept_alive = False
        """Whether the client was ever kept waiting for so long that something had to be said."""
        self._spoke = anyio.current_time()
        self._speaking = False

    async def start(self, status: int = 200, headers: Iterable[tuple[bytes, bytes]] | None = None) -> None:
        """Send the head, once."""
        if self.status is not None:
            return
        self.status = status
        headers = self._mask.headers(list(self.head() if headers is None else headers))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send some of the body, after a head of status 200 if none was sent. Waits while the client does not read."""
        self._speaking = True
        try:
            await self.start()
            await self._send({"type": "http.response.body", "body": self._mask.whole(data), "more_body": True})
        finally:
            self._speaking = False
            self._spoke = anyio.current_time()

    async def end(self, data: bytes = b"") -> None:
        """Send the last of the body."""
        if self.ended:
            return
        self.ended = True
        await self.start()
        await self._send({"type": "http.response.body", "body": self._mask.whole(data), "more_body": False})

    async def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send all of a response."""
        length = (b"content-length", b"%d" % len(body))
        await self.start(status, [*headers, length])
        await self.end(body)

    async def keep_alive(self, seconds: float, token: bytes) -> None:
        """Say `token` whenever nothing was said for so many seconds. Runs until cancelled."""
        while not self.ended:
            left = self._spoke + seconds - anyio.current_time()
            # A rest that is smaller than the clock's own steps would be waited for in vain.
            if left > 0.001:
                await anyio.sleep(left)
            elif self._speaking:
                # The client does not read: its connection has its own clock for that.
                await anyio.sleep(seconds)
            else:
                self.kept_alive = True
                await self.write(token)


async def gone(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
