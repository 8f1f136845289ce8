"""The proxy's own key, taken out of whatever the upstream says: gateways echo it in errors, and some in headers.

In charge of the key's bytes in headers, bodies and messages, wherever the pieces of a body are cut, and spelled as
JSON, addresses, HTML and Python spell characters: `\\u002d`, `%2d`, `&#45;`, `\\x2d`. As many asterisks take its place,
so that a body keeps its length. Another code (base64, one character an event) is not seen: the upstream has the key,
and is trusted not to give it away on purpose.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

from streamguard.http.client import HeaderList

_ESCAPES: Final = (b"\\u00", b"\\x", b"%", b"&#")
"""What begins a character that is spelled otherwise."""

_CUT: Final = re.compile(
    rb"\\{1,4}(?:u0{0,2}[0-9a-fA-F]?|x[0-9a-fA-F]?)?|%[0-9a-fA-F]?|&(?:#(?:0{0,4}\d{0,3}|[xX]0{0,4}[0-9a-fA-F]{0,2}))?"
)
"""The beginning of such a spelling, at the end of a piece."""

_LONGEST: Final = 12
"""Bytes that one character's spelling has at the most."""


class KeyMask:
    """Takes one key out.

    :param key: `None`: clients bring their own, and nothing is taken out.
    """

    def __init__(self, key: str | None) -> None:
        self._key = (key or "").encode("utf-8")
        self._stars = b"*" * len(self._key)
        spellings = [_spellings(byte) for byte in self._key]
        self._units = [re.compile(one) for one in spellings]
        self._spelled = re.compile(b"".join(spellings))
        self._inside = frozenset(self._key + b"\\%&#;uxX0123456789abcdefABCDEF")

    def whole(self, data: bytes) -> bytes:
        """Bytes without the key: all there are."""
        if not self._key:
            return data
        data = data.replace(self._key, self._stars)
        if any(escape in data for escape in _ESCAPES):
            data = self._spelled.sub(lambda found: b"*" * len(found[0]), data)
        return data

    def text(self, text: str) -> str:
        """A text without the key."""
        return self.whole(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def headers(self, headers: HeaderList) -> HeaderList:
        """Headers without the key."""
        return [(name, self.whole(value)) for name, value in headers]

    async def pieces(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body without the key. Bytes that may be its beginning wait for the next piece; all others go at once."""
        held = b""
        if not self._key:
            async for piece in pieces:
                yield piece
            return
        async for piece in pieces:
            data = self.whole(held + piece if held else piece)
            at = self._begins(data)
            data, held = data[:at], data[at:]
            if data:
                yield data
        if held:
            yield held

    def _begins(self, data: bytes) -> int:
        """Where the key may begin at the end of `data`; its length if nowhere."""
        key, end = self._key, len(data)
        if not data or data[-1] not in self._inside:
            return end
        tail = max(0, end - len(key) + 1)
        if any(escape in data[end - _LONGEST * len(key) :] for escape in (b"\\", b"%", b"&")):
            tail = max(0, end - _LONGEST * len(key))
            begins = (at for at in range(tail, end) if data[at] in (key[0], 0x5C, 0x25, 0x26))
            return next((at for at in begins if self._may_go_on(data, at)), end)
        at = data.find(key[:1], tail)
        while at >= 0:
            if key.startswith(data[at:]):
                return at
            at = data.find(key[:1], at + 1)
        return end

    def _may_go_on(self, data: bytes, at: int) -> bool:
        """Whether all from `at` on is the beginning of the key, however spelled."""
        for unit in self._units:
            if at == len(data):
                return True
            found = unit.match(data, at)
            if found is None:
                return len(data) - at < _LONGEST and _CUT.fullmatch(data, at) is not None
            at = found.end()
        return False


def _spellings(byte: int) -> bytes:
    """A pattern for one character of the key: itself, or as JSON, an address, HTML or Python spells it."""
    any_case = b"".join(b"[%b%b]" % (c.lower().encode(), c.upper().encode()) for c in f"{byte:02x}")
    plain = re.escape(bytes([byte]))
    if not bytes([byte]).isalnum():
        plain = rb"\\{0,4}" + plain  # `\/` is a slash in JSON
    return b"(?:%b|\\\\{1,4}(?:u00|x)%b|%%%b|&#(?:0{0,4}%d|[xX]0{0,4}%b);)" % (
        plain, any_case, any_case, byte, any_case,
    )  # fmt: skip
