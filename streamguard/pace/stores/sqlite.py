"""Shared paces in one SQLite file: for the programs of one machine.

In charge of the file and its transactions. What a step does is `sharing.take_step`'s. A power cut may take the last
steps with it, which the next answers' headers make up for.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from streamguard.files.sqlite_file import ForeignFile, Format, check_path, claim, keep_log, transaction
from streamguard.pace.reports import Report
from streamguard.pace.sharing import Ask, SharedState, Step, take_step
from streamguard.pace.state import Knobs
from streamguard.pace.stores.base import PaceError, PaceLost, T

FORMAT: Final = Format(
    application_id=0x53675061,  # `SgPa`
    version=1,
    tables="CREATE TABLE paces (key TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;\n",
)

BUSY: Final = 0.25
"""Seconds to wait for another program's step; one takes some 50 µs."""

_decode: Final = msgspec.msgpack.Decoder(SharedState).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def decoded(blob: bytes | None) -> SharedState:
    """Return a state that a store kept; a fresh one for none, and for one that nobody of this version wrote."""
    if blob is not None:
        with suppress(msgspec.MsgspecError):
            return _decode(blob)
    return SharedState()


class SqlitePaceStore:
    """See `PaceStore`.

    :param clock: seconds since 1970; of one machine, hence the same for all.
    :raises PaceError: the file is something else, or cannot be opened.
    """

    blocks = True

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        try:
            check_path(path)
            self._db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            keep_log(self._db, BUSY)
            self._db.execute("PRAGMA synchronous = OFF")
            claim(self._db, FORMAT)
        except ForeignFile as error:
            raise PaceError(f"pace.shared: {path} is no file of paces; name another one") from error
        except (OSError, sqlite3.Error) as error:
            raise PaceError(f"pace.shared: {path} cannot be opened: {error}") from error

    def step(
        self,
        key: str,
        knobs: Knobs,
        *,
        program: str,
        heard_at: float,
        reports: Sequence[Report],
        ask: Ask | None,
    ) -> Step:
        """See `PaceStore.step`."""
        how = {"program": program, "heard_at": heard_at, "reports": reports, "ask": ask}
        return self.change(key, lambda state, now: take_step(state, knobs, now, **how))  # type: ignore[arg-type]

    def change(self, key: str, verb: Callable[[SharedState, float], T]) -> T:
        """See `PaceStore.change`."""
        with self._lock, transaction(self._db, self._lost) as db:
            row = db.execute("SELECT state FROM paces WHERE key = ?", (key,)).fetchone()
            state = decoded(None if row is None else row[0])
            found = verb(state, self._clock())
            db.execute("INSERT OR REPLACE INTO paces VALUES (?, ?)", (key, _encode(state)))
        return found

    def _lost(self, error: sqlite3.Error) -> PaceLost:
        return PaceLost(f"{self._path}: {error}")

    def close(self) -> None:
        """See `PaceStore.close`."""
        with suppress(sqlite3.Error):
            self._db.close()
