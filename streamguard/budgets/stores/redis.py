"""Balances in Redis (or Valkey): shared by machines.

In charge of one Lua script per verb, of telling an emptied server from the one it knew, and of refusing servers that
forget. The scripts see the server's clock only.

What holds, and on what condition: a reservation is one script, hence atomic. It survives the server's death if every
write reaches its disk (`appendfsync always`); with `everysec` the last second's holds can be lost. Whoever had the
ledger open notices when it was emptied (the *epoch* differs or is gone), and when rows that it knows of are missing
(the *turn* is lower: a restored snapshot, or a failover to a replica that was behind), and stops. A process that starts
afterwards cannot know. `caveats` says which of these applies to the server at hand.

Keys share a hash tag, so they live together in a cluster: `{streamguard:NAME}:epoch`, `:scopes` (hash), `:counters`
(hash: `SCOPE|WINDOW|s`, `h` or `u`), `:holds` (hash of JSON), `:leases` and `:uncertain` (sorted by time), `:log`
(append-only rows), `:base` (the sum of rows that were folded away, so that the log stays short) and `:turn` (how many
rows there ever were: whoever knows a later one notices that an older state was put back, or a replica came up).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from streamguard.budgets.ledger import Balance, Denied, Doubt, DoubtKind, LedgerError, LedgerLost, Repair
from streamguard.budgets.spec import Scope, Settlement, Window
from streamguard.budgets.stores.checks import (
    check_amounts,
    check_same,
    check_scopes,
    check_shares,
    lease_lost,
    unknown_scope,
)
from streamguard.budgets.stores.redis_scripts import SCRIPTS
from streamguard.files.redis_server import SECTIONS, caveats, forgetful
from streamguard.redaction import bare_address, redacted
from streamguard.usage import Unit

FORMAT = "1"
"""Of the keys; stands before the epoch."""

NO_ADDRESS = (
    "this is no address that redis-py takes; it is like redis://USER:PASSWORD@HOST:PORT/DB?ledger=NAME, with @, : and /"
    " in the password percent-encoded, and with no options but redis-py's own"
)

TIMEOUT = 5.0
"""Seconds for a connection or an answer. Scripts take well under a millisecond."""

KEYS = ("epoch", "scopes", "counters", "holds", "leases", "uncertain", "log", "base", "late", "caps", "turn")

TRIES = 3
"""How often a verb that was not answered is sent again; every verb may run twice: see `Store`."""

LONGEST_PAUSE = 0.2
"""Seconds between tries."""

LOOK_AGAIN = 60.0
"""Seconds after which it is looked at again whether the server may forget."""


class RedisStore:
    """Balances on a server.

    :param client: answers must be decoded.
    :param name: of the ledger; one server can hold many.
    :param skew: seconds to add to the server's clock, for tests.
    :raises LedgerError: the server may forget balances, or has a ledger of another format.
    :raises LedgerLost: the server cannot be reached.
    """

    blocks = True

    def __init__(
        self, client: Redis, name: str = "default", *, where: str = "redis", skew: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._client, self._where, self._skew = client, f"{where} (ledger {name!r})", skew
        self._keys = tuple(f"{{streamguard:{name}}}:{key}" for key in KEYS)
        self._caveats: tuple[str, ...] = ()
        self._looked = -math.inf
        self._offset = 0.0
        self._turn = 0
        self._refuse_forgetful()
        self._epoch = self._begin()

    @classmethod
    def at(cls, address: str) -> RedisStore:
        """The store at `redis://HOST:PORT/DB?ledger=NAME`; other options go to redis-py.

        :raises LedgerError: an address that redis-py does not take. Its words are left out: they repeat parts of the
            address, and any part may be the password.
        """
        where = bare_address(address)
        retry = Retry(ExponentialBackoff(cap=LONGEST_PAUSE, base=0.01), TRIES)
        try:
            parts = urlsplit(address)
            options = dict(parse_qsl(parts.query))
            name = options.pop("ledger", "default")
            client = Redis.from_url(
                urlunsplit(parts._replace(query=urlencode(options))),
                decode_responses=True,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=retry,
            )
            # Options are only looked at when a connection is made.
            client.connection_pool.make_connection()
        except (TypeError, ValueError, AttributeError):
            raise LedgerError(f"{where}: {NO_ADDRESS}") from None
        return cls(client, name, where=where)

    @property
    def caveats(self) -> Sequence[str]:
        """What its promise rests on."""
        return self._caveats

    def configure(self, scopes: Sequence[Scope]) -> None:
        check_scopes(scopes)
        arguments: list[str] = []
        for scope in scopes:
            release = "" if scope.release_after is None else repr(float(scope.release_after))
            arguments += [scope.key, scope.unit, str(scope.cap), scope.window or "", release]
        answer = self._run("configure", *arguments)
        if answer[0] == "mismatch":
            known = next(scope for scope in scopes if scope.key == answer[1])
            check_same(known, answer[2], answer[3] or None)

    def scopes(self) -> Sequence[Scope]:
        found = self._run("scopes")[1:]
        rows = sorted(found[index : index + 5] for index in range(0, len(found), 5))
        return [
            Scope(
                key=key,
                unit=cast("Unit", unit),
                cap=int(cap),
                window=cast("Window | None", span or None),
                release_after=float(release) if release else None,
            )
            for key, unit, cap, span, release in rows
        ]

    def set_cap(self, scope: str, cap: int | None) -> None:
        if cap is not None:
            check_scopes([Scope(key=scope, unit="tokens", cap=cap)])
        self._run("set_cap", scope, *([] if cap is None else [str(cap)]))

    def reserve(
        self, hold: str, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        check_amounts(amounts)
        if time.monotonic() - self._looked > LOOK_AGAIN:
            self._refuse_forgetful()
        own = {key: "" if caps is None or key not in caps else str(caps[key]) for key in amounts}
        parts = [part for key, amount in amounts.items() for part in (key, str(amount), own[key])]
        answer = ["late"]
        for _ in range(3):
            # A server that hangs runs what it was sent when it wakes. Nobody will settle that, so it is refused then.
            until = time.monotonic() + self._offset + (TRIES + 1) * TIMEOUT + TRIES * LONGEST_PAUSE
            answer = self._run("reserve", hold, repr(float(lease)), repr(until), *parts)
            if answer[0] == "late":
                self._offset = float(answer[1]) - time.monotonic()
            elif answer[0] == "torn":
                self.rebuild()
            else:
                break
        if answer[0] in ("late", "torn"):
            raise LedgerLost(f"{self._where}: the server's clock or counters cannot be relied on ({answer[0]})")
        if answer[0] == "ok":
            self._turn = max([self._turn, *map(int, answer[1:])])
            return None
        _, scope, unit, asked, available, cap, held, window = answer
        return Denied(
            scope=scope,
            unit=cast("Unit", unit),
            asked=int(asked),
            available=int(available),
            cap=int(cap),
            held=int(held),
            window=window,
        )

    def heartbeat(self, hold: str, lease: float) -> None:
        if self._run("heartbeat", hold, repr(float(lease)))[0] != "ok":
            raise lease_lost(hold)

    def settle(self, hold: str, settlements: Mapping[str, Settlement]) -> bool:
        check_shares(settlements)
        parts = [
            part
            for key, settlement in settlements.items()
            for part in (key, str(settlement.settled), str(settlement.uncertain))
        ]
        return self._run("settle", hold, *parts)[0] == "ok"

    def reconcile_hold(self, hold: str, settled: Mapping[str, int]) -> bool:
        check_amounts(settled)
        pairs = [part for key, amount in settled.items() for part in (key, str(amount))]
        return self._run("reconcile_hold", hold, *pairs)[0] == "ok"

    def reconcile_scope(self, scope: str, settled: int, window: str | None = None, before: float | None = None) -> bool:
        check_amounts({scope: settled})
        named = "*" if window is None else window
        until = "+inf" if before is None else f"({before!r}"
        done, place = False, "0"
        while place != "end":  # in pieces: a script holds everybody else up
            answer = self._run("reconcile_scope", scope, str(settled), named, until, place, "1" if done else "0")
            done, place = answer[0] == "ok", answer[1]
        return done

    def uncertain(self, scope: str, window: str | None = None) -> Sequence[Doubt]:
        found: dict[DoubtKind, list[tuple[int, float]]] = {}
        place = "0"
        while place != "end":
            _, place, *parts = self._run("uncertain", scope, "*" if window is None else window, place)
            for index in range(0, len(parts), 3):
                kind, amount, since = parts[index : index + 3]
                found.setdefault(cast("DoubtKind", kind), []).append((int(amount), float(since)))
        return [
            Doubt(kind=kind, holds=len(rows), amount=sum(row[0] for row in rows), since=min(row[1] for row in rows))
            for kind, rows in sorted(found.items())
        ]

    def balance(self, scope: str, window: str | None = None) -> Balance:
        _, unit, cap, settled, held, uncertain, named = self._run(
            "balance", scope, *([] if window is None else [window])
        )
        return Balance(
            scope=scope,
            unit=cast("Unit", unit),
            cap=int(cap),
            settled=int(settled),
            held=int(held),
            uncertain=int(uncertain),
            window=named,
        )

    def sweep(self) -> int:
        changed, place = 0, "0"
        while place != "end":
            _, done, place = self._run("sweep", place)
            changed += int(done)
        return changed

    def rebuild(self) -> Sequence[Repair]:
        found = self._run("rebuild")[1:]
        repairs = []
        for index in range(0, len(found), 8):
            scope, window, *numbers = found[index : index + 8]
            counts = [int(number) for number in numbers]
            repairs.append(
                Repair(
                    scope=scope,
                    window=window,
                    was=(counts[0], counts[1], counts[2]),
                    now=(counts[3], counts[4], counts[5]),
                )
            )
        return repairs

    def close(self) -> None:
        with suppress(RedisError):
            self._client.close()

    def _run(self, verb: str, *arguments: str) -> list[str]:
        """Run a verb's script. The server may forget scripts at any time, so it is sent whole where it is unknown."""
        script, digest = SCRIPTS[verb]
        sent = (f"{self._epoch} {self._turn}", repr(float(self._skew())), *arguments)
        try:
            try:
                answer: Any = self._client.evalsha(digest, len(KEYS), *self._keys, *sent)
            except NoScriptError:
                answer = self._client.eval(script, len(KEYS), *self._keys, *sent)
        except RedisError as error:
            raise LedgerLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}") from error
        if answer[0] == "lost":
            raise LedgerLost(
                f"{self._where}: this is no longer the ledger it was: emptied, replaced by another, or an older state"
            )
        if answer[0] == "unknown":
            raise unknown_scope(answer[1])
        return cast("list[str]", answer)

    def _begin(self) -> str:
        """The ledger's epoch, which the first to come sets."""
        try:
            self._client.set(self._keys[0], f"{FORMAT}:{secrets.token_hex(8)}", nx=True)
            epoch = cast("str | None", self._client.get(self._keys[0]))
            seconds, micros = self._client.time()
            self._offset = seconds + micros / 1e6 + self._skew() - time.monotonic()
        except RedisError as error:
            raise LedgerLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}") from error
        if epoch is None or epoch.partition(":")[0] != FORMAT:
            raise LedgerError(
                f"{self._where}: holds a ledger of another format, and this version reads format {FORMAT}"
            )
        return epoch

    def _refuse_forgetful(self) -> None:
        self._caveats, self._looked = (), time.monotonic()
        try:
            facts: dict[str, Any] = {}
            for section in SECTIONS:
                facts |= self._client.info(section)
        except RedisError as error:
            raise LedgerLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}") from error
        evicts, forgets = "evict balances and give a spent budget out again", "what was spent"
        if (why := forgetful(facts, evicts=evicts, forgets=forgets)) is not None:
            raise LedgerError(f"{self._where}: {why}")
        fsync: str | None = None
        with suppress(RedisError):  # hosted servers forbid CONFIG
            fsync = cast("dict[str, str]", self._client.config_get("appendfsync")).get("appendfsync")
        self._caveats += tuple(f"{self._where}: {one}" for one in caveats(facts, fsync, lost="holds"))
