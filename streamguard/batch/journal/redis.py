"""A row journal in Redis (or Valkey): shared by machines. Every result stays in the server's memory.

In charge of one Lua script per verb, of telling an emptied server from the one it knew, and of refusing servers that
forget, as the ledger does. The scripts read the server's clock only. With `appendfsync everysec` a crash of the server
can lose the results of the last second, and a failover those that were not replicated: their rows are asked again.

Keys share a hash tag: `{streamguard-rows:NAME}:epoch`, `:owners` (sorted by the end of their leases), and per job
`:rows:JOB` (hash: key → JSON of fingerprint, owner, deaths, reason, state) and `:lines:JOB` (hash: key → line).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from streamguard.batch.journal.contract import (
    Answer,
    Ask,
    Busy,
    Done,
    Failure,
    JournalEmptied,
    JournalLost,
    JournalRefused,
    Mine,
    Other,
    Result,
)
from streamguard.files.redis_server import SECTIONS, caveats, forgetful
from streamguard.redaction import bare_address, redacted

FORMAT = "1"
"""Of the keys; stands before the epoch."""

TIMEOUT = 5.0
"""Seconds for a connection or an answer."""

TRIES = 3
"""How often a verb that was not answered is sent again; each verb may run twice."""

PAGE = 500
"""Failures that are read at a time."""

_SHARED = """
local EPOCH, OWNERS, ROWS, LINES = unpack(KEYS)
if redis.call('GET', EPOCH) ~= ARGV[1] then return {'lost'} end
local time = redis.call('TIME')
local NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[2])
local function read(key)
  local raw = redis.call('HGET', ROWS, key)
  local row = raw and cjson.decode(raw)
  if row and row.s and redis.call('HEXISTS', LINES, key) == 0 then row.s, row.r = nil, nil end
  return row
end
local function write(key, row) redis.call('HSET', ROWS, key, cjson.encode(row)) end
local function lease(owner, seconds)
  redis.call('ZADD', OWNERS, string.format('%.6f', NOW + tonumber(seconds)), owner)
end
"""

_VERBS = {
    "claim": """
