"""Balances in one SQLite file: shared by every process of one machine.

In charge of the file: its schema, its one connection per process, transactions, and refusing files that are not ours.
Rows of `entries` are never changed, and summed up when they are old (so their numbers only grow: an older file that is
put back is noticed by whoever knows a later one); `counters` is a cache of their sums; `holds`
has what is still open.

Local disks only: SQLite's locks do not work on network file systems. With `synchronous=NORMAL` (the default) a commit
survives the death of any process; a power cut may take the last moments' commits with it, but never corrupts the file.
`sqlite:PATH?synchronous=full` survives that too, at the price of a disk flush for each commit.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl

from streamguard.budgets.ledger import LATE, Balance, Denied, Doubt, LedgerError, LedgerLost, Repair
from streamguard.budgets.spec import Scope, Settlement, Window
from streamguard.budgets.stores.checks import (
    check_amounts,
    check_same,
    check_scopes,
    check_shares,
    lease_lost,
    unknown_scope,
    window_of,
)
from streamguard.budgets.stores.sqlite_tables import (
    CLOSED,
    COUNT,
    ENTER,
    FIRST_FORMAT,
    FOLD_AT,
    FORMAT,
    HELD,
    LAST,
    OPEN,
    READ,
    RECONCILED,
    SWEEPABLE,
    SWEPT,
    TO_SECOND,
)
from streamguard.files.sqlite_file import (
    ForeignFile,
    as_sqlite_errors,
    check_owner,
    check_path,
    claim,
    is_busy,
    is_no_database,
    is_read_only,
    transaction,
)
from streamguard.usage import Unit

BUSY = 30.0
"""Seconds to wait for other processes' transactions, each of which takes well under a millisecond."""

CHECKED_BYTES = 16 * 1024 * 1024
"""Files up to this size are checked when they are opened (about 0.1 s)."""


