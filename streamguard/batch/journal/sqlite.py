"""A row journal in a SQLite file: shared by the processes of one machine.

In charge of the file and of one transaction per verb. A commit is an append to the write-ahead log: it survives the
death of the process, not a power cut, which can lose the last results. Local disks only: SQLite's locks do not work on
network shares. The clock is the machine's.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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
from streamguard.files.sqlite_file import ForeignFile, Format, check_path, claim, keep_log, transaction

WAIT = 10.0
"""Seconds to wait for other processes that write."""

DAY = 86_400.0
"""Seconds after which an owner whose lease ended is forgotten."""

FORMAT = Format(
    application_id=0x5367526A,  # `SgRj`
    version=1,
    tables="""
CREATE TABLE rows (
    job TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, owner TEXT, deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT, line BLOB, UNIQUE (job, key)
) STRICT;
CREATE TABLE owners (owner TEXT PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
""",
)

_LEASE = "INSERT INTO owners VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until"
_CLAIM = """
INSERT INTO rows (job, key, fingerprint, owner) VALUES (:job, :key, :fingerprint, :owner)
ON CONFLICT DO UPDATE SET
    deaths = iif(fingerprint = excluded.fingerprint,
        deaths + (line IS NULL AND owner IS NOT NULL AND owner <> excluded.owner), 0),
    owner = excluded.owner, fingerprint = excluded.fingerprint, line = NULL, reason = NULL
WHERE iif(line IS NULL,
    owner IS NULL OR owner = excluded.owner
        OR NOT EXISTS (SELECT 1 FROM owners WHERE owners.owner = rows.owner AND until > :now),
    reason IS NOT NULL AND fingerprint <> excluded.fingerprint)
RETURNING deaths
"""
_LOOK = """
SELECT fingerprint, line, until FROM rows LEFT JOIN owners USING (owner) WHERE job = :job AND key = :key
"""
_FINISH = """
INSERT INTO rows (job, key, fingerprint, line, reason) VALUES (:job, :key, :fingerprint, :line, :reason)
ON CONFLICT DO UPDATE SET line = excluded.line, reason = excluded.reason, owner = NULL
WHERE line IS NULL AND fingerprint = excluded.fingerprint
RETURNING 1
"""


class SqliteJournal:
    """Rows of one job in a file.

    :param clock: Unix seconds.
    :raises JournalRefused: the file cannot be used, or is something else.
    """

    blocks = True
    caveats: Sequence[str] = ()

    def __init__(self, path: Path, job: str, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._job, self._clock = path, job, clock
        self._lock = threading.Lock()
        try:
            check_path(path)
            self._db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        except ForeignFile as error:
            raise self._refused(error) from error
        except (sqlite3.Error, OSError) as error:
            raise JournalRefused(f"{path}: cannot be opened: {error}") from error
        try:
            keep_log(self._db, WAIT)
            self._db.execute("PRAGMA synchronous = NORMAL")
            claim(self._db, FORMAT)
        except ForeignFile as error:
            self._db.close()
            raise self._refused(error) from error
        except sqlite3.Error as error:
            self._db.close()
            raise JournalRefused(f"{path}: cannot be used as a row journal: {error}") from error
        self._file = path.stat().st_ino

    def _refused(self, error: ForeignFile) -> JournalRefused:
        what = f"has format {error.version}, and this version reads 1" if error.what == "version" else "is no journal"
        return JournalRefused(f"{self._path}: {what}; name another file for the row journal")

    def claim(self, asks: Sequence[Ask], owner: str, lease: float) -> list[Answer]:
        with self._transaction() as db:
            now = self._clock()
            db.execute(_LEASE, (owner, now + lease))
            return [self._claim(db, ask, owner, now) for ask in asks]

    def _claim(self, db: sqlite3.Connection, ask: Ask, owner: str, now: float) -> Answer:
        about = {"job": self._job, "key": ask.key, "fingerprint": ask.fingerprint, "owner": owner, "now": now}
        # All rows are fetched: a statement that is not at its end would keep the transaction open.
        taken = db.execute(_CLAIM, about).fetchall()
        if taken:
            return Mine(taken[0][0])
        fingerprint, line, until = db.execute(_LOOK, {"job": self._job, "key": ask.key}).fetchall()[0]
        if line is None:
            return Busy(until - now)
        return Done(line) if fingerprint == ask.fingerprint else Other(fingerprint)

    def finish(self, results: Sequence[Result]) -> list[Done | Other]:
        with self._transaction() as db:
            return [self._finish(db, result) for result in results]

    def _finish(self, db: sqlite3.Connection, result: Result) -> Done | Other:
        about = {"job": self._job, "key": result.key, "fingerprint": result.fingerprint}
        if db.execute(_FINISH, {**about, "line": result.line, "reason": result.reason}).fetchall():
            return Done(result.line)
        fingerprint, line, _ = db.execute(_LOOK, {"job": self._job, "key": result.key}).fetchall()[0]
        return Done(line) if fingerprint == result.fingerprint else Other(fingerprint)

    def put_back(self, keys: Sequence[str], owner: str) -> None:
        with self._transaction() as db:
            for key in keys:
                db.execute(
                    "UPDATE rows SET owner = NULL WHERE job = ? AND key = ? AND owner = ?", (self._job, key, owner)
                )

    def beat(self, owner: str, lease: float) -> None:
        with self._transaction() as db:
            now = self._clock()
            db.execute(_LEASE, (owner, now + lease))
            db.execute("DELETE FROM owners WHERE until < ?", (now - DAY,))

    def leave(self, owner: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM owners WHERE owner = ?", (owner,))

    def failures(self) -> Iterator[Failure]:
        with self._transaction() as db:
            found = db.execute(
                "SELECT key, reason, line FROM rows WHERE job = ? AND reason IS NOT NULL ORDER BY key", (self._job,)
            ).fetchall()
        yield from (Failure(*row) for row in found)

    def forget(self, keys: Sequence[str] | None = None) -> int:
        sql = "DELETE FROM rows WHERE job = ? AND reason IS NOT NULL"
        with self._transaction() as db:
            if keys is None:
                return db.execute(sql, (self._job,)).rowcount
            return sum(db.execute(f"{sql} AND key = ?", (self._job, key)).rowcount for key in dict.fromkeys(keys))

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                there = self._path.stat().st_ino
            except OSError:
                there = 0
            if there != self._file:
                raise JournalEmptied(f"{self._path}: the row journal was removed or replaced while it was open")
            with transaction(self._db, lambda error: JournalLost(f"{self._path}: {error}")) as db:
                yield db
