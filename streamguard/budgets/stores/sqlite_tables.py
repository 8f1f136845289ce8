"""The SQLite ledger's tables and statements."""

from __future__ import annotations

from streamguard.files.sqlite_file import Format

APPLICATION_ID = 0x53674C64
"""`SgLd`: tells our files from anybody else's."""

VERSION = 2
"""Of the schema."""

HELD, SWEPT, CLOSED, RECONCILED = 0, 1, 2, 3

SCHEMA = """
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, unit TEXT NOT NULL, cap INTEGER NOT NULL,
    span TEXT, release_after REAL
) STRICT;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, what TEXT NOT NULL, hold TEXT NOT NULL, scope INTEGER NOT NULL,
    window TEXT NOT NULL, settled INTEGER NOT NULL, held INTEGER NOT NULL, uncertain INTEGER NOT NULL
) STRICT;
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TABLE caps (scope INTEGER PRIMARY KEY, cap INTEGER NOT NULL) STRICT;
CREATE TABLE counters (
    scope INTEGER NOT NULL, window TEXT NOT NULL, settled INTEGER NOT NULL, held INTEGER NOT NULL,
    uncertain INTEGER NOT NULL, PRIMARY KEY (scope, window)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    hold TEXT NOT NULL, scope INTEGER NOT NULL, window TEXT NOT NULL, amount INTEGER NOT NULL,
    uncertain INTEGER NOT NULL, state INTEGER NOT NULL, lease REAL NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (hold, scope)
) STRICT, WITHOUT ROWID;
"""

FORMAT = Format(application_id=APPLICATION_ID, version=VERSION, tables=SCHEMA)

_CAPS = "CREATE TABLE caps (scope INTEGER PRIMARY KEY, cap INTEGER NOT NULL) STRICT"
_KEPT = "CREATE TRIGGER entries_live BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END"

FIRST_FORMAT = Format(
    application_id=APPLICATION_ID, version=1, tables=SCHEMA.replace(f"{_CAPS};\n", "") + f"{_KEPT};\n"
)
"""Of files in which every row stayed, and no cap could be set by hand."""

TO_SECOND = (_CAPS, "DROP TRIGGER entries_live", "PRAGMA user_version = 2")
"""What makes a file of the second format out of one of the first."""

FOLD_AT = 20_000
"""Rows of `entries` that are summed into one per scope and window at once: some 20 ms, and 2 MB of the file."""

READ = """
SELECT s.id, s.unit, min(s.cap, coalesce((SELECT cap FROM caps WHERE scope = s.id), s.cap)), s.span,
       coalesce(c.settled, 0), coalesce(c.held, 0), coalesce(c.uncertain, 0)
FROM scopes s LEFT JOIN counters c ON c.scope = s.id AND c.window = ? WHERE s.key = ?
"""
COUNT = """
INSERT INTO counters (scope, window, settled, held, uncertain) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET settled = settled + excluded.settled, held = held + excluded.held,
                          uncertain = uncertain + excluded.uncertain
"""
ENTER = """
INSERT INTO entries (at, what, hold, scope, window, settled, held, uncertain) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
LAST = "SELECT max(seq) FROM entries"
OPEN = "SELECT scope, window, amount, uncertain, state, key FROM holds JOIN scopes ON id = scope WHERE hold = ?"
SWEEPABLE = """
SELECT hold, scope, window, amount, 0 FROM holds WHERE state = 0 AND lease <= :now UNION ALL
SELECT hold, scope, window, uncertain, 1 FROM holds JOIN scopes ON id = scope
WHERE uncertain > 0 AND release_after IS NOT NULL AND since + release_after <= :now
"""
