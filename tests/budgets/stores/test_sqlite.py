"""The file of the SQLite ledger: which it refuses, what it keeps, how it is lost."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streamguard.budgets.ledger import LedgerError, LedgerLost, Repair
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import sqlite
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.budgets.stores.sqlite_tables import FIRST_FORMAT, VERSION

JOB = Scope(key="job", unit="micro_usd", cap=1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "folder" / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """A ledger with one hold and one settled call."""
    made = SqliteStore(path)
    made.configure([JOB])
    made.reserve("open", {"job": 100}, 60)
    made.reserve("done", {"job": 200}, 60)
    made.settle("done", {"job": Settlement(150, 20)})
    yield made
    made.close()


def raw(path: Path, *statements: str) -> list[list[tuple[object, ...]]]:
    """What others do to the file."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return [db.execute(statement).fetchall() for statement in statements]
    finally:
        db.close()


def test_a_directory_is_no_ledger(tmp_path: Path) -> None:
    """A path that is no file is refused by name."""
    with pytest.raises(LedgerError, match="no regular file"):
        SqliteStore(tmp_path)


def test_a_folder_that_cannot_be_is_no_place(tmp_path: Path) -> None:
    """A file where a folder should be is said to be the trouble."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError, match="cannot be used as a ledger"):
        SqliteStore(tmp_path / "file" / "ledger.db")


@pytest.mark.parametrize("content", [b"hello, I am a text of more than some bytes" * 50, b"x", b"\x00" * 4096])
def test_other_files_are_refused_and_left_as_they_are(path: Path, content: bytes) -> None:
    """A path given by mistake loses nothing."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.db: "):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_other_databases_are_refused(path: Path) -> None:
    """A database of something else gets no tables of ours."""
    path.parent.mkdir()
    raw(path, "CREATE TABLE theirs (x)")
    with pytest.raises(LedgerError, match="a database of something else"):
        SqliteStore(path)
    assert raw(path, "SELECT name FROM sqlite_master") == [[("theirs",)]]


