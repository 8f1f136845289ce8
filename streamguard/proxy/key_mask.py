"""The proxy's own key, taken out of whatever the upstream says: gateways echo it in errors, and some in headers.

In charge of the key's literal bytes in headers and bodies, wherever the pieces of a body are cut. As many asterisks
take its place, so that a body keeps its length. What an upstream encodes is not seen: the upstream has the key, and is
trusted not to give it away on purpose.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamguard.http.client import HeaderList


class KeyMask:
    """Takes one key out.

    :param key: `None`: clients bring their own, and nothing is taken out.
    """

    def __init__(self, key: str | None) -> None:
        self._key = (key or "").encode("utf-8")
        self._stars = b"*" * len(self._key)

    def headers(self, headers: HeaderList) -> HeaderList:
        """Headers without the key."""
        if not self._key:
            return headers
        return [(name, value.replace(self._key, self._stars)) for name, value in headers]

    async def pieces(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body without the key. Bytes that may be its beginning wait for the next piece; all others go at once."""
        key, held = self._key, b""
        if not key:
            async for piece in pieces:
                yield piece
            return
        async for piece in pieces:
            data = (held + piece if held else piece).replace(key, self._stars)
            at = self._begins(data)
            data, held = data[:at], data[at:]
            if data:
                yield data
        if held:
            yield held

    def _begins(self, data: bytes) -> int:
        """Where the key may begin at the end of `data`; its length if nowhere."""
        key = self._key
        at = data.find(key[:1], max(0, len(data) - len(key) + 1))
        while at >= 0:
            if key.startswith(data[at:]):
                return at
            at = data.find(key[:1], at + 1)
        return len(data)
