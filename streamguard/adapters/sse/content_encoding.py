"""Content codings: compressed bytes in, the body's bytes out, in bounded steps.

In charge of the `Content-Encoding` header (RFC 9110, 8.4): gzip, deflate, and lists of them. Pure state, no I/O.
Codings that need another library (br, zstd) are refused by name. A name that is no compression (`identity`, `utf-8`)
changes no byte, as HTTP clients have it.

HTTP clients have decoders of their own, which do not tell a body that ended from one that was cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

STEP: Final = 1_048_576
"""The most bytes that one step makes of its input: a small body may hold a thousand times its size."""

MAX_CODINGS: Final = 4
"""Codings of one body. Each applies to the result of the one before."""

READABLE: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
"""Name → the coding that is undone here."""

UNREADABLE: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
"""The other registered compressions (IANA, HTTP Content Coding Registry)."""


class UnreadableEncoding(Exception):
    """A body is compressed in a way that is not read here."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the body's content-encoding is {name!r}, which is not read here: have the upstream send gzip, deflate or "
            "identity"
        )
        self.name = name


def codings(header: str) -> tuple[str, ...]:
    """Return the compressions of a `Content-Encoding` header, in the order in which they were applied.

    :param header: the header's value; several lines joined by commas.
    :raises UnreadableEncoding: one of them cannot be undone here, or there are more than `MAX_CODINGS`.
    """
    names = [name.strip().lower() for name in header.split(",")]
    for name in names:
        if name in UNREADABLE:
            raise UnreadableEncoding(name)
    found = tuple(READABLE[name] for name in names if name in READABLE)
    if len(found) > MAX_CODINGS:
        raise UnreadableEncoding(f"{len(found)} codings on top of each other")
    return found


def decompressor(header: str) -> Decompressor | None:
    """Return what undoes a `Content-Encoding`; `None` if the bytes are plain.

    :raises UnreadableEncoding: it cannot be undone here.
    """
    found = codings(header)
    return Decompressor(found) if found else None


class Decompressor:
    """Undoes the codings of one body. Feed it what was read; take `more()` as long as there is some.

    :param codings: as `codings()` gives them.
    """

    def __init__(self, codings: Sequence[str]) -> None:
        # The one that was applied last is undone first.
        self._stages = [_Stage(name) for name in reversed(codings)]
        self._name = ", ".join(codings)
        self._heard = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._heard = True
        self._stages[0].rest += data

    @property
    def has_more(self) -> bool:
        """Whether there may be more output without more input."""
        return any(stage.has_more for stage in self._stages)

    @property
    def cut(self) -> bool:
        """Whether the body may not end here."""
        return self._heard and not all(stage.finished for stage in self._stages)

    @property
    def name(self) -> str:
        """The codings, as the header has them."""
        return self._name

    def more(self) -> bytes | None:
        """Return some more of the body, at most `STEP` bytes; empty if more input is needed, `None` if it is broken."""
        stages = self._stages
        while True:
            at = next((at for at in reversed(range(len(stages))) if stages[at].has_more), None)
            if at is None:
                return b""
            try:
                data = stages[at].step()
            except zlib.error:
                for stage in stages:
                    stage.drop()
                return None
            if at == len(stages) - 1:
                if data or not stages[at].has_more:
                    return data
            else:
                stages[at + 1].rest += data


class _Stage:
    """One coding."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16) if name == "gzip" else None
        self.rest = b""
        """Input that was not looked at yet."""
        self._full = False

    @property
    def has_more(self) -> bool:
        # A full step may leave output behind though all input is in.
        return self._full or (len(self.rest) > 1 if self._zlib is None else bool(self.rest))

    @property
    def finished(self) -> bool:
        return self._zlib is not None and self._zlib.eof and not self.rest

    def drop(self) -> None:
        self.rest, self._full = b"", False

    def step(self) -> bytes:
        if self._zlib is None:
            # The name means zlib's format; some servers send bare deflate (RFC 9110, 8.4.1.2).
            first, second = self.rest[:2]
            wrapped = first & 15 == 8 and (first << 8 | second) % 31 == 0
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        elif self._zlib.eof:
            if self._name != "gzip":
                raise zlib.error("something follows the end")
            # A gzip body may have several members.
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)
        data = self._zlib.decompress(self.rest, STEP)
        self._full = len(data) == STEP
        self.rest = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        return data
