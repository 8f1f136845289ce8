"""HTTP/1.1 requests on the wire, judged strictly before any parser that might be lenient sees them. No I/O, no clock.

In charge of message framing (RFC 9112): where a request begins and ends must be beyond doubt, or two readers of the
same bytes disagree and one request hides in another's body (request smuggling). Everything that is only tolerated,
obsolete or ambiguous is refused. It does not know what a request means; bytes that pass are handed on as they came, to
h11, which parses them again.

    idle ──▶ head ──▶ length(n) ──▶ idle
                 └──▶ chunk size ──▶ chunk(n) ──▶ chunk end ──▶ … ──▶ last line ──▶ idle
"""

from __future__ import annotations

import re
from typing import Final, Literal

from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What gets as far as the routes; `CONNECT` and `TRACE` make relays and echoes of servers that take them."""

BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})

_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/(\d\.\d)")
_TARGET: Final = re.compile(rb"/[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7c\x7e%]*")
"""A path and query: no fragment, no backslash, no quotes and brackets that URLs do not have."""
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_DIGITS: Final = re.compile(rb"\d{1,15}")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=.)", re.DOTALL)

State = Literal["idle", "head", "length", "size", "chunk", "chunk_end", "last", "dead"]


class Framing:
    """One connection's requests. `feed` what was read; what it returns may be parsed.

    :param limits: sizes and counts.
    """

    def __init__(self, limits: Limits) -> None:
        self.state: State = "idle"
        """`idle`: between requests. `head`: in one's head. `dead`: after a refusal. All else: in a body."""
        self.broken_in: State = "idle"
        """The state in which the refusal came."""
        self._limits = limits
        self.passed = bytearray()
        """What was well-formed of the last bytes fed."""
        self._buffer = bytearray()
        # How far the head in the buffer has been looked through: a head that comes byte by byte costs no more.
        self._seen = 0
        self._left = 0
        self._body = 0

    def feed(self, data: bytes) -> bytes:
        """The next bytes: those of them, and of what was kept, that are well-formed so far.

        :raises Refused: they cannot be. Nothing may be read from this connection any more; `passed` has what was
            well-formed before.
        """
        self._buffer += data
        self.passed = bytearray()
        try:
            while self._buffer and self._step():
                pass
        except Refused:
            self.broken_in, self.state = self.state, "dead"
            raise
        return bytes(self.passed)

    def _step(self) -> bool:
        """One part of a message. False if more is needed."""
        match self.state:
            case "idle" | "head":
                self.state = "head"
                return self._head()
            case "length" | "chunk":
                return self._count()
            case "size":
                return self._size()
            case "chunk_end":
                return self._line_end("size")
            case "last":
                return self._line_end("idle")
            case "dead":
                return False

    def _take(self, count: int) -> None:
        self.passed += self._buffer[:count]
        del self._buffer[:count]

    def _head(self) -> bool:
        buffer, most = self._buffer, self._limits.head_bytes
        begin = max(0, self._seen - 3)
        end = buffer.find(b"\r\n\r\n", begin, most + 4)
        self._seen = min(len(buffer), most) if end < 0 else end + 4
        if _BARE.search(buffer, begin, self._seen):
            raise Refused("bad_line_end")
        if end < 0:
            if len(buffer) > most:
                raise Refused("target_too_long" if b"\r\n" not in buffer else "head_too_large", f"over {most} bytes")
            return False
        self._seen = 0
        line, *headers = bytes(buffer[:end]).split(b"\r\n")
        method, version = self._request_line(line)
        self._headers(headers, method, version)
        self._take(end + 4)
        return True

    def _request_line(self, line: bytes) -> tuple[str, bytes]:
        found = _LINE.fullmatch(line)
        if found is None:
            raise Refused("bad_request_line")
        method, target, version = found[1].decode("ascii"), found[2], found[3]
        if version not in (b"1.1", b"1.0"):
            raise Refused("bad_version")
        if method not in METHODS:
            raise Refused("bad_method", headers={"allow": ", ".join(sorted(METHODS))})
        if len(target) > self._limits.target_bytes:
            raise Refused("target_too_long", f"more than {self._limits.target_bytes} bytes")
        if not _TARGET.fullmatch(target) or target.startswith(b"//"):
            raise Refused("bad_target")
        return method, version

    def _headers(self, lines: list[bytes], method: str, version: bytes) -> None:
        if len(lines) > self._limits.headers:
            raise Refused("too_many_headers", f"more than {self._limits.headers}")
        framing: dict[bytes, list[bytes]] = {
            b"host": [],
            b"content-length": [],
            b"transfer-encoding": [],
            b"expect": [],
        }
        for line in lines:
            if line[:1] in (b" ", b"\t"):
                raise Refused("folded_header")
            name, colon, value = line.partition(b":")
            if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise Refused("bad_header")
            values = framing.get(name.lower())
            if values is not None:
                values.append(value.strip(b" \t"))
        hosts = framing[b"host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise Refused("bad_host")
        expected = framing[b"expect"]
        if expected and [value.lower() for value in expected] != [b"100-continue"]:
            raise Refused("bad_expectation")
        self._framed(framing[b"content-length"], framing[b"transfer-encoding"], method, version)

    def _framed(self, lengths: list[bytes], encodings: list[bytes], method: str, version: bytes) -> None:
        """Set the state by how long the body is."""
        if lengths and encodings:
            raise Refused("two_lengths")
        if method in BODYLESS and (encodings or lengths not in ([], [b"0"])):
            raise Refused("bodyless_method")
        self._body = 0
        if encodings:
            if [encoding.lower() for encoding in encodings] != [b"chunked"] or version != b"1.1":
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

    def _count(self) -> bool:
        """Bytes of a body, up to its end or its chunk's."""
        count = min(self._left, len(self._buffer))
        self._take(count)
        self._left -= count
        if not self._left:
            self.state = "idle" if self.state == "length" else "chunk_end"
        return True

    def _size(self) -> bool:
        """The line before a chunk."""
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
        self._take(end + 2)
        self.state = "chunk" if self._left else "last"
        return True

    def _line_end(self, then: State) -> bool:
        """The CR LF after a chunk's bytes; after the last chunk, the empty line in place of trailers."""
        if not b"\r\n".startswith(self._buffer[:2]):
            raise Refused("bad_chunk" if then == "size" else "bad_trailer")
        if len(self._buffer) < 2:
            return False
        self._take(2)
        self.state = then
        return True
