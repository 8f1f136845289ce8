"""A SQLite file of this package: whose it is, which format it has, and its transactions. The one SQLite layer.

In charge of telling our files from others before anything is written. It does not know what the tables mean, and its
errors say what is wrong in a word, which each owner puts into a sentence of its own.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

SMALLEST = 512
"""Bytes of the smallest SQLite database. SQLite takes a shorter file for empty and writes over it."""


BETWEEN_TRIES = 0.01
"""Seconds between two tries of what SQLite does not wait for."""

COPIES = 5
"""Times that a file is copied which changes meanwhile."""

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""The largest text or blob that is read: an answer of the longest kind is a hundredth of that."""

Foreign = Literal["not regular", "no database", "something else", "version"]
"""What a file is instead of ours."""


class Format(msgspec.Struct, frozen=True):
    """What one kind of file is made of."""

    application_id: int
    """SQLite's own mark of an application's files (`PRAGMA application_id`)."""
    version: int
    """The format of the tables (`PRAGMA user_version`)."""
    tables: str
    """The statements that make the tables, each ended by a semicolon and a newline."""
    optional: str = ""
    """The same for tables that are made when they are first needed."""


class ForeignFile(Exception):
    """A file that is not ours."""

    def __init__(self, what: Foreign, version: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.version = version
        """The format found, where `what` is `version`."""


def check_path(path: Path) -> bool:
    """Look at a path without opening the file.

    Never open and close the file beside SQLite: closing *any* descriptor of a file drops all of the process's locks on
    the file (sqlite.org, "How To Corrupt An SQLite Database File", 2.2).

    :returns: whether there is a file.
    :raises ForeignFile: it is no regular file, or too short for a database.
    :raises OSError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFile("not regular")
    if 0 < status.st_size < SMALLEST:
        raise ForeignFile("no database")
    return True


def is_writable(path: Path) -> bool:
    """Whether SQLite could write this file: it makes its log beside it, so the folder counts, too."""
    real = path.resolve()
    return os.access(real, os.W_OK) and os.access(real.parent, os.W_OK)


def open_to_read(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a file for queries only, wherever it lies: also in a folder that cannot be written, or on a read-only disk.

    :param timeout: seconds to wait for others.
    :raises sqlite3.Error: it cannot be opened.
    :raises OSError: it may not be read, or it cannot be copied, which is tried last.
    """
    if not os.access(path, os.R_OK):  # SQLite would not say why
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if is_writable(path):
        # Only a writer can take in the log that a killed process left.
        return _opened(path, "mode=rw", timeout)
    if _index_of(path).exists():
        # Perhaps somebody writes. Without the index SQLite would make one, which others could not write to.
        with suppress(sqlite3.OperationalError):
            return _opened(path, "mode=ro", timeout)
    if not _has_log(path):
        return _opened(path, "mode=ro&immutable=1", timeout)
    with copied(path) as copy:
        with closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
        return _opened(copy, "mode=ro&immutable=1", timeout)


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Yield a copy of a file that cannot be written, with what stands in its log; it is gone after the block.

    :raises OSError: it cannot be read, or there is no room.
    """
    with tempfile.TemporaryDirectory(prefix="streamguard-") as folder:
        copy = Path(folder) / path.name
        for _ in range(COPIES):
            before = _states(path)
            shutil.copyfile(path, copy)
            with suppress(FileNotFoundError):
                shutil.copyfile(_log_of(path), _log_of(copy))
            if _states(path) == before:
                break
        yield copy


def _opened(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=timeout, isolation_level=None)
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def _has_log(path: Path) -> bool:
    """Whether something stands in the log that is not in the file yet."""
    try:
        return _log_of(path).stat().st_size > 0
    except OSError:
        return False


def _states(path: Path) -> list[tuple[int, int] | None]:
    """What would differ if somebody wrote meanwhile."""
    found: list[tuple[int, int] | None] = []
    for one in (path, _log_of(path)):
        try:
            status = one.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return found


def keep_log(db: sqlite3.Connection, timeout: float, pause: Callable[[float], None] = time.sleep) -> None:
    """Give a file a write-ahead log, also where others do the same at this moment.

    SQLite does not wait for others in this one place: two processes would hold a lock that the other wants. So this
    tries again.

    :param timeout: seconds to wait for others.
    :param pause: sleeps between two tries.
    :raises sqlite3.OperationalError: others still have the file, or it cannot be written.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= until:
                raise
            pause(BETWEEN_TRIES)
        else:
            return


def claim(db: sqlite3.Connection, kind: Format) -> None:
    """Make the tables in an empty file, or check that the file is of this kind.

    :raises ForeignFile: it is of another kind or format.
    """
    db.execute("BEGIN IMMEDIATE")
    if db.execute("SELECT 1 FROM sqlite_master").fetchone():
        check_owner(db, kind)
    else:
        for statement in kind.tables.strip().split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {kind.application_id}")
        db.execute(f"PRAGMA user_version = {kind.version}")
    db.execute("COMMIT")


def check_owner(db: sqlite3.Connection, kind: Format) -> None:
    """Check whose an open file is.

    :raises ForeignFile: it is of another kind or format.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != kind.application_id:
        raise ForeignFile("something else")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != kind.version:
        raise ForeignFile("version", version)
    # A view may have endless rows, and a trigger may do what it likes: nothing but our own tables is looked at.
    db.execute("PRAGMA trusted_schema = OFF")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    made, always = frozenset(_made_of(db)), _tables_of(kind.tables)
    if not always <= made or not made - always <= _tables_of(kind.optional):
        raise ForeignFile("something else")


def _made_of(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """The tables, indexes, views and triggers of a file; of strangers' no more than ours have."""
    # SQLite's own: indexes of keys have no text, statistics are made by ANALYZE.
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return sorted(db.execute(f"{query} LIMIT 100").fetchall())


@cache
def _tables_of(statements: str) -> frozenset[tuple[str, str, str]]:
    """What `_made_of` finds in a file that these statements made."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(statements)
        return frozenset(_made_of(db))


@contextmanager
def as_sqlite_errors() -> Iterator[None]:
    """Raise what the `sqlite3` module says of a broken file in Python's own errors as an error of its own.

    :raises sqlite3.DatabaseError: a name is no UTF-8, or a number has no room in a column.
    """
    try:
        yield
    except (UnicodeDecodeError, OverflowError) as error:
        raise sqlite3.DatabaseError(f"a name or a number in it is broken: {error}") from error


@contextmanager
def transaction(
    db: sqlite3.Connection, failed: Callable[[sqlite3.Error], Exception], begin: str = "BEGIN IMMEDIATE"
) -> Iterator[sqlite3.Connection]:
    """Commit what the block does, or roll it back.

    :param failed: makes the error to raise of SQLite's.
    """
    try:
        with as_sqlite_errors():
            db.execute(begin)
            yield db
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise failed(error) from error
    finally:
        if db.in_transaction:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file or its folder cannot be written (`SQLITE_READONLY` and its kinds)."""
    return _kind(error) == sqlite3.SQLITE_READONLY


def _kind(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else had the file (`SQLITE_BUSY`, `SQLITE_LOCKED` and their kinds)."""
    return _kind(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_no_database(error: sqlite3.Error) -> bool:
    """Whether the file is no SQLite database at all."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
