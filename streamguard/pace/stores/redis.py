"""Shared paces on a Redis or Valkey server: for the programs of many machines.

In charge of the keys, and of steps that exclude each other. A step is worked out here, by `sharing.take_step`, and
stored by a script only if nobody else stored one meanwhile; else it is worked out again on what the script returns. So
every store runs the same code, and a step of one program alone costs one round trip.

The server's clock is the only one that counts. The server may forget: paces begin again with the next answer's headers.
Keys: `{streamguard:pace:KEY}`, for an hour after the last step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from streamguard.pace.reports import Report
from streamguard.pace.sharing import Ask, SharedState, Step, take_step
from streamguard.pace.state import Knobs
from streamguard.pace.stores.base import PaceError, PaceLost, T
from streamguard.pace.stores.sqlite import decoded
from streamguard.redaction import bare_address, redacted

TIMEOUT: Final = 0.5
"""Seconds for a connection or an answer; whoever waits for a turn waits less: see `engine.pacing.shared`."""

TRIES: Final = 16
"""Steps of others that may come between, until the store counts as lost."""

KEPT: Final = 3600
"""Seconds after which a pace that nobody uses is forgotten."""

SWAP: Final = """
local kept = redis.call('GET', KEYS[1])
local t = redis.call('TIME')
if (kept or '') ~= ARGV[1] then
  return {0, kept or '', t[1], t[2]}
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return {1, '', t[1], t[2]}
"""


class RedisPaceStore:
    """See `PaceStore`.

    :param client: answers must not be decoded.
    :param name: what keys begin with, beside the pace's own.
    :param clock: instead of the server's, for tests.
    """

    blocks = True

    def __init__(
        self, client: Redis, name: str = "default", *, where: str = "redis", clock: Callable[[], float] | None = None
    ) -> None:
        self._client, self._name, self._where, self._clock = client, name, where, clock
        self._swap = client.register_script(SWAP)
        self._offset: float | None = None
        self._last: dict[str, bytes] = {}

    @classmethod
    def at(cls, address: str) -> RedisPaceStore:
        """The store at `redis://HOST:PORT/DB`; `?ledger=NAME` names a set of paces, other options go to redis-py.

        :raises PaceError: an address that redis-py does not take.
        """
        try:
            parts = urlsplit(address)
            options = dict(parse_qsl(parts.query))
            name = options.pop("ledger", "default")
            client = Redis.from_url(
                urlunsplit(parts._replace(query=urlencode(options))),
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
            )
            client.connection_pool.make_connection()
        except (TypeError, ValueError, AttributeError):
            raise PaceError(f"pace.shared: {bare_address(address)} is no address that redis-py takes") from None
        return cls(client, name, where=bare_address(address))

    def step(
        self,
        key: str,
        knobs: Knobs,
        *,
        program: str,
        heard_at: float,
        reports: Sequence[Report],
        ask: Ask | None,
    ) -> Step:
        """See `PaceStore.step`."""
        how = {"program": program, "heard_at": heard_at, "reports": reports, "ask": ask}
        return self.change(key, lambda state, now: take_step(state, knobs, now, **how))  # type: ignore[arg-type]

    def change(self, key: str, verb: Callable[[SharedState, float], T]) -> T:
        """See `PaceStore.change`."""
        full = f"{{streamguard:pace:{self._name}:{key}}}"
        kept = self._last.get(key, b"")
        try:
            if self._offset is None:
                seconds, micros = self._client.time()
                self._offset = seconds + micros / 1e6 - time.monotonic()
            for _ in range(TRIES):
                state = decoded(kept or None)
                now = time.monotonic() + self._offset if self._clock is None else self._clock()
                result = verb(state, now)
                fresh = msgspec.msgpack.encode(state)
                done, found, server = self._swapped(full, kept, fresh)
                self._offset = server - time.monotonic()
                self._last[key] = kept = fresh if done else found
                if done:
                    return result
        except RedisError as error:
            self._last.pop(key, None)
            raise PaceLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}") from error
        raise PaceLost(f"{self._where}: {TRIES} other steps came between")

    def _swapped(self, key: str, kept: bytes, fresh: bytes) -> tuple[bool, bytes, float]:
        """Store a state if the one before is still there: whether it was, else what is, and the server's time."""
        done, found, seconds, micros = cast("Any", self._swap(keys=[key], args=[kept, fresh, KEPT]))
        return done == 1, found, int(seconds) + int(micros) / 1e6

    def close(self) -> None:
        """See `PaceStore.close`."""
        with suppress(RedisError):
            self._client.close()