def test_other_formats_are_refused(store: SqliteStore, path: Path) -> None:
    """A ledger of a later version is not written to by this one."""
    raw(path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(LedgerError, match=f"format {VERSION + 1}, and this version reads format {VERSION}"):
        SqliteStore(path)


def test_a_corrupt_file_is_refused(path: Path) -> None:
    """A file with damaged pages is found when it is opened."""
    store = SqliteStore(path)
    store.configure([Scope(key=f"scope{index}", unit="tokens", cap=1) for index in range(500)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"corrupt|malformed"):
        SqliteStore(path)


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    """A file somebody touched is as good as none."""
    path.parent.mkdir()
    path.touch()
    store = SqliteStore(path)
    store.configure([JOB])
    assert store.balance("job").cap == 1000
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_only_its_owner_reads_it(store: SqliteStore, path: Path) -> None:
    """Scope names may be secrets: the file and its log are private."""
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_rows_are_never_changed(store: SqliteStore, path: Path) -> None:
    """Not even by hand."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw(path, "UPDATE entries SET settled = 0")
    [rows] = raw(path, "SELECT what, hold, settled, held, uncertain FROM entries ORDER BY seq")
    assert rows == [
        ("reserve", "open", 0, 100, 0),
        ("reserve", "done", 0, 200, 0),
        ("settle", "done", 150, -200, 20),
    ]


def test_rebuilding_repairs_the_counters(store: SqliteStore, path: Path) -> None:
    """Counters that were tampered with, or lost, are summed up again, and the repair says what was wrong."""
    raw(path, "UPDATE counters SET settled = 7, held = 0")
    assert store.rebuild() == [Repair(scope="job", window="", was=(7, 0, 20), now=(150, 100, 20))]
    raw(path, "DELETE FROM counters")
    assert store.rebuild() == [Repair(scope="job", window="", was=(0, 0, 0), now=(150, 100, 20))]
    assert store.rebuild() == []


def test_what_is_finished_leaves_no_hold_behind(store: SqliteStore, path: Path) -> None:
    """Only open and uncertain holds are kept beside the rows."""
    assert raw(path, "SELECT hold, uncertain FROM holds ORDER BY hold") == [[("done", 20), ("open", 0)]]
    store.reconcile_hold("done", {"job": 0})
    store.settle("open", {"job": Settlement(1)})
    assert raw(path, "SELECT count(*) FROM holds", "SELECT count(*) FROM entries") == [[(0,)], [(5,)]]


@pytest.mark.parametrize("replace", [False, True])
def test_a_removed_or_replaced_file_is_a_lost_ledger(store: SqliteStore, path: Path, replace: bool) -> None:
    """A new file is a new, unspent budget: whoever had the old one open must not go on."""
    for file in path.parent.iterdir():
        file.unlink()
    if replace:
        other = SqliteStore(path)
        other.configure([JOB])
        other.close()
    with pytest.raises(LedgerLost, match=r"removed or replaced|No such file"):
        store.reserve("next", {"job": 1}, 60)


def test_an_older_state_that_is_put_back_is_a_lost_ledger(path: Path) -> None:
    """A copy over the open file: who knows of later rows stops; who opens it now cannot know."""
    before = SqliteStore(path)
    before.configure([JOB])
    before.close()
    old = path.read_bytes()
    store = SqliteStore(path)
    store.reserve("a", {"job": 1}, 60)
    raw(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(old)
        file.truncate()
    with pytest.raises(LedgerLost, match="older state"):
        store.reserve("b", {"job": 1}, 60)
    assert SqliteStore(path).reserve("b", {"job": 1}, 60) is None


def test_a_transaction_that_failed_is_no_later_state(store: SqliteStore) -> None:
    """What was rolled back was never there."""
    with pytest.raises(RuntimeError), store._transaction() as db:
        store._enter(db, 0.0, "test", "x", 1, "", held=1)
        raise RuntimeError
    assert store.reserve("after", {"job": 1}, 60) is None


def test_a_file_that_others_lock_is_a_lost_ledger(path: Path) -> None:
    """After waiting its time, a ledger says that it cannot be reached; it does not let the call through."""
    store = SqliteStore(path, busy=0.05)
    store.configure([JOB])
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerLost, match=r"locked by others for 0\.05 s"):
        store.reserve("a", {"job": 1}, 60)
    db.execute("ROLLBACK")
    db.close()
    assert store.reserve("a", {"job": 1}, 60) is None
    store.close()


def test_a_failed_verb_changes_nothing(store: SqliteStore) -> None:
    """A reservation over a known and an unknown scope is rolled back whole, and the store goes on."""
    with pytest.raises(LedgerError):
        store.reserve("x", {"job": 1, "nope": 1}, 60)
    assert store.balance("job").held == 100
    assert store.reserve("y", {"job": 1}, 60) is None


def test_a_fork_gets_a_connection_of_its_own(store: SqliteStore) -> None:
    """A child process never uses its parent's connection, which SQLite forbids."""
    mine = store._connection()
    store._opened = (os.getpid() + 1, *store._opened[1:])  # as it looks in a child
    assert store._connection() is not mine
    assert store.reserve("child", {"job": 1}, 60) is None
    mine.close()


def test_caveats_name_what_the_promise_rests_on(store: SqliteStore, path: Path) -> None:
    """The default says what a power cut may do; `synchronous=full` does not have to."""
    full = SqliteStore.at(f"{path.name}?synchronous=full", base=path.parent)
    assert ["power cut" in caveat for caveat in store.caveats] == [False, True]
    assert [str(path) in caveat for caveat in full.caveats] == [True]
    assert full.balance("job").settled == 150
    full.close()


def test_old_rows_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow with the number of calls, and what it says stays the same."""
    monkeypatch.setattr(sqlite, "FOLD_AT", 40)
    store = SqliteStore(tmp_path / "l.db")
    store.configure([JOB])
    for number in range(200):
        store.reserve(f"h{number}", {JOB.key: 2}, 60)
        store.settle(f"h{number}", {JOB.key: Settlement(1)})
    [[(rows,)]] = raw(tmp_path / "l.db", "SELECT count(*) FROM entries")
    assert rows < 100
    assert store.balance(JOB.key).settled == 200
    assert store.rebuild() == []


def test_a_file_of_the_first_format_is_brought_up(tmp_path: Path) -> None:
    """Its balances stay; a file that only says so is refused."""
    path = tmp_path / "l.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_FORMAT.tables)
        db.execute(f"PRAGMA application_id = {FIRST_FORMAT.application_id}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO scopes (key, unit, cap) VALUES ('k', 'tokens', 5)")
        db.commit()
    store = SqliteStore(path)
    store.set_cap("k", 3)
    assert [scope.cap for scope in store.scopes()] == [3]
    store.close()
    assert SqliteStore(path).balance("k").cap == 3
