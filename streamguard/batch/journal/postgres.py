"""A row journal in PostgreSQL: shared by machines. What is committed is on the server's disk.

In charge of two tables (`sg_rows`, `sg_owners`), of one transaction per verb, and of a connection that is made anew
after it broke. The clock is the server's. Rows are taken in the order of their keys, so that two workers that want the
same rows do not lock each other out. Who opened the journal notices when its tables were emptied or made anew.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

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
from streamguard.redaction import bare_address, redacted

TIMEOUT = 5.0
"""Seconds for a connection, or for an answer. A statement takes a few milliseconds."""

TRIES = 2
"""How often a verb is sent whose connection broke: each verb may run twice."""

LOCK = 0x5347_524A
"""Of `CREATE TABLE IF NOT EXISTS`, which is not safe to run twice at once."""

_TABLES = """
CREATE TABLE IF NOT EXISTS sg_journal (format integer NOT NULL, epoch text NOT NULL);
CREATE TABLE IF NOT EXISTS sg_owners (owner text PRIMARY KEY, until timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS sg_rows (
    job text NOT NULL, key text NOT NULL, fingerprint text NOT NULL, owner text, deaths integer NOT NULL DEFAULT 0,
    reason text, line bytea, PRIMARY KEY (job, key)
);
"""

_LEASE = """
INSERT INTO sg_owners VALUES (%s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (owner) DO UPDATE SET until = EXCLUDED.until
"""

_EPOCH = "SELECT epoch FROM sg_journal WHERE epoch = %s"

_SOON = "set_config('synchronous_commit', 'off', true) = 'off'"
"""Lets this transaction's commit not wait for the disk: a claim that a crash of the server forgets is a row that is
asked again, and it is under way then anyway. Results wait."""

_CLAIM = f"""
WITH known AS ({_EPOCH} AND {_SOON}), leased AS ({_LEASE} RETURNING 1)
INSERT INTO sg_rows AS r (job, key, fingerprint, owner)
SELECT %s, key, fingerprint, %s FROM unnest(%s::text[], %s::text[]) AS asked (key, fingerprint), known ORDER BY key
ON CONFLICT (job, key) DO UPDATE SET
    deaths = CASE WHEN r.fingerprint <> EXCLUDED.fingerprint THEN 0
        WHEN r.owner <> EXCLUDED.owner AND r.line IS NULL THEN r.deaths + 1 ELSE r.deaths END,
    owner = EXCLUDED.owner, fingerprint = EXCLUDED.fingerprint, line = NULL, reason = NULL
WHERE CASE WHEN r.line IS NULL THEN
        r.owner IS NULL OR r.owner = EXCLUDED.owner
        OR NOT EXISTS (SELECT FROM sg_owners o WHERE o.owner = r.owner AND o.until > clock_timestamp())
    ELSE r.reason IS NOT NULL AND r.fingerprint <> EXCLUDED.fingerprint END
RETURNING key, deaths
"""  # noqa: S608  texts of ours

_LOOK = """
SELECT key, fingerprint, line, coalesce(extract(epoch FROM until - clock_timestamp()), 0)::float8
FROM sg_rows LEFT JOIN sg_owners USING (owner) WHERE job = %s AND key = ANY(%s)
"""

_FINISH = f"""
WITH known AS ({_EPOCH})
INSERT INTO sg_rows AS r (job, key, fingerprint, line, reason)
SELECT %s, key, fingerprint, line, reason
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::text[]) AS came (key, fingerprint, line, reason), known
ORDER BY key
ON CONFLICT (job, key) DO UPDATE SET line = EXCLUDED.line, reason = EXCLUDED.reason, owner = NULL
WHERE r.line IS NULL AND r.fingerprint = EXCLUDED.fingerprint
RETURNING key
"""  # noqa: S608


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for a server that hangs no longer than `TIMEOUT`."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, TIMEOUT if timeout is None else timeout)
        except psycopg.OperationalError:
            self.pgconn.finish()  # what the server still does with it is unknown
            raise


class PostgresJournal:
    """Rows of one job in a database.

    :param address: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, as libpq has it.
    :raises JournalRefused: the address, the database or the format of its tables cannot be used.
    :raises JournalLost: the server cannot be reached.
    """

    blocks = True
    caveats: Sequence[str] = ()

    def __init__(self, address: str, job: str) -> None:
        self._address, self._job = address, job
        self._where = bare_address(address)
        self._lock = threading.Lock()
        self._db: _Connection | None = None
        try:
            psycopg.conninfo.conninfo_to_dict(address)
        except psycopg.Error:
            # The words of the error are left out: they repeat the address, which may have the password.
            raise JournalRefused(
                f"{self._where}: no address that libpq takes; it is like postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            ) from None
        try:
            self._epoch = self._begin()
        except psycopg.OperationalError as error:
            raise self._lost(error) from error
        except psycopg.Error as error:
            raise JournalRefused(f"{self._where}: {redacted(str(error), 300)}") from error

    def _begin(self) -> str:
        with self._connection() as db, db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            for statement in _TABLES.strip().split(";\n"):
                db.execute(statement.rstrip(";").encode())
            known = db.execute("SELECT format, epoch FROM sg_journal").fetchone()
            if known is None:
                known = (1, secrets.token_hex(8))
                db.execute("INSERT INTO sg_journal VALUES (%s, %s)", known)
        if known[0] != 1:
            raise JournalRefused(f"{self._where}: holds a journal of format {known[0]}, and this version reads 1")
        return str(known[1])

    def claim(self, asks: Sequence[Ask], owner: str, lease: float) -> list[Answer]:
        wanted = {ask.key: ask for ask in asks}
        keys = list(wanted)
        prints = [wanted[key].fingerprint for key in keys]

        def verb(db: _Connection) -> dict[str, Answer]:
            sent = (self._epoch, owner, lease, self._job, owner, keys, prints)
            found: dict[str, Answer] = {key: Mine(deaths) for key, deaths in db.execute(_CLAIM.encode(), sent)}
            left = [key for key in keys if key not in found]
            if left:
                rows = db.execute(_LOOK, (self._job, left)).fetchall()
                self._check(db)
                found.update((key, self._seen(wanted[key], *rest)) for key, *rest in rows)
            return found

        answers = self._run(verb)
        # A row that vanished in between was a failure that somebody had forgotten: it is looked at again soon.
        return [answers.get(ask.key, Busy(0.0)) for ask in asks]

    @staticmethod
    def _seen(ask: Ask, fingerprint: str, line: bytes | None, left: float) -> Answer:
        if line is None:
            return Busy(max(0.0, left))
        return Done(line) if fingerprint == ask.fingerprint else Other(fingerprint)

    def finish(self, results: Sequence[Result]) -> list[Done | Other]:
        columns = (
            [one.key for one in results],
            [one.fingerprint for one in results],
            [one.line for one in results],
            [one.reason for one in results],
        )

        def verb(db: _Connection) -> dict[str, Done | Other]:
            lines = {one.key: one for one in results}
            kept = db.execute(_FINISH.encode(), (self._epoch, self._job, *columns))
            found: dict[str, Done | Other] = {key: Done(lines[key].line) for (key,) in kept}
            left = [key for key in lines if key not in found]
            if left:
                rows = db.execute(_LOOK, (self._job, left)).fetchall()
                self._check(db)
                for key, fingerprint, line, _ in rows:
                    same = fingerprint == lines[key].fingerprint and line is not None
                    found[key] = Done(line) if same else Other(fingerprint)
            return found

        answers = self._run(verb)
        return [answers.get(one.key, Done(one.line)) for one in results]

    def put_back(self, keys: Sequence[str], owner: str) -> None:
        sql = "UPDATE sg_rows SET owner = NULL WHERE job = %s AND key = ANY(%s) AND owner = %s AND line IS NULL"
        self._run(lambda db: db.execute(sql, (self._job, sorted(keys), owner)))

    def beat(self, owner: str, lease: float) -> None:
        def verb(db: _Connection) -> None:
            self._check(db)
            db.execute(_LEASE, (owner, lease))
            db.execute("DELETE FROM sg_owners WHERE until < clock_timestamp() - interval '1 day'")

        self._run(verb)

    def leave(self, owner: str) -> None:
        self._run(lambda db: db.execute("DELETE FROM sg_owners WHERE owner = %s", (owner,)))

    def failures(self) -> Iterator[Failure]:
        sql = 'SELECT key, reason, line FROM sg_rows WHERE job = %s AND reason IS NOT NULL ORDER BY key COLLATE "C"'
        found = self._run(lambda db: db.execute(sql, (self._job,)).fetchall())
        yield from (Failure(key, reason, bytes(line)) for key, reason, line in found)

    def forget(self, keys: Sequence[str] | None = None) -> int:
        sql = "DELETE FROM sg_rows WHERE job = %s AND reason IS NOT NULL AND (%s::text[] IS NULL OR key = ANY(%s))"
        wanted = None if keys is None else sorted(set(keys))
        return int(self._run(lambda db: db.execute(sql, (self._job, wanted, wanted)).rowcount))

    def close(self) -> None:
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                with suppress(psycopg.Error):
                    db.close()

    # Below the verbs

    def _run(self, verb: Callable[[_Connection], Any]) -> Any:
        for left in reversed(range(TRIES)):
            try:
                with self._connection() as db, db.transaction():
                    return verb(db)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # The connection broke, or two workers were in each other's way.
                if not left:
                    raise self._lost(error) from error
            except psycopg.errors.UndefinedTable as error:
                raise self._emptied() from error
            except psycopg.Error as error:
                raise self._lost(error) from error
        raise AssertionError("unreachable")

    def _check(self, db: _Connection) -> None:
        """:raises JournalEmptied: the tables are not those that this process knew."""
        if db.execute(_EPOCH, (self._epoch,)).fetchone() is None:
            raise self._emptied()

    def _emptied(self) -> JournalEmptied:
        return JournalEmptied(f"{self._where}: no longer the journal it was: emptied, or replaced by another")

    def _lost(self, error: Exception) -> JournalLost:
        return JournalLost(f"{self._where}: {type(error).__name__}: {redacted(str(error), 300)}")

    @contextmanager
    def _connection(self) -> Iterator[_Connection]:
        with self._lock:
            if self._db is None or self._db.closed:
                self._db = _Connection.connect(
                    self._address, autocommit=True, connect_timeout=int(TIMEOUT), application_name="streamguard"
                )
                self._db.prepare_threshold = 2
            yield self._db
