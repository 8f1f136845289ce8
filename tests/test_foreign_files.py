"""Journals and ledgers that somebody else made: a typed error within a moment, whatever is in them."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from streamguard.budgets.ledger import LedgerError, LedgerLost
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.stores.sqlite import FORMAT as LEDGER
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.files.sqlite_file import Format
from streamguard.jobs.store.journal import FORMAT as JOURNAL
from streamguard.jobs.store.journal import open_journal
from tests.cli.commands.test_run import command

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
VIEW = f"""
DROP TABLE records; CREATE VIEW records AS {ENDLESS} i AS seq, 'k' || i AS key, 1 AS run, 'errored' AS type,
'x' AS reason, NULL AS fingerprint, 0 AS failures, 0.0 AS began, 0.0 AS ended, x'7b7d' AS line, NULL AS detail FROM n
"""


def marked(path: Path, kind: Format, sql: str) -> None:
    """A file of ours with something else in it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(kind.tables)
        db.execute(f"PRAGMA application_id = {kind.application_id}")
        db.execute(f"PRAGMA user_version = {kind.version}")
        db.executescript(sql)


OTHER_TABLES = {
    "a view instead of a table": VIEW,
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON about BEGIN DELETE FROM records; END",
    "a generated column": "DROP TABLE about; CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT AS (name || name))",
    "another table": "CREATE TABLE more (a)",
    "no table": "DROP TABLE records",
    "an index of an expression": "CREATE INDEX i ON records (length(line))",
}
COMMANDS = (("status", "out.jsonl"), ("report", "out.jsonl", "--html", "r.html"), ("retry", "out.jsonl"))


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[0])
@pytest.mark.parametrize("name", OTHER_TABLES)
def test_a_journal_of_other_tables_is_somebody_elses(
    name: str, line: tuple[str, ...], tmp_path, monkeypatch, capfd
) -> None:
    """Nothing of it is run or read: exit code 2, at once."""
    monkeypatch.chdir(tmp_path)
    marked(tmp_path / "out.jsonl.journal", JOURNAL, OTHER_TABLES[name])
    (tmp_path / "out.jsonl").touch()
    began = time.thread_time()
    code, _, err = command(capfd, *line)
    assert (code, "no journal of a job" in err, "unexpected" in err) == (2, True, False)
    assert time.thread_time() - began < 5


RECORD = "INSERT INTO records VALUES (1, 'k', 1, 'errored', 'x', NULL, 0, 0, 0, {line}, {detail})"
RUN = "INSERT INTO runs (number, pid, host, began, rows, todo) VALUES (1, 1, 'h', 0, 1, 1);"
OTHER_VALUES = {
    "about is no JSON": "INSERT INTO about VALUES ('spec', '{broken')",
    "about is deep": "INSERT INTO about VALUES ('spec', '" + "[" * 100_000 + "]" * 100_000 + "')",
    "about is something else": "INSERT INTO about VALUES ('spec', '[1]')",
    "a spec of other fields": 'INSERT INTO about VALUES (\'spec\', \'{"rules": 5, "budgets": [1], "sample": 3}\')',
    "options of other types": "INSERT INTO about VALUES ('options', '{\"concurrency\": \"x\"}')",
    "a line that is no JSON": RUN + RECORD.format(line="x'00ff'", detail="NULL"),
    "a line of something else": RUN + RECORD.format(line="CAST('[]' AS BLOB)", detail="NULL"),
    "a detail that is none": RUN
    + RECORD.format(line='CAST(\'{"custom_id": "k", "result": {}}\' AS BLOB)', detail="x'7b'"),
    "a huge line": RUN + RECORD.format(line="zeroblob(300000000)", detail="NULL"),
    "times that are none": RUN + "UPDATE runs SET began = 1e308, ended = -1e308",
}


@pytest.mark.parametrize(
    "line", [*COMMANDS, ("status", "out.jsonl", "--show-row", "k")], ids=lambda line: " ".join(line)
)
@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_journal_of_other_values_is_a_typed_error(
    name: str, line: tuple[str, ...], tmp_path, monkeypatch, capfd
) -> None:
    """Whatever stands in the tables: what can be said is said, the rest is named with its file; never a bare traceback."""
    monkeypatch.chdir(tmp_path)
    open_journal("out.jsonl").close()
    (tmp_path / "out.jsonl").touch()
    with closing(sqlite3.connect(tmp_path / "out.jsonl.journal")) as db:
        db.executescript(OTHER_VALUES[name])
    code, _, err = command(capfd, *line)
    assert code in (0, 2) or (code == 1 and "cannot be read" in err)
    assert code == 0 or "out.jsonl" in err
    assert "unexpected" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "sql",
    [
        f"DROP TABLE scopes; CREATE VIEW scopes AS {ENDLESS} i AS id, 'k' AS key, 'tokens' AS unit, 1 AS cap FROM n",
        "DROP TRIGGER entries_stay",
        "CREATE TRIGGER t AFTER INSERT ON holds BEGIN UPDATE scopes SET cap = 9e15; END",
        "CREATE VIEW more AS SELECT 1",
    ],
)
def test_a_ledger_of_other_tables_is_no_ledger(sql: str, tmp_path: Path) -> None:
    """A view, a trigger that raises the cap, one that is missing: refused before anything is counted."""
    marked(tmp_path / "l.db", LEDGER, sql)
    with pytest.raises(LedgerError, match=r"no ledger|something else|not a ledger"):
        open_ledger(f"sqlite:{tmp_path / 'l.db'}")


