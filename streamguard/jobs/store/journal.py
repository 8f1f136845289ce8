"""The journal: what became of every row, in one SQLite file beside the output. It is the truth; the output is its copy.

In charge of the file: its tables, its transactions, and refusing files that are not ours. A row is written once, in one
transaction, before anybody else hears of it, so a kill at any moment leaves it whole or absent. What is under way is
noted before it is sent, so that the next run knows what a killed one had in flight.

A commit is an append to the write-ahead log that the operating system holds (some 30 µs): it survives the death of the
process, not a power cut; `sync` waits for the disk. Local disks only: SQLite's locks do not work on network shares.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from streamguard.errors import JobError, Problem
from streamguard.files.sqlite_file import (
    ForeignFile,
    Format,
    as_sqlite_errors,
    check_owner,
    check_path,
    claim,
    is_no_database,
    open_to_read,
    transaction,
)
from streamguard.jobs.store.journal_records import How, JournalError, Known, RunInfo, Sample, Spent, believed

SUFFIX = ".journal"
APPLICATION_ID = 0x53674A6C
"""`SgJl`: tells our files from anybody else's."""
VERSION = 1
BUSY = 10.0
"""Seconds to wait for somebody who reads the journal in an odd moment."""

_ALL = 2**62
"""More runs than there are."""

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, pid INTEGER NOT NULL, host TEXT NOT NULL, began REAL NOT NULL, ended REAL, how TEXT,
    rows INTEGER NOT NULL, todo INTEGER NOT NULL, asked INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    tokens_low INTEGER NOT NULL DEFAULT 0, tokens_high INTEGER DEFAULT 0, tokens_unknown INTEGER NOT NULL DEFAULT 0,
    cost_low INTEGER NOT NULL DEFAULT 0, cost_high INTEGER DEFAULT 0, cost_unknown INTEGER NOT NULL DEFAULT 0,
    summary TEXT
) STRICT;
CREATE TABLE records (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, run INTEGER NOT NULL, type TEXT NOT NULL, reason TEXT,
    fingerprint TEXT, failures INTEGER NOT NULL, began REAL, ended REAL, line BLOB NOT NULL, detail BLOB
) STRICT;
CREATE TABLE flight (key TEXT PRIMARY KEY, run INTEGER NOT NULL, began REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE crashes (key TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE samples (
    run INTEGER NOT NULL, at REAL NOT NULL, running INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL,
    retries INTEGER NOT NULL, cooling REAL NOT NULL, cost INTEGER
) STRICT;
CREATE INDEX records_by_outcome ON records (type, reason);
"""

BATCHES = """
CREATE TABLE IF NOT EXISTS batches (
    token TEXT PRIMARY KEY, run INTEGER NOT NULL, state TEXT NOT NULL, id TEXT, members BLOB NOT NULL,
    holds TEXT NOT NULL, noted REAL NOT NULL, counts TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
"""Of jobs that used the batch lane: made with the first batch."""

FORMAT = Format(application_id=APPLICATION_ID, version=VERSION, tables=_SCHEMA, optional=BATCHES)

_FINISH = """
INSERT OR REPLACE INTO records (key, run, type, reason, fingerprint, failures, began, ended, line, detail)
VALUES (
    :key, :run, :type, :reason, :fingerprint,
    iif(:type = 'succeeded', 0, :failed + coalesce((SELECT failures FROM records WHERE key = :key), 0)),
    (SELECT began FROM flight WHERE key = :key), :ended, :line, :detail
)
"""
_BEGIN = "INSERT OR REPLACE INTO flight VALUES (?, ?, ?)"
_SPEND = """
UPDATE runs SET asked = asked + ?, attempts = attempts + ?,
    tokens_low = tokens_low + ?, tokens_high = tokens_high + ?, tokens_unknown = tokens_unknown + ?,
    cost_low = cost_low + ?, cost_high = cost_high + ?, cost_unknown = cost_unknown + ? WHERE number = ?
"""


_RUN = ", ".join(RunInfo.__struct_fields__)


class Journal:
    """An open journal. One writer: whoever has the output's lock.

    :param clock: Unix seconds.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.run = 0
        """The number of the run that is under way; 0 for none."""
        self._db = db
        self._clock = clock
        self._suspects = True
        """Whether some row was ever under way at a kill; if not, nothing has to be forgotten."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; its log goes into it."""
        with suppress(sqlite3.Error):  # what is committed is safe in the log, and the next opening takes it in
            self._db.close()

    def remove(self) -> None:
        """Close and remove the file of a job that never began."""
        self.close()
        with suppress(OSError):  # a file too many does no harm
            self.path.unlink(missing_ok=True)

    # What it says

    @property
    def untouched(self) -> bool:
        """Whether nothing is known: no run began, and no result was taken in."""
        return not self.run and not self.runs() and not self.count()

    def about(self, name: str) -> Any:
        """Something about the job as a whole, as JSON; `None` if nobody said it."""
        row = self._one("SELECT value FROM about WHERE name = ?", name)
        with believed(str(self.path)):
            return None if row is None else msgspec.json.decode(row[0])

    def known(self, keys: Iterable[str]) -> dict[str, Known]:
        """What is known of these rows. A few hundred at a time."""
        wanted = list(keys)
        marks = ",".join("?" * len(wanted))
        found = self.rows(
            f"SELECT key, type, reason, fingerprint, failures FROM records WHERE key IN ({marks})",  # noqa: S608
            *wanted,
        )
        return {key: Known(*rest) for key, *rest in found}

    def crashes(self) -> dict[str, int]:
        """Rows that were under way when a run was killed, and how often."""
        return dict(self.rows("SELECT key, count FROM crashes"))

    def count(self) -> int:
        """Rows with a result."""
        row = self._one("SELECT count(*) FROM records")
        return 0 if row is None else int(row[0])

    def counts(self) -> dict[tuple[str, str | None], int]:
        """Rows with a result, by type and reason."""
        found = self.rows("SELECT type, reason, count(*) FROM records GROUP BY 1, 2 ORDER BY 3 DESC, 2")
        return {(kind, reason): count for kind, reason, count in found}

    def dead(self, after: int) -> list[str]:
        """Rows that failed for a reason of their own in so many runs, or that so many process deaths are laid to."""
        found = self.rows(
            "SELECT key FROM records LEFT JOIN crashes USING (key) "
            "WHERE type = 'errored' AND (failures >= ? OR count >= ?) ORDER BY seq",
            after,
            after,
        )
        return [key for (key,) in found]

    def in_flight(self) -> list[str]:
        """Rows that are noted as under way."""
        return [key for (key,) in self.rows("SELECT key FROM flight ORDER BY began")]

    def lines(self, before: int | None = None) -> Iterator[tuple[str, bytes]]:
        """Every row's key and line, in the order in which they ended.

        :param before: those that ended before this run only.
        """
        most = before if before is not None else _ALL
        yield from self.rows("SELECT key, line FROM records WHERE run < ? ORDER BY seq", most)

    def line(self, key: str) -> bytes | None:
        """One row's line."""
        row = self._one("SELECT line FROM records WHERE key = ?", key)
        return None if row is None else bytes(row[0])

    def details(self) -> Iterator[tuple[str, float | None, float | None, bytes, bytes | None]]:
        """Every row's key, when it began and ended (Unix seconds), its line, and what only the journal has of it."""
        yield from self.rows("SELECT key, began, ended, line, detail FROM records ORDER BY seq")

    def detail(self, key: str) -> bytes | None:
        """What only the journal has of one row."""
        row = self._one("SELECT detail FROM records WHERE key = ?", key)
        return None if row is None else row[0]

    def runs(self) -> list[RunInfo]:
        """Every run, the first one first."""
        return [RunInfo(*row) for row in self.rows(f"SELECT {_RUN} FROM runs ORDER BY number")]  # noqa: S608  ours

    def samples(self) -> Iterator[Sample]:
        """The states of all runs, in order."""
        yield from (Sample(*row) for row in self.rows("SELECT * FROM samples ORDER BY rowid"))

    def rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Read rows of a table.

        :raises JournalError: it could not be read.
        """
        try:
            with as_sqlite_errors():
                yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise JournalError(str(self.path), error, "read") from error

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        return next(self.rows(sql, *values), None)

    def copy_to(self, other: Journal) -> None:
        """Make another journal say what this one says."""
        try:
            self._db.backup(other._db)
        except sqlite3.Error as error:
            raise JournalError(str(self.path), error) from error

    # What is written

    def say(self, **about: Any) -> None:
        """Note something about the job as a whole."""
        with self.transaction() as db:
            for name, value in about.items():
                db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, msgspec.json.encode(value).decode()))

    def take_over_crash(self) -> int:
        """Close the runs that nobody closed, and count what they had in flight; returns how many rows that was.

        Only for whoever has the output's lock: else they may be running.
        """
        with self.transaction() as db:
            flying = db.execute("SELECT key, run FROM flight").fetchall()
            for key, run in flying:
                db.execute("INSERT INTO crashes VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (key,))
                db.execute("UPDATE runs SET lost = lost + 1 WHERE number = ?", (run,))
            db.execute("DELETE FROM flight")
            db.execute("UPDATE runs SET ended = ?, how = 'killed' WHERE ended IS NULL", (self._clock(),))
            return len(flying)

    def start(self, rows: int, todo: int) -> None:
        """A run begins."""
        with self.transaction() as db:
            found = db.execute(
                "INSERT INTO runs (pid, host, began, rows, todo) VALUES (?, ?, ?, ?, ?) RETURNING number",
                (os.getpid(), socket.gethostname(), self._clock(), rows, todo),
            ).fetchall()
        self.run = int(found[0][0])
        self._suspects = self._one("SELECT 1 FROM crashes") is not None

    def begin(self, key: str) -> None:
        """A row is about to be asked."""
        with self.transaction() as db:
            db.execute(_BEGIN, (key, self.run, self._clock()))

    def died(self, key: str) -> int:
        """The process that asked for a row died, and the run goes on; returns how often that happened to the row.

        The row stays noted as under way: it is asked again.
        """
        with self.transaction() as db:
            found = db.execute(
                "INSERT INTO crashes VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count", (key,)
            ).fetchall()
            db.execute("UPDATE runs SET lost = lost + 1 WHERE number = ?", (self.run,))
        self._suspects = True
        return int(found[0][0])

    def put_back(self, key: str) -> None:
        """It was not asked after all."""
        with self.transaction() as db:
            db.execute("DELETE FROM flight WHERE key = ?", (key,))

    def finish(
        self,
        key: str,
        line: bytes,
        *,
        type: str,  # noqa: A002
        reason: str | None,
        fingerprint: str | None,
        spent: Spent | None = None,
        failed: bool = False,
        detail: bytes | None = None,
        begin: str | None = None,
        done: bool = True,
    ) -> None:
        """A row ended: its line, once and for all, in the place of an earlier one.

        :param begin: the row that is about to be asked next, noted in the same step.
        :param spent: `None` if it was not this run that asked.
        :param failed: whether it failed for a reason of its own.
        :param done: whether this run is done with the row.
        :raises JournalError: it could not be written.
        """
        values = {"key": key, "run": self.run, "type": type, "reason": reason, "fingerprint": fingerprint}
        with self.transaction() as db:
            db.execute(_FINISH, {**values, "failed": failed, "ended": self._clock(), "line": line, "detail": detail})
            db.execute("DELETE FROM flight WHERE key = ?", (key,))
            if spent is not None:
                if self._suspects:
                    db.execute("DELETE FROM crashes WHERE key = ?", (key,))
                db.execute(_SPEND, (done, spent.attempts, *_sum(spent.tokens), *_sum(spent.cost), self.run))
            if begin is not None:
                db.execute(_BEGIN, (begin, self.run, self._clock()))

    def forgive(self, keys: Iterable[str]) -> None:
        """Forget how often these rows failed or crashed: they get all their chances again."""
        with self.transaction() as db:
            for key in keys:
                db.execute("UPDATE records SET failures = 0 WHERE key = ?", (key,))
                db.execute("DELETE FROM crashes WHERE key = ?", (key,))

    def sample(self, sample: Sample) -> None:
        """Note the state of the run."""
        with self.transaction() as db:
            db.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(sample))

    def thin_samples(self) -> None:
        """Forget every other state of the run, since there are many."""
        with self.transaction() as db:
            db.execute(
                "DELETE FROM samples WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, row_number() OVER"
                " (ORDER BY rowid) AS place FROM samples WHERE run = ?) WHERE place % 2 = 0)",
                (self.run,),
            )

    def end(self, how: How, summary: Mapping[str, Any] | None = None) -> None:
        """The run is over."""
        text = None if summary is None else msgspec.json.encode(summary).decode()
        with self.transaction() as db:
            db.execute(
                "UPDATE runs SET ended = ?, how = ?, summary = ? WHERE number = ?",
                (self._clock(), how, text, self.run),
            )

    def sync(self) -> None:
        """Wait until what was committed is on the disk. May take a while; from any thread, beside the writer.

        :raises JournalError: it did not get there.
        """
        try:
            # A connection of its own: the writer goes on meanwhile.
            with closing(_connect(self.path)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise JournalError(str(self.path), error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One step that is whole or absent.

        :raises JournalError: it could not be written.
        """
        with transaction(self._db, lambda error: JournalError(str(self.path), error)) as db:
            yield db


def _sum(pair: tuple[int | None, int | None]) -> tuple[int, int | None, int]:
    """What is added to a sum: low, high, and one more of what nobody knows."""
    low, high = pair
    return (0, 0, 1) if low is None else (low, high, 0)


def journal_path(out: str) -> Path:
    """Where the journal of an output is."""
    return Path(out + SUFFIX)


def open_journal(out: str, *, clock: Callable[[], float] = time.time) -> Journal:
    """Open the journal of an output for writing, or begin it. Read by its owner only: it holds what models said.

    :raises JobError: it cannot be written, or is something else.
    """
    path = journal_path(out)
    _refuse_strangers(path)
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        # Before SQLite opens it: closing any descriptor of a file drops all locks of a process on it.
        os.close(fd)
    except OSError as mistake:
        raise JobError(
            Problem(file=str(path), problem=f"cannot be written: {mistake.strerror or mistake}")
        ) from mistake
    with _opening(path) as opened:
        db = _connect(path)
        opened.callback(db.close)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        # Moving the log into the file is `sync`'s business, in a thread; here only if it got very long.
        db.execute("PRAGMA wal_autocheckpoint = 16384").fetchall()
        claim(db, FORMAT)
    return Journal(path, db, clock=clock)


@contextmanager
def _opening(path: Path) -> Iterator[ExitStack]:
    """Open a database: what is on the stack is closed if that fails, and stays open if it does not.

    :raises JobError: names the file, for what SQLite refuses and for a file of somebody else's.
    """
    with ExitStack() as opened:
        try:
            with as_sqlite_errors():
                yield opened
        except ForeignFile as error:
            raise _foreign(error, path) from error
        except sqlite3.Error as error:
            raise JobError(Problem(file=str(path), problem=_refusal(error))) from error
        opened.pop_all()


def read_journal(out: str) -> Journal | None:
    """The journal of an output to read only, perhaps while a run writes to it; `None` if there is none (yet).

    :raises JobError: it cannot be read, or is something else.
    """
    path = journal_path(out)
    if not _refuse_strangers(path):
        return None
    with _opening(path) as opened:
        try:
            db = open_to_read(path, BUSY)
        except OSError as mistake:
            raise JobError(_unreadable(path, mistake)) from mistake
        opened.callback(db.close)
        begun = db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
        if begun:
            check_owner(db, FORMAT)
    if not begun:
        db.close()
        return None
    return Journal(path, db)


def copied_journal(out: str, folder: str) -> Journal:
    """A copy of an output's journal in a folder, to look at and to play with; empty, if there is none."""
    copy = open_journal(str(Path(folder) / "copy"))
    real = read_journal(out)
    if real is not None:
        with real:
            real.copy_to(copy)
    return copy


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _refuse_strangers(path: Path) -> bool:
    """Check the path without opening the file; returns whether there is one."""
    try:
        if path.is_symlink():
            raise JobError(Problem(file=str(path), problem="is a symbolic link; a journal is a file of its own"))
        return check_path(path)
    except ForeignFile as error:
        raise _foreign(error, path) from error
    except OSError as mistake:
        raise JobError(_unreadable(path, mistake)) from mistake


def _unreadable(path: Path, mistake: OSError) -> Problem:
    return Problem(file=str(path), problem=f"cannot be read: {(mistake.strerror or str(mistake)).lower()}")


def _foreign(error: ForeignFile, path: Path) -> JobError:
    what = "is no journal of a job; name another --out, or move it away"
    if error.what == "version":
        what = f"a journal of format {error.version}, and this version reads format {VERSION}; name another --out"
    return JobError(Problem(file=str(path), problem=what))


def _refusal(error: sqlite3.Error) -> str:
    if is_no_database(error):
        return "is no journal of a job; name another --out, or move it away"
    return f"cannot be used as a journal: {error}"
