"""HTTP/1.1 requests on the wire: read strictly, once, by nobody else. No I/O, no clock.

In charge of message framing (RFC 9112): where a request begins and ends must be beyond doubt, or two readers of the
same bytes disagree and one request hides in another's body (request smuggling). Everything that is only tolerated,
obsolete or ambiguous is refused. It does not know what a request means.

    idle ──▶ head ──▶ length(n) ──▶ idle
                 └──▶ chunk size ──▶ chunk(n) ──▶ chunk end ──▶ … ──▶ last line ──▶ idle
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What gets as far as the routes; `CONNECT` and `TRACE` make relays and echoes of servers that take them."""

BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})

PIECE: Final = 65_536
"""The most of a body that one `next` returns."""

FREE_CHUNKS: Final = 1024
"""Chunks of a body whose size does not matter; those after them must have `CHUNK_BYTES` on average."""

CHUNK_BYTES: Final = 64
"""A chunk costs the same work whatever its size: bodies in chunks of one byte cost fifty times their bytes."""

_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/(\d\.\d)")
_TARGET: Final = re.compile(rb"/[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7c\x7e%]*")
"""A path and query: no fragment, no backslash, no quotes and brackets that URLs do not have."""
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT: Final = bytes({0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)})
"""What values are made of, and line ends."""
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_DIGITS: Final = re.compile(rb"\d{1,15}")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")

State = Literal["idle", "head", "length", "size", "chunk", "chunk_end", "last", "dead"]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A request's head."""

    method: str
    target: bytes
    """Path and query, as they came."""
    version: str
    """`1.1` or `1.0`."""
    headers: list[tuple[bytes, bytes]]
    """As they came; names in lower case."""
    expects_continue: bool = False
    """Whether the client waits for `100 Continue` before it sends the body."""
    close: bool = False
    """Whether the connection is to end after the response."""


class End:
    """A request's end."""


END: Final = End()


