"""The plan of a run: every row of the input with its key and place, and which of them are to be asked, in which order.

In charge of keeping this off the heap: it lives in a private SQLite database in a temporary file, which is gone with
the process, so that a job of ten million rows takes no more memory than one of a thousand. It knows no results.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import msgspec

PAGE = 500
"""Rows that are looked at together."""

_SCHEMA = """
CREATE TABLE rows (
    line INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, at INTEGER NOT NULL, length INTEGER NOT NULL,
    checksum INTEGER NOT NULL, fingerprint TEXT, turn INTEGER
) STRICT;
CREATE TABLE alike (content TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
_COLUMNS = "key, line, at, length, checksum, fingerprint"


class Entry(msgspec.Struct, frozen=True):
    """Where a row stands."""

    custom_id: str
    line: int
    """1-based."""
    offset: int
    length: int
    checksum: int
    """Of the line's bytes, to see whether the file changed."""
    fingerprint: str
    """Of the row's request."""


class Plan:
    """The rows of one input, in its order. Closed by `close()`, or as a context manager."""

    def __init__(self) -> None:
        # An empty name is a temporary file of SQLite's own, which has no name and needs no safety.
        self._db = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096", "locking_mode = EXCLUSIVE"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self.count = 0
        """Rows that can be asked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    # Filling

    def line_of(self, key: str) -> int | None:
        """Where a key stands already."""
        row = self._db.execute("SELECT line FROM rows WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def occurrence(self, content: str) -> int:
        """How many rows with this very content there are now, this one included."""
        (count,) = self._db.execute(
            "INSERT INTO alike VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count", (content,)
        ).fetchone()
        return int(count)

    def add(self, key: str, line: int, offset: int, length: int, checksum: int, fingerprint: str | None) -> None:
        """One more row, whose key is new.

        :param fingerprint: `None` for a row that cannot be asked: only its key is taken.
        """
        self._db.execute(
            f"INSERT INTO rows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  names of ours
            (key, line, offset, length, checksum, fingerprint),
        )
        self.count += fingerprint is not None

    # Reading

    def entries(self) -> Iterator[Entry]:
        """Every row that can be asked, in the input's order."""
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[list[Entry]]:
        """The same, some at a time. The plan may be changed between two pages."""
        line = 0
        while page := self._page("fingerprint IS NOT NULL AND line > ?", (line,)):
            yield page
            line = page[-1].line

    def _page(self, where: str, values: tuple[int, ...]) -> list[Entry]:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM rows WHERE {where} ORDER BY line LIMIT {PAGE}",  # noqa: S608  texts of ours
            values,
        )
        return [Entry(*row) for row in found]

    def entry(self, key: str) -> Entry | None:
        """One row that can be asked."""
        line = self.line_of(key)
        found = [] if line is None else self._page("fingerprint IS NOT NULL AND line = ?", (line,))
        return found[0] if found else None

    # Choosing

    def choose(self, turns: Iterable[tuple[int, int | None]]) -> None:
        """Say for some rows, by line, whether and when they are asked: those of turn 0 first; `None` for never."""
        self._db.executemany("UPDATE rows SET turn = ? WHERE line = ?", ((turn, line) for line, turn in turns))

    def keep_first(self, most: int) -> int:
        """Of the chosen rows, keep so many: those that come first. Returns how many were left out."""
        before = self.chosen
        self._db.execute(
            "UPDATE rows SET turn = NULL WHERE turn IS NOT NULL AND line NOT IN "
            "(SELECT line FROM rows WHERE turn IS NOT NULL ORDER BY turn, line LIMIT ?)",
            (most,),
        )
        return before - self.chosen

    def keep_sample(self, most: int, rank: Callable[[str], int]) -> int:
        """Of all rows, keep so many as chosen if they were: those of the lowest rank. Returns how many were left out.

        The sample is one of the input, not of what is left to do: asked for again it is the same one.
        """
        self._db.create_function("sample_rank", 1, rank, deterministic=True)
        before = self.chosen
        self._db.execute(
            "UPDATE rows SET turn = NULL WHERE line NOT IN "
            "(SELECT line FROM rows WHERE fingerprint IS NOT NULL ORDER BY sample_rank(key) LIMIT ?)",
            (most,),
        )
        return before - self.chosen

    @property
    def chosen(self) -> int:
        """Rows that are to be asked."""
        (count,) = self._db.execute("SELECT count(*) FROM rows WHERE turn IS NOT NULL").fetchone()
        return int(count)

    def is_chosen(self, key: str) -> bool:
        """Whether this row is to be asked."""
        return self._db.execute("SELECT 1 FROM rows WHERE key = ? AND turn IS NOT NULL", (key,)).fetchone() is not None

    def todo(self) -> Iterator[tuple[Entry, int]]:
        """The rows to ask with their turns, in order."""
        turns = [turn for (turn,) in self._db.execute("SELECT DISTINCT turn FROM rows WHERE turn IS NOT NULL")]
        for turn in sorted(turns):
            line = 0
            while page := self._page("turn = ? AND line > ?", (turn, line)):
                for entry in page:
                    yield entry, turn
                line = page[-1].line
