"""What the requests under way take of memory, and what one of them may cost before it is read.

In charge of two bounds. One body's JSON is counted before it is parsed: a list of a million empty lists is three
megabytes on the wire and a hundred in memory. And all bodies together are held to what the proxy may take, one client's
to three quarters of it, so that nobody uses up what is there for all.
"""

from __future__ import annotations

import re
from collections import Counter
from types import TracebackType
from typing import Final, Self

from streamguard.http.refusals import Refused

COPIES: Final = 2
"""Of a body in memory: as it came, and parsed. One at a time is a text as well."""

VALUE_BYTES: Final = 96
"""Of one parsed value: a list's or an object's frame with its place."""

SLICE: Final = 65_536
MAX_DEPTH: Final = 128
"""Levels of nesting; tools' inputs have a dozen."""


class Memory:
    """What all requests of a proxy take.

    :param most: bytes for all of them together.
    :param shared: whether there are several clients, of whom one may take three quarters.
    """

    def __init__(self, most: int, *, shared: bool) -> None:
        self._most = most
        self._most_each = most * 3 // 4 if shared else most
        self.held = 0
        """Bytes that requests take."""
        self._by_client: Counter[str] = Counter()

    def hold(self, client: str) -> Hold:
        """Nothing yet, for one request of a client; given back when the block ends."""
        return Hold(self, client)

    def change(self, client: str, by: int) -> None:
        """Take, or give back.

        :raises Refused: there is no room.
        """
        if by > 0 and (self.held + by > self._most or self._by_client[client] + by > self._most_each):
            raise Refused("no_memory", headers={"retry-after": "1"})
        self.held += by
        self._by_client[client] += by
        if not self._by_client[client]:
            del self._by_client[client]


class Hold:
    """What one request takes."""

    def __init__(self, memory: Memory, client: str) -> None:
        self._memory, self._client = memory, client
        self._bytes = 0

    def body(self, size: int) -> None:
        """Take what a body of `size` bytes needs; the last call counts.

        :raises Refused: there is no room.
        """
        self._resize(size * COPIES)

    def values(self, size: int, values: int) -> None:
        """Take what a body of so many bytes and JSON values needs.

        :raises Refused: there is no room.
        """
        self._resize(size * COPIES + values * VALUE_BYTES)

    def _resize(self, to: int) -> None:
        self._memory.change(self._client, to - self._bytes)
        self._bytes = to

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resize(0)


def counted(raw: bytes, most: int) -> int:
    """How many values a JSON text has at the most, names included; it need not be JSON.

    Linear, and quick where there is little to count: a string is stepped over, whatever it says.

    :raises Refused: more than `most`, or nested deeper than `MAX_DEPTH`.
    """
    at, count, depth = 0, 1, 0
    while at < len(raw):
        quote = raw.find(b'"', at, at + SLICE)
        end = min(at + SLICE, len(raw)) if quote < 0 else quote
        opened = raw.count(b"[", at, end) + raw.count(b"{", at, end)
        count += opened + raw.count(b",", at, end) + raw.count(b":", at, end)
        if count > most:
            raise Refused("too_many_values", f"more than {most}")
        if opened and depth + opened > MAX_DEPTH:
            depth = _depth(raw, at, end, depth)
        else:
            depth += opened - raw.count(b"]", at, end) - raw.count(b"}", at, end)
        at = end if quote < 0 else _behind(raw, quote + 1)
    return count


def _depth(raw: bytes, begin: int, end: int, depth: int) -> int:
    for byte in raw[begin:end]:
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Refused("bad_json", f"it is nested deeper than {MAX_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1
    return depth


_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def _behind(raw: bytes, at: int) -> int:
    """Where a string ends whose first character is at `at`. In slices, so that other threads have their turn."""
    while at < len(raw):
        found = _STRING.match(raw, at, at + SLICE)
        assert found is not None
        stopped = found.end()
        if stopped < len(raw) and raw[stopped] == 0x22:
            return stopped + 1
        if stopped == at:  # a backslash at the text's end
            return len(raw)
        at = stopped
    return at


class Pace:
    """When requests of one client may begin: evenly, after a second's worth at once.

    :param per_second: requests.
    """

    def __init__(self, per_second: float) -> None:
        self._step = 1.0 / per_second
        self._next = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next request's turn, which it takes."""
        # Turns that nobody took are kept for a second.
        self._next = max(self._next, now - 1.0) + self._step
        return max(0.0, self._next - now)