class Framing:
    """One connection's requests. `receive` what was read, then take `next` until it has nothing.

    :param limits: sizes and counts.
    """

    def __init__(self, limits: Limits) -> None:
        self.state: State = "idle"
        """`idle`: between requests. `head`: in one's head. `dead`: after a refusal. All else: in a body."""
        self.broken_in: State = "idle"
        """The state in which the refusal came."""
        self._limits = limits
        self._buffer = bytearray()
        # How far the head in the buffer has been looked through: a head that comes byte by byte costs no more.
        self._seen = 0
        self._left = 0
        self._body = self._chunks = 0
        self._in_request = False

    @property
    def waiting(self) -> int:
        """Bytes received and not taken."""
        return len(self._buffer)

    @property
    def chunked(self) -> bool:
        """Whether a body in chunks is next."""
        return self.state in ("size", "chunk", "chunk_end", "last")

    def receive(self, data: bytes) -> None:
        """Add what was read. Nothing is looked at before `next`."""
        self._buffer += data

    def next(self) -> Head | bytes | End | None:
        """The next part: a request's head, a piece of its body, or its end. `None` if more is needed.

        :raises Refused: what was received is no well-formed request. Nothing may be read from this connection any more.
        """
        try:
            return self._next()
        except Refused:
            self.broken_in, self.state = self.state, "dead"
            self._buffer.clear()
            raise

    def _next(self) -> Head | bytes | End | None:
        if self.state == "dead":
            return None
        if self.state in ("idle", "head"):
            if self._in_request:
                self._in_request = False
                return END
            if not self._buffer:
                return None
            self.state = "head"
            head = self._head()
            self._in_request = head is not None
            return head
        data = b"".join(self._body_parts())
        if data:
            return data
        if self.state == "idle":
            self._in_request = False
            return END
        return None

    def _body_parts(self) -> Iterator[bytes | bytearray]:
        """The body's bytes in the buffer, up to its end or to `PIECE`."""
        buffer, size = self._buffer, 0
        while buffer and size < PIECE and self.state != "idle":
            if self.state in ("length", "chunk"):
                count = min(self._left, len(buffer), PIECE - size)
                yield buffer[:count]
                del buffer[:count]
                size += count
                self._left -= count
                if not self._left:
                    self.state = "idle" if self.state == "length" else "chunk_end"
            elif not (self._size() if self.state == "size" else self._line_end()):
                return

    def _head(self) -> Head | None:
        buffer, most = self._buffer, self._limits.head_bytes
        begin = max(0, self._seen - 3)
        end = buffer.find(b"\r\n\r\n", begin, most + 4)
        self._seen = min(len(buffer), most) if end < 0 else end + 4
        if _bare_line_end(buffer[begin : self._seen], first=begin == 0):
            raise Refused("bad_line_end")
        if end < 0:
            if len(buffer) > most:
                raise Refused("target_too_long" if b"\r\n" not in buffer else "head_too_large", f"over {most} bytes")
            return None
        self._seen = 0
        # All at once: of a head of 64 KiB, a pattern for each value takes half a millisecond.
        if buffer[:end].translate(None, _TEXT):
            raise Refused("bad_header" if b"\r\n" in buffer[:end] else "bad_request_line")
        line, *lines = bytes(buffer[:end]).split(b"\r\n")
        method, target, version = self._request_line(line)
        head = self._headers(lines, method, target, version)
        del buffer[: end + 4]
        return head

    def _request_line(self, line: bytes) -> tuple[str, bytes, str]:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refused("bad_request_line")
        method, target, version = found[1].decode("ascii"), found[2], found[3].decode("ascii")
        if version not in ("1.1", "1.0"):
            raise Refused("bad_version")
        if method not in METHODS:
            raise Refused("bad_method", headers={"allow": ", ".join(sorted(METHODS))})
        if len(target) > self._limits.target_bytes:
            raise Refused("target_too_long", f"more than {self._limits.target_bytes} bytes")
        if target.startswith(b"//"):
            raise Refused("bad_target", "it begins with two slashes; leave the slash at the end of the base URL out")
        if not _TARGET.fullmatch(target):
            raise Refused("bad_target")
        return method, target, version

    def _headers(self, lines: list[bytes], method: str, target: bytes, version: str) -> Head:
        if len(lines) > self._limits.headers:
            raise Refused("too_many_headers", f"more than {self._limits.headers}")
        framing: dict[bytes, list[bytes]] = {
            b"host": [],
            b"content-length": [],
            b"transfer-encoding": [],
            b"expect": [],
            b"connection": [],
        }
        headers: list[tuple[bytes, bytes]] = []
        for line in lines:
            if line[:1] in (b" ", b"\t"):
                raise Refused("folded_header")
            name, colon, value = line.partition(b":")
            if not colon or not _NAME.fullmatch(name):
                raise Refused("bad_header")
            name, value = name.lower(), value.strip(b" \t")
            headers.append((name, value))
            values = framing.get(name)
            if values is not None:
                values.append(value)
        hosts = framing[b"host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise Refused("bad_host")
        expected = framing[b"expect"]
        if expected and [value.lower() for value in expected] != [b"100-continue"]:
            raise Refused("bad_expectation")
        self._framed(framing[b"content-length"], framing[b"transfer-encoding"], method, version)
        options = {part.strip().lower() for value in framing[b"connection"] for part in value.split(b",")}
        return Head(
            method=method,
            target=target,
            version=version,
            headers=headers,
            expects_continue=bool(expected) and version == "1.1",
            close=b"close" in options or version == "1.0",
        )

    def _framed(self, lengths: list[bytes], encodings: list[bytes], method: str, version: str) -> None:
        """Set the state by how long the body is."""
        if lengths and encodings:
            raise Refused("two_lengths")
        if method in BODYLESS and (encodings or lengths not in ([], [b"0"])):
            raise Refused("bodyless_method")
        self._body = self._chunks = 0
        if encodings:
            if [encoding.lower() for encoding in encodings] != [b"chunked"] or version != "1.1":
                raise Refused("bad_transfer_encoding")
            self.state = "size"
        elif lengths:
            if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
                raise Refused("bad_content_length")
            self._left = int(lengths[0])
            self._count_body(self._left)
            self.state = "length" if self._left else "idle"
        else:
            self.state = "idle"

    def _count_body(self, count: int) -> None:
        self._body += count
        if self._body > self._limits.body_bytes:
            raise Refused("body_too_large", f"at most {self._limits.body_bytes} bytes")

    def _size(self) -> bool:
        """The line before a chunk. False if more is needed."""
        end = self._buffer.find(b"\r\n", 0, 16)
        if end < 0:
            if len(self._buffer) >= 16 or not re.fullmatch(rb"[0-9A-Fa-f]*\r?", self._buffer):
                raise Refused("bad_chunk")
            return False
        size = bytes(self._buffer[:end])
        if not _SIZE.fullmatch(size):
            raise Refused("bad_chunk")
        self._left = int(size, 16)
        self._count_body(self._left)
        self._chunks += 1
        if self._left and self._chunks - FREE_CHUNKS > self._body // CHUNK_BYTES:
            raise Refused("tiny_chunks", f"{self._chunks} of them in {self._body} bytes")
        del self._buffer[: end + 2]
        self.state = "chunk" if self._left else "last"
        return True

    def _line_end(self) -> bool:
        """The CR LF after a chunk's bytes; after the last chunk, the empty line in place of trailers."""
        if not b"\r\n".startswith(self._buffer[:2]):
            raise Refused("bad_chunk" if self.state == "chunk_end" else "bad_trailer")
        if len(self._buffer) < 2:
            return False
        del self._buffer[:2]
        self.state = "size" if self.state == "chunk_end" else "idle"
        return True


def _bare_line_end(part: bytearray, *, first: bool) -> bool:
    """Whether a CR or LF stands alone in a part of a head; pairs that the part's edges cut are no such.

    :param first: whether nothing was before it.
    """
    pairs = part.count(b"\r\n")
    feeds = part.count(b"\n") - (not first and part.startswith(b"\n"))
    returns = part.count(b"\r") - part.endswith(b"\r")
    return not feeds == returns == pairs
