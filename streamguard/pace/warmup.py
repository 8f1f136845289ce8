"""One row of a shared prefix first: when rows of a prefix go, and when they wait for its first answer. Pure.

A provider's cache has a prefix from the moment on at which the first answer with it begins. Rows that are sent before
that write it again, at 1.25 times the price of its tokens instead of a tenth. So one row leads; the others wait until
its answer begins. If it fails before, the next one leads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

SPARE: Final = 10.0
"""Seconds before the end of its lifetime from which on a prefix does not count as cached: the request takes time."""

LIFETIMES: Final = {"5m": 300.0, "1h": 3600.0}
"""Seconds that a provider keeps a prefix after its last use, by the `ttl` of its `cache_control`."""

SOON: Final = 0.5
"""Seconds from a row's beginning until it has asked whether it leads, at the most; after that, the next one begins."""

MOST_KEPT: Final = 4096
"""Prefixes that are remembered; those that were used longest ago go first."""


class Prefix(msgspec.Struct, frozen=True):
    """What a request shares with others, up to one `cache_control`."""

    digest: bytes
    lifetime: float
    """Seconds."""


def prefixes(request: Mapping[str, Any]) -> tuple[Prefix, ...]:
    """Return the prefixes that a request marks with `cache_control`, shortest first; a request without one has none.

    They are what a provider reads before each mark, in its order: tools, system, messages; of one model.
    """
    hashed = hashlib.blake2b(_ENCODE(request.get("model")), digest_size=16)
    found: list[Prefix] = []
    for part, control in _parts(request):
        hashed.update(_ENCODE(part))
        if isinstance(control, Mapping):
            lifetime = LIFETIMES.get(str(control.get("ttl", "5m")), LIFETIMES["5m"])
            found.append(Prefix(hashed.copy().digest(), lifetime))
    return tuple(found)


def _parts(request: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Everything that a provider reads, with the mark behind it. Rubbish is read as it stands."""
    for name in ("tools", "system"):
        value = request.get(name)
        for part in value if isinstance(value, Sequence) and not isinstance(value, str) else (value,):
            yield part, part.get("cache_control") if isinstance(part, Mapping) else None
    messages = request.get("messages")
    for message in messages if isinstance(messages, Sequence) and not isinstance(messages, str) else ():
        if not isinstance(message, Mapping):
            continue
        content = message.get("content")
        yield message.get("role"), None
        for part in content if isinstance(content, Sequence) and not isinstance(content, str) else (content,):
            yield part, part.get("cache_control") if isinstance(part, Mapping) else None


_ENCODE: Final = msgspec.json.Encoder(enc_hook=str).encode


class WarmUps:
    """What is known of the prefixes that the rows of one program share."""

    def __init__(self) -> None:
        self._cached_until: dict[bytes, float] = {}
        self._led: dict[bytes, int] = {}
        """The row that leads, by prefix."""
        self._soon: dict[bytes, float] = {}
        """Until when rows wait for one that is about to lead."""
        self._rows = 0
        self.led = 0
        """Rows that led, so far."""

    def cached(self, prefix: Prefix, now: float) -> bool:
        """Return whether a prefix is known to be cached."""
        return now < self._cached_until.get(prefix.digest, 0.0)

    def expected(self, shared: Sequence[Prefix], now: float) -> bool:
        """Return whether a row would wait for another one that leads, or that is about to.

        If it would not, it is about to lead itself, unless all is cached: rows after it wait `SOON` seconds for it.
        """
        cold = [one.digest for one in shared if not self.cached(one, now)]
        if any(digest in self._led or now < self._soon.get(digest, 0.0) for digest in cold):
            return True
        self._soon = {digest: until for digest, until in self._soon.items() if now < until}
        self._soon |= dict.fromkeys(cold, now + SOON)
        return False

    def enter(self, shared: Sequence[Prefix], now: float) -> int | None:
        """Ask whether a row may be sent.

        :returns: `None` if it has to wait; its number if it leads, which is owed a `began` or `left`; else 0.
        """
        cold = [one.digest for one in shared if not self.cached(one, now)]
        if not cold:
            return 0
        if any(digest in self._led for digest in cold):
            return None
        self._rows += 1
        self.led += 1
        self._led.update(dict.fromkeys(cold, self._rows))
        return self._rows

    def began(self, shared: Sequence[Prefix], row: int, sent: float) -> None:
        """An answer with these prefixes began: they are cached.

        :param row: its number, if it led; else 0.
        :param sent: when its request was sent.
        """
        for one in shared:
            until = sent + one.lifetime - SPARE
            self._cached_until[one.digest] = max(until, self._cached_until.pop(one.digest, 0.0))
        while len(self._cached_until) > MOST_KEPT:
            self._cached_until.pop(next(iter(self._cached_until)))
        self.left(row)

    def left(self, row: int) -> None:
        """A row that led ended before its answer began, or was not sent: the next one leads."""
        if row:
            for digest in [digest for digest, leader in self._led.items() if leader == row]:
                del self._led[digest]