local owner, answer = ARGV[3], {'ok'}
lease(owner, ARGV[4])
for i = 5, #ARGV, 2 do
  local key, fingerprint = ARGV[i], ARGV[i + 1]
  local row = read(key)
  local kind, value
  if not row then
    row = {f = fingerprint, o = owner, d = 0}
    write(key, row)
    kind, value = 'mine', '0'
  elseif row.s and row.f == fingerprint then
    kind, value = 'done', redis.call('HGET', LINES, key)
  elseif row.s and not row.r then
    kind, value = 'other', row.f
  elseif row.s then
    redis.call('HDEL', LINES, key)
    write(key, {f = fingerprint, o = owner, d = 0})
    kind, value = 'mine', '0'
  else
    local left, died = 0, 0
    if row.o and row.o ~= owner then
      left = tonumber(redis.call('ZSCORE', OWNERS, row.o) or '0') - NOW
      died = 1
    end
    if left > 0 then
      kind, value = 'busy', string.format('%.6f', left)
    else
      row.d = row.f == fingerprint and row.d + died or 0
      row.o, row.f = owner, fingerprint
      write(key, row)
      kind, value = 'mine', string.format('%d', row.d)
    end
  end
  answer[#answer + 1] = kind
  answer[#answer + 1] = value
end
return answer
""",
    "finish": """
local answer = {'ok'}
for i = 3, #ARGV, 4 do
  local key, fingerprint, line, reason = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local row = read(key) or {f = fingerprint, d = 0}
  local kind, value = 'done', line
  if row.f ~= fingerprint then
    kind, value = 'other', row.f
  elseif row.s then
    value = redis.call('HGET', LINES, key)
  else
    redis.call('HSET', LINES, key, line)
    row.s, row.o, row.r = 1, nil, reason ~= '' and reason or nil
    write(key, row)
    value = ''
  end
  answer[#answer + 1] = kind
  answer[#answer + 1] = value
end
return answer
""",
    "put_back": """
for i = 4, #ARGV do
  local row = read(ARGV[i])
  if row and not row.s and row.o == ARGV[3] then
    row.o = nil
    write(ARGV[i], row)
  end
end
return {'ok'}
""",
    "beat": """
lease(ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYSCORE', OWNERS, '-inf', NOW - 86400)
return {'ok'}
""",
    "leave": "redis.call('ZREM', OWNERS, ARGV[3]) return {'ok'}",
    "forget": """
local count = 0
for i = 3, #ARGV do
  local row = read(ARGV[i])
  if row and row.s and row.r then
    redis.call('HDEL', ROWS, ARGV[i])
    redis.call('HDEL', LINES, ARGV[i])
    count = count + 1
  end
end
return {'ok', tostring(count)}
""",
}
_SCRIPTS = {
    verb: (_SHARED + body, hashlib.sha1((_SHARED + body).encode(), usedforsecurity=False).hexdigest())
    for verb, body in _VERBS.items()
}


class RedisJournal:
    """Rows of one job on a server.

    :param client: answers must not be decoded.
    :param name: of the journal; one server can hold many.
    :param skew: seconds to add to the server's clock, for tests.
    :raises JournalRefused: the server may forget results, or has a journal of another format.
    :raises JournalLost: the server cannot be reached.
    """

    blocks = True

    def __init__(
        self,
        client: Redis,
        job: str,
        name: str = "default",
        *,
        where: str = "redis",
        skew: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._client, self._where, self._skew = client, f"{where} (row journal {name!r})", skew
        at = f"{{streamguard-rows:{name}}}"
        self._keys = (f"{at}:epoch", f"{at}:owners", f"{at}:rows:{job}", f"{at}:lines:{job}")
        self._caveats: tuple[str, ...] = ()
        try:
            self._refuse_forgetful()
            self._client.set(self._keys[0], f"{FORMAT}:{secrets.token_hex(8)}", nx=True)
            epoch = cast("bytes | None", self._client.get(self._keys[0])) or b""
        except RedisError as error:
            raise self._lost(error) from error
        self._epoch = epoch.decode()
        if self._epoch.partition(":")[0] != FORMAT:
            raise JournalRefused(f"{self._where}: holds a journal of another format; this version reads {FORMAT}")

    @classmethod
    def at(cls, address: str, job: str) -> RedisJournal:
        """The journal at `redis://HOST:PORT/DB?journal=NAME`; other options go to redis-py.

        :raises JournalRefused: an address that redis-py does not take.
        """
        where = bare_address(address)
        try:
            parts = urlsplit(address)
            options = dict(parse_qsl(parts.query))
            name = options.pop("journal", "default")
            client = Redis.from_url(
                urlunsplit(parts._replace(query=urlencode(options))),
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.01), TRIES),
            )
            client.connection_pool.make_connection()
        except (TypeError, ValueError, AttributeError):
            # The words of the error are left out: they repeat parts of the address, and any may be the password.
            raise JournalRefused(
                f"{where}: no address that redis-py takes; it is like redis://USER:PASSWORD@HOST:PORT/DB?journal=NAME"
            ) from None
        return cls(client, job, name, where=where)

    @property
    def caveats(self) -> Sequence[str]:
        return self._caveats

    def claim(self, asks: Sequence[Ask], owner: str, lease: float) -> list[Answer]:
        pairs = [part for ask in asks for part in (ask.key, ask.fingerprint)]
        answer = self._run("claim", owner, repr(float(lease)), *pairs)
        return [_answer(kind, value) for kind, value in zip(answer[::2], answer[1::2], strict=True)]

    def finish(self, results: Sequence[Result]) -> list[Done | Other]:
        parts = [part for one in results for part in (one.key, one.fingerprint, one.line, one.reason or "")]
        answer = self._run("finish", *parts)
        found: list[Done | Other] = []
        for result, kind, value in zip(results, answer[::2], answer[1::2], strict=True):
            found.append(Other(value.decode()) if kind == b"other" else Done(value or result.line))
        return found

    def put_back(self, keys: Sequence[str], owner: str) -> None:
        self._run("put_back", owner, *keys)

    def beat(self, owner: str, lease: float) -> None:
        self._run("beat", owner, repr(float(lease)))

    def leave(self, owner: str) -> None:
        self._run("leave", owner)

    def failures(self) -> Iterator[Failure]:
        try:
            keys = sorted(cast("list[bytes]", self._client.hkeys(self._keys[2])))
            for start in range(0, len(keys), PAGE):
                page = keys[start : start + PAGE]
                rows = cast("list[bytes | None]", self._client.hmget(self._keys[2], cast("Any", page)))
                for key, raw in zip(page, rows, strict=True):
                    row = {} if raw is None else _decoded(raw)
                    line = self._client.hget(self._keys[3], cast("Any", key)) if row.get("r") else None
                    if line is not None:
                        yield Failure(key.decode(), row["r"], cast("Any", line))
        except RedisError as error:
            raise self._lost(error) from error

    def forget(self, keys: Sequence[str] | None = None) -> int:
        wanted = [failure.key for failure in self.failures()] if keys is None else list(dict.fromkeys(keys))
        return sum(int(self._run("forget", *wanted[start : start + PAGE])[0]) for start in range(0, len(wanted), PAGE))

    def close(self) -> None:
        with suppress(RedisError):
            self._client.close()

    def _run(self, verb: str, *arguments: str | bytes) -> list[bytes]:
        script, digest = _SCRIPTS[verb]
        sent: tuple[Any, ...] = (*self._keys, self._epoch, repr(float(self._skew())), *arguments)
        try:
            try:
                answer: Any = self._client.evalsha(digest, len(self._keys), *sent)
            except NoScriptError:
                answer = self._client.eval(script, len(self._keys), *sent)
        except RedisError as error:
            raise self._lost(error) from error
        if answer[0] == b"lost":
            raise JournalEmptied(f"{self._where}: no longer the journal it was: emptied, or replaced by another")
        return cast("list[bytes]", answer[1:])

    def _lost(self, error: RedisError) -> JournalLost:
        return JournalLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}")

    def _refuse_forgetful(self) -> None:
        facts: dict[str, Any] = {}
        for section in SECTIONS:
            facts |= self._client.info(section)
        evicts, forgets = "evict results and have their rows paid for again", "every result"
        if (why := forgetful(facts, evicts=evicts, forgets=forgets)) is not None:
            raise JournalRefused(f"{self._where}: {why}")
        fsync: str | None = None
        with suppress(RedisError):  # hosted servers forbid CONFIG
            found = cast("dict[Any, Any]", self._client.config_get("appendfsync"))
            fsync = {str(_text(name)): _text(value) for name, value in found.items()}.get("appendfsync")
        self._caveats += tuple(f"{self._where}: {one}" for one in caveats(facts, fsync, lost="results"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _decoded(raw: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.json.decode(raw))


def _answer(kind: bytes, value: bytes) -> Answer:
    if kind == b"mine":
        return Mine(int(value))
    if kind == b"done":
        return Done(value)
    return Busy(float(value)) if kind == b"busy" else Other(value.decode())
