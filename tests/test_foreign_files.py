"""Journals and ledgers that somebody else made: a typed error within a moment, whatever is in them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from streamguard.budgets.ledger import LedgerError
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.stores.sqlite import FORMAT as LEDGER
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
