"""The SQLite layer: whose a file is, and transactions that are whole or nothing."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from streamguard.files import sqlite_file
from streamguard.files.sqlite_file import (
    ForeignFile,
    Format,
    check_owner,
    check_path,
    claim,
    copied,
    is_busy,
    is_no_database,
    keep_log,
    open_to_read,
    transaction,
)

OURS = Format(application_id=7, version=2, tables="CREATE TABLE t (x INTEGER) STRICT;\n")


class Wrapped(Exception):
    """What an owner makes of SQLite's errors."""


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def test_a_file_is_claimed_once(tmp_path: Path) -> None:
    """An empty file gets the tables; the next opening finds them."""
    db = opened(tmp_path / "f.db")
    claim(db, OURS)
    with transaction(db, Wrapped):
        db.execute("INSERT INTO t VALUES (1)")
    claim(db, OURS)
    check_owner(db, OURS)
    assert db.execute("SELECT x FROM t").fetchall() == [(1,)]
    db.close()


@pytest.mark.parametrize(
    ("other", "what", "version"),
    [(Format(application_id=8, version=2, tables=""), "something else", 0), (Format(7, 3, ""), "version", 2)],
)
def test_files_of_others(tmp_path: Path, other: Format, what: str, version: int) -> None:
    """Another application's file and another format's are told apart."""
    db = opened(tmp_path / "f.db")
    claim(db, OURS)
    with pytest.raises(ForeignFile) as caught:
        check_owner(db, other)
    db.close()
    assert (caught.value.what, caught.value.version) == (what, version)


def test_a_log_is_made_while_others_have_the_file(tmp_path: Path) -> None:
    """SQLite itself would refuse at once; with nobody's end the refusal is raised."""
    path = tmp_path / "db"
    with closing(opened(path)) as other, closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            keep_log(db, 0.0)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                other.execute("COMMIT")

        keep_log(db, 60.0, pause)
        assert len(pauses) == 3
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_paths(tmp_path: Path) -> None:
    """A folder and a short file are no databases; no file is no mistake."""
    (tmp_path / "short").write_text("x")
    assert check_path(tmp_path / "none") is False
    for name, what in ((".", "not regular"), ("short", "no database")):
        with pytest.raises(ForeignFile) as caught:
            check_path(tmp_path / name)
        assert caught.value.what == what


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    """SQLite's error comes out as the owner's, and what was done before it is undone."""
    db = opened(tmp_path / "f.db")
    claim(db, OURS)
    with pytest.raises(Wrapped), transaction(db, Wrapped):
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO nowhere VALUES (1)")
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
    db.close()


def test_why_a_file_cannot_be_used(tmp_path: Path) -> None:
    """A locked file is busy, and a text is no database."""
    one, other = opened(tmp_path / "f.db"), opened(tmp_path / "f.db")
    claim(one, OURS)
    one.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.Error) as locked:
        other.execute("BEGIN IMMEDIATE")
    (tmp_path / "text").write_text("text " * 1000)
    strange = opened(tmp_path / "text")
    with pytest.raises(sqlite3.Error) as foreign:
        strange.execute("SELECT 1 FROM sqlite_master")
    for db in (one, other, strange):
        db.close()
    assert (is_busy(locked.value), is_no_database(locked.value)) == (True, False)
    assert (is_busy(foreign.value), is_no_database(foreign.value)) == (False, True)


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A file whose last transaction stands in its log alone, as a killed process leaves it."""
    made = tmp_path / "made.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE t (x)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("INSERT INTO t VALUES (7)")
        (tmp_path / "left.db").write_bytes(made.read_bytes())
        (tmp_path / "left.db-wal").write_bytes((tmp_path / "made.db-wal").read_bytes())
    return tmp_path / "left.db"


@pytest.mark.parametrize("writable", [True, False])
def test_reading_takes_the_log_in(logged: Path, writable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place where that can be written, else in a copy; where it cannot, nothing beside the file is touched."""
    monkeypatch.setattr(sqlite_file, "is_writable", lambda path: writable)
    before = {path.name: path.read_bytes() for path in logged.parent.iterdir()}
    with closing(open_to_read(logged, 1.0)) as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("INSERT INTO t VALUES (8)")
    after = {path.name: path.read_bytes() for path in logged.parent.iterdir()}
    assert writable or after == before


def test_a_file_that_changes_while_it_is_copied_is_copied_again(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else half of a transaction could be in the copy."""
    copies: list[str] = []
    real = shutil.copyfile

    def copyfile(source: Path, to: Path) -> None:
        copies.append(Path(source).name)
        real(source, to)
        if len(copies) == 1:
            logged.write_bytes(logged.read_bytes() + b"\0" * 4096)

    monkeypatch.setattr(sqlite_file.shutil, "copyfile", copyfile)
    with copied(logged) as copy:
        assert copy.read_bytes() == logged.read_bytes()
    assert copies == ["left.db", "left.db-wal"] * 2
    assert not copy.exists()