def broken(data: bytes, chance: random.Random) -> tuple[bytes, bytes | None]:
    """A file with broken bytes, a broken page, or cut; and what stands beside it as its log."""
    page = 4096 * chance.randrange(len(data) // 4096)
    match chance.randrange(5):
        case 0:
            changed = bytearray(data)
            for _ in range(chance.choice((1, 5, 50))):
                changed[chance.randrange(100 if chance.random() < 0.3 else len(data))] = chance.randrange(256)
            return bytes(changed), None
        case 1:
            return data[: chance.randrange(len(data))], None
        case 2:
            return data[:page] + chance.randbytes(4096) + data[page + 4096 :], None
        case 3:
            return data, chance.randbytes(chance.choice((10, 32, 5000)))
        case _:
            # The first bytes of a log, and nothing of one behind them.
            return data, b"\x37\x7f\x06\x82" + chance.randbytes(20_000)


JOB = Scope(key="job", unit="micro_usd", cap=1_000_000)


def used(path: Path) -> None:
    """Do everything with a ledger that anybody does."""
    store = SqliteStore(path)
    try:
        store.configure([JOB])
        store.reserve("another", {"job": 5}, 60)
        store.settle("open", {"job": Settlement(1, 1)})
        store.heartbeat("another", 60)
        for verb in (store.scopes, store.sweep, store.rebuild, lambda: store.balance("job")):
            verb()
        store.uncertain("job")
    finally:
        store.close()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger with calls that run and calls that have ended."""
    path = tmp_path_factory.mktemp("ledger") / "l.db"
    store = SqliteStore(path)
    store.configure([JOB])
    for number in range(40):
        store.reserve(f"hold {number}" if number else "open", {"job": 100}, 60)
        if number % 2:
            store.settle(f"hold {number}", {"job": Settlement(50, 2)})
    store.close()
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_a_broken_ledger_is_a_typed_error(seed: int, ledger: bytes, tmp_path: Path) -> None:
    """Broken bytes, pages and logs, files that end: what can be used is used, the rest is named; never anything else."""
    data, log = broken(ledger, random.Random(seed))
    (tmp_path / "l.db").write_bytes(data)
    if log is not None:
        (tmp_path / "l.db-wal").write_bytes(log)
    began = time.thread_time()
    with contextlib.suppress(LedgerError, LedgerLost):
        used(tmp_path / "l.db")
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("column", ["amount", "uncertain"])
def test_a_number_without_room_is_a_typed_error(column: str, ledger: bytes, tmp_path: Path) -> None:
    """The smallest number that SQLite has cannot be taken from anything."""
    (tmp_path / "l.db").write_bytes(ledger)
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        db.execute(f"UPDATE holds SET {column} = -9223372036854775808")
        db.commit()
    with pytest.raises(LedgerLost, match="broken"):
        used(tmp_path / "l.db")


def test_a_name_that_is_no_text_is_a_typed_error(ledger: bytes, tmp_path: Path) -> None:
    """What SQLite quotes of a broken schema need not be UTF-8."""
    found = []
    for at in range(ledger.index(b"CREATE TABLE"), ledger.index(b"CREATE TABLE") + 200, 7):
        (tmp_path / "l.db").write_bytes(ledger[:at] + b"\x8e" + ledger[at + 1 :])
        with pytest.raises((LedgerError, LedgerLost)) as caught:
            used(tmp_path / "l.db")
        found.append(str(caught.value))
    assert all("l.db" in said for said in found)


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[0])
@pytest.mark.parametrize("seed", range(12))
def test_a_broken_journal_is_a_typed_error(seed: int, line: tuple[str, ...], tmp_path, monkeypatch, capfd) -> None:
    """The same of a job's journal, by every command that reads one."""
    monkeypatch.chdir(tmp_path)
    open_journal("out.jsonl").close()
    (tmp_path / "out.jsonl").touch()
    journal = tmp_path / "out.jsonl.journal"
    data, log = broken(journal.read_bytes(), random.Random(seed))
    journal.write_bytes(data)
    if log is not None:
        journal.with_name(journal.name + "-wal").write_bytes(log)
    code, _, err = command(capfd, *line)
    assert code in (0, 1, 2)
    assert code == 0 or "out.jsonl" in err
    assert "unexpected" not in err
    assert "Traceback" not in err


def test_our_own_files_are_ours(tmp_path: Path) -> None:
    """With what SQLite itself may add."""
    address = f"sqlite:{tmp_path / 'l.db'}"

    def analysed(open_: Callable[[], object], path: Path) -> None:
        open_()
        with closing(sqlite3.connect(path)) as db:
            db.executescript("ANALYZE; VACUUM;")
        open_()

    analysed(lambda: open_journal(str(tmp_path / "out.jsonl")).close(), tmp_path / "out.jsonl.journal")
    analysed(lambda: open_ledger(address), tmp_path / "l.db")