class SqliteStore:
    """Balances in a file.

    :param clock: Unix seconds; for windows and leases. One machine has one clock.
    :param busy: seconds to wait for other processes.
    :param full: whether a commit survives a power cut.
    :raises LedgerError: the path is no file, or no ledger of ours, or corrupt.
    :raises LedgerLost: the file cannot be opened, or was locked all the time.
    """

    blocks = True

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, busy: float = BUSY, full: bool = False
    ) -> None:
        self._path, self._clock, self._busy, self._full = path.absolute(), clock, busy, full
        self._lock = threading.Lock()
        self._spans: dict[str, Window | None] = {}
        self._opened: tuple[int, tuple[int, int], sqlite3.Connection] | None = None
        self._closed = False
        self._seen = self._entered = 0
        with self._lock:
            self._connection()

    @classmethod
    def at(cls, address: str, *, base: Path | None = None) -> SqliteStore:
        """The store at `PATH` or `PATH?synchronous=full`.

        :raises LedgerError: an option nobody knows, or a path that is none.
        """
        name, _, query = address.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "normal").lower()
        if options or synchronous not in ("normal", "full"):
            raise LedgerError(f"sqlite:{address}: the only option is synchronous=normal or synchronous=full")
        if not name or name.startswith((":", "file:")):
            raise LedgerError(f"sqlite:{address}: give the path of a file (for a ledger in memory, say memory:)")
        return cls((base or Path()) / name, full=synchronous == "full")

    @property
    def caveats(self) -> Sequence[str]:
        """What its promise rests on."""
        local = f"the ledger {self._path} is on a local disk of the one machine that spends"
        cut = "a power cut can lose the ledger's last moments (synchronous=full would not)"
        return (local,) if self._full else (local, cut)

    def configure(self, scopes: Sequence[Scope]) -> None:
        check_scopes(scopes)
        with self._transaction() as db:
            for scope in scopes:
                for unit, span in db.execute("SELECT unit, span FROM scopes WHERE key = ?", (scope.key,)):
                    check_same(scope, unit, span)
                db.execute(
                    "INSERT INTO scopes (key, unit, cap, span, release_after) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET cap = excluded.cap, release_after = excluded.release_after",
                    (scope.key, scope.unit, scope.cap, scope.window, scope.release_after),
                )

    def set_cap(self, scope: str, cap: int | None) -> None:
        with self._transaction() as db:
            number, unit, *_ = self._read(db, scope, "")
            if cap is None:
                db.execute("DELETE FROM caps WHERE scope = ?", (number,))
            else:
                check_scopes([Scope(key=scope, unit=unit, cap=cap)])
                db.execute("INSERT OR REPLACE INTO caps (scope, cap) VALUES (?, ?)", (number, cap))

    def scopes(self) -> Sequence[Scope]:
        with self._transaction("BEGIN") as db:
            found = db.execute(
                "SELECT key, unit, min(s.cap, coalesce(c.cap, s.cap)), span, release_after FROM scopes s "
                "LEFT JOIN caps c ON c.scope = s.id ORDER BY key"
            ).fetchall()
        return [
            Scope(key=key, unit=unit, cap=cap, window=span, release_after=release)
            for key, unit, cap, span, release in found
        ]

    def reserve(
        self, hold: str, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        check_amounts(amounts)
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM holds WHERE hold = ?", (hold,)).fetchone():
                return None
            now = self._clock()
            places: list[tuple[int, str, int]] = []
            for key, amount in amounts.items():
                window = window_of(self._span(db, key), now)
                scope, unit, cap, _, settled, held, uncertain = self._read(db, key, window)
                cap = min(cap, (caps or {}).get(key, cap))
                free = cap - settled - held - uncertain
                if amount > free:
                    return Denied(
                        scope=key,
                        unit=unit,
                        asked=amount,
                        available=max(0, free),
                        cap=cap,
                        held=held,
                        window=window,
                    )
                places.append((scope, window, amount))
            for scope, window, amount in places:
                db.execute(
                    "INSERT INTO holds VALUES (?, ?, ?, ?, 0, 0, ?, 0.0)", (hold, scope, window, amount, now + lease)
                )
                self._enter(db, now, "reserve", hold, scope, window, held=amount)
            return None

    def heartbeat(self, hold: str, lease: float) -> None:
        with self._transaction() as db:
            until = self._clock() + lease
            states = [state for (state,) in db.execute("SELECT state FROM holds WHERE hold = ?", (hold,))]
            if not states or any(state != HELD for state in states):
                raise lease_lost(hold)
            db.execute("UPDATE holds SET lease = max(lease, ?) WHERE hold = ?", (until, hold))

    def settle(self, hold: str, settlements: Mapping[str, Settlement]) -> bool:
        check_shares(settlements)
        with self._transaction() as db:
            now, done = self._clock(), False
            for scope, window, amount, uncertain, state, key in db.execute(OPEN, (hold,)).fetchall():
                if state == CLOSED:
                    continue
                done = True
                settlement = settlements.get(key, Settlement(0, amount))
                self._enter(
                    db,
                    now,
                    "settle",
                    hold,
                    scope,
                    window,
                    settled=settlement.settled,
                    held=-amount if state == HELD else 0,
                    uncertain=settlement.uncertain - uncertain,
                )
                self._close(db, hold, scope, settlement.uncertain, now)
            return done

    def reconcile_hold(self, hold: str, settled: Mapping[str, int]) -> bool:
        check_amounts(settled)
        with self._transaction() as db:
            rows = db.execute(OPEN, (hold,)).fetchall()
            found = [row for row in rows if row[3] > 0 and row[5] in settled]
            for scope, window, _, uncertain, _, key in found:
                self._clear(db, "reconcile", hold, scope, window, uncertain, settled[key])
            return bool(found)

    def reconcile_scope(self, scope: str, settled: int, window: str | None = None, before: float | None = None) -> bool:
        check_amounts({scope: settled})
        with self._transaction() as db:
            if window is None:
                window = window_of(self._span(db, scope), self._clock())
            number = self._read(db, scope, window)[0]
            found = db.execute(
                "SELECT hold, uncertain FROM holds WHERE scope = ? AND window = ? AND uncertain > 0 AND since < ?",
                (number, window, math.inf if before is None else before),
            ).fetchall()
            for index, (hold, uncertain) in enumerate(found):
                self._clear(db, "reconcile", hold, number, window, uncertain, settled if index == 0 else 0)
            return bool(found)

    def uncertain(self, scope: str, window: str | None = None) -> Sequence[Doubt]:
        with self._transaction("BEGIN") as db:
            if window is None:
                window = window_of(self._span(db, scope), self._clock())
            number = self._read(db, scope, window)[0]
            found = db.execute(
                "SELECT state = ?, count(*), sum(uncertain), min(since) FROM holds "
                "WHERE scope = ? AND window = ? AND uncertain > 0 GROUP BY 1",
                (SWEPT, number, window),
            ).fetchall()
        return [
            Doubt(kind="lost" if swept else "aborted", holds=holds, amount=amount, since=since)
            for swept, holds, amount, since in found
        ]

    def balance(self, scope: str, window: str | None = None) -> Balance:
        with self._transaction("BEGIN") as db:
            if window is None:
                window = window_of(self._span(db, scope), self._clock())
            _, unit, cap, _, settled, held, uncertain = self._read(db, scope, window)
            return Balance(
                scope=scope, unit=unit, cap=cap, settled=settled, held=held, uncertain=uncertain, window=window
            )

    def sweep(self) -> int:
        with self._transaction() as db:
            now = self._clock()
            found = db.execute(SWEEPABLE, {"now": now}).fetchall()
            for hold, scope, window, amount, release in found:
                if release:
                    self._clear(db, "release", hold, scope, window, amount, 0)
                    continue
                self._enter(db, now, "sweep", hold, scope, window, held=-amount, uncertain=amount)
                db.execute(
                    "UPDATE holds SET state = ?, uncertain = amount, since = ? WHERE hold = ? AND scope = ?",
                    (SWEPT, now, hold, scope),
                )
            db.execute("DELETE FROM holds WHERE state = ? AND since + ? <= ?", (RECONCILED, LATE, now))
            self._fold(db, now)
            return len(found)

    def _fold(self, db: sqlite3.Connection, now: float) -> None:
        """Sum the oldest rows up, so that the file does not grow with the number of calls."""
        first, last = db.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM entries").fetchone()
        if last - first < 2 * FOLD_AT:
            return
        until = first + FOLD_AT
        sums = db.execute(
            "SELECT scope, window, sum(settled), sum(held), sum(uncertain) FROM entries "
            "WHERE seq < ? OR what = 'fold' GROUP BY scope, window",
            (until,),
        ).fetchall()
        db.execute("DELETE FROM entries WHERE seq < ? OR what = 'fold'", (until,))
        db.executemany(ENTER, [(now, "fold", "", *row) for row in sums])

    def rebuild(self) -> Sequence[Repair]:
        with self._transaction() as db:
            sums = {
                (scope, window): (settled, held, uncertain)
                for scope, window, settled, held, uncertain in db.execute(
                    "SELECT scope, window, sum(settled), sum(held), sum(uncertain) FROM entries GROUP BY scope, window"
                )
            }
            counted = {
                (scope, window): (settled, held, uncertain)
                for scope, window, settled, held, uncertain in db.execute("SELECT * FROM counters")
            }
            names = dict(db.execute("SELECT id, key FROM scopes"))
            nothing = (0, 0, 0)
            repairs = []
            for place in sorted(sums.keys() | counted.keys()):
                was, now = counted.get(place, nothing), sums.get(place, nothing)
                if was != now:
                    repairs.append(Repair(scope=names[place[0]], window=place[1], was=was, now=now))
                    db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)", (*place, *now))
            return repairs

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[2].close()
            self._opened = None

    def _enter(
        self,
        db: sqlite3.Connection,
        at: float,
        what: str,
        hold: str,
        scope: int,
        window: str,
        *,
        settled: int = 0,
        held: int = 0,
        uncertain: int = 0,
    ) -> None:
        """Append a row and count it."""
        self._entered = db.execute(ENTER, (at, what, hold, scope, window, settled, held, uncertain)).lastrowid or 0
        if self._entered % FOLD_AT == 0:
            self._fold(db, at)
        db.execute(COUNT, (scope, window, settled, held, uncertain))

    def _close(self, db: sqlite3.Connection, hold: str, scope: int, uncertain: int, now: float) -> None:
        """A hold is over in a scope: it is forgotten (its entries stay), unless something is uncertain."""
        if uncertain:
            db.execute(
                "UPDATE holds SET state = ?, uncertain = ?, since = CASE since WHEN 0.0 THEN ? ELSE since END "
                "WHERE hold = ? AND scope = ?",
                (CLOSED, uncertain, now, hold, scope),
            )
        else:
            db.execute("DELETE FROM holds WHERE hold = ? AND scope = ?", (hold, scope))

    def _clear(
        self, db: sqlite3.Connection, what: str, hold: str, scope: int, window: str, uncertain: int, settled: int
    ) -> None:
        """What was uncertain is known now. Who holds it may still be at work, and settle late."""
        now = self._clock()
        self._enter(db, now, what, hold, scope, window, settled=settled, uncertain=-uncertain)
        late = db.execute(
            "UPDATE holds SET state = ?, uncertain = 0, since = ? WHERE hold = ? AND scope = ? AND state = ?",
            (RECONCILED, now, hold, scope, SWEPT),
        )
        if not late.rowcount:
            self._close(db, hold, scope, 0, now)

    def _span(self, db: sqlite3.Connection, key: str) -> Window | None:
        """A scope's window: it never changes, so it is read once."""
        if key not in self._spans:
            row = db.execute("SELECT span FROM scopes WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise unknown_scope(key)
            self._spans[key] = row[0]
        return self._spans[key]

    def _read(
        self, db: sqlite3.Connection, key: str, window: str
    ) -> tuple[int, Unit, int, Window | None, int, int, int]:
        row: tuple[int, Unit, int, Window | None, int, int, int] | None = db.execute(READ, (window, key)).fetchone()
        if row is None:
            raise unknown_scope(key)
        return row

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._entered = 0
            with transaction(self._connection(), self._lost, begin) as db:
                if self._seen > (db.execute(LAST).fetchone()[0] or 0):
                    raise LedgerLost(f"{self._path}: an older state of the ledger was put back")
                yield db
            self._seen = max(self._seen, self._entered)

    def _connection(self) -> sqlite3.Connection:
        """This process's connection. One that came over a fork is left alone: it is the parent's."""
        if self._closed:
            raise LedgerLost(f"{self._path}: the ledger is closed")
        if self._opened is None or self._opened[0] != os.getpid():
            db = self._open()
            self._opened = (os.getpid(), self._identity(), db)
        elif self._opened[1] != self._identity():
            raise LedgerLost(f"{self._path}: the file was removed or replaced, and its balances with it")
        return self._opened[2]

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise LedgerLost(f"{self._path}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _open(self) -> sqlite3.Connection:
        existed = self._refuse_strangers()
        deadline = time.monotonic() + self._busy
        while True:
            db: sqlite3.Connection | None = None
            try:
                db = sqlite3.connect(self._path, timeout=self._busy, isolation_level=None, check_same_thread=False)
                if not existed:
                    # Only its owner may read it: scope names tell who the tenants are. The WAL gets the same mode.
                    self._path.chmod(0o600)
                with as_sqlite_errors():
                    self._prepare(db)
            except sqlite3.Error as error:
                if db is not None:
                    db.close()
                # The switch to WAL and a recovery do not wait for the busy timeout, so it is done here.
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise self._refusal(error) from error
                time.sleep(0.01)
            except BaseException:
                if db is not None:
                    db.close()
                raise
            else:
                return db

    def _refuse_strangers(self) -> bool:
        """Check the path without opening the file; returns whether there is one."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return check_path(self._path)
        except ForeignFile as error:
            raise self._foreign(error) from error
        except OSError as error:
            raise LedgerError(f"{self._path}: cannot be used as a ledger: {error.strerror}") from error

    def _foreign(self, error: ForeignFile) -> LedgerError:
        words = {
            "not regular": "no regular file, so no ledger",
            "no database": "no SQLite database; give the ledger a file of its own",
            "something else": "a database of something else; give the ledger a file of its own",
            "version": f"a ledger of format {error.version}, and this version reads format {FORMAT.version}",
        }
        return LedgerError(f"{self._path}: {words[error.what]}")

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        if self._path.stat().st_size <= CHECKED_BYTES:
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise LedgerError(f"{self._path}: the file is corrupt ({found}); restore it, or move it away")
        try:
            self._bring_up(db)
            claim(db, FORMAT)
        except ForeignFile as error:
            raise self._foreign(error) from error

    def _bring_up(self, db: sqlite3.Connection) -> None:
        """Make a file of the first format one of this format.

        :raises ForeignFile: it says that it is one, and is not.
        """
        db.execute("BEGIN IMMEDIATE")
        first = (FIRST_FORMAT.application_id, FIRST_FORMAT.version)
        if (
            db.execute("PRAGMA application_id").fetchone()[0],
            db.execute("PRAGMA user_version").fetchone()[0],
        ) == first:
            check_owner(db, FIRST_FORMAT)
            for statement in TO_SECOND:
                db.execute(statement)
        db.execute("COMMIT")

    def _refusal(self, error: sqlite3.Error) -> LedgerError | LedgerLost:
        if is_no_database(error):
            return LedgerError(f"{self._path}: no SQLite database; give the ledger a file of its own")
        if is_read_only(error):
            return LedgerError(f"{self._path}: cannot be written: the file, its folder or the disk is read-only")
        if isinstance(error, sqlite3.OperationalError):
            return self._lost(error)
        return LedgerError(f"{self._path}: cannot be used as a ledger: {error}; restore the file, or move it away")

    def _lost(self, error: sqlite3.Error) -> LedgerLost:
        what = f"locked by others for {self._busy:g} s" if is_busy(error) else str(error)
        return LedgerLost(f"{self._path}: {what}")
