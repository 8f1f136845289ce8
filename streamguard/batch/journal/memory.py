"""A row journal in memory: the model of the others, and what tests use. It ends with its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from streamguard.batch.journal.contract import Answer, Ask, Busy, Done, Failure, Mine, Other, Result


class Row(msgspec.Struct):
    """What is known of a row."""

    fingerprint: str
    owner: str | None = None
    deaths: int = 0
    line: bytes | None = None
    reason: str | None = None


class MemoryJournal:
    """Rows in a dictionary.

    :param clock: seconds.
    """

    blocks = False
    caveats: Sequence[str] = ()

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: dict[str, Row] = {}
        self.owners: dict[str, float] = {}
        """Until when each owner's lease is good."""
        self._clock = clock
        self._lock = threading.Lock()

    def claim(self, asks: Sequence[Ask], owner: str, lease: float) -> list[Answer]:
        with self._lock:
            self.owners[owner] = self._clock() + lease
            return [self._claim(ask, owner) for ask in asks]

    def _claim(self, ask: Ask, owner: str) -> Answer:
        row = self.rows.get(ask.key)
        if row is None:
            self.rows[ask.key] = Row(ask.fingerprint, owner)
            return Mine(0)
        same = row.fingerprint == ask.fingerprint
        if row.line is not None:
            if same:
                return Done(row.line)
            if row.reason is None:
                return Other(row.fingerprint)
            self.rows[ask.key] = Row(ask.fingerprint, owner)
            return Mine(0)
        died = 0
        if row.owner is not None and row.owner != owner:
            left = self.owners.get(row.owner, 0.0) - self._clock()
            if left > 0:
                return Busy(left)
            died = 1
        row.deaths = row.deaths + died if same else 0
        row.owner, row.fingerprint = owner, ask.fingerprint
        return Mine(row.deaths)

    def finish(self, results: Sequence[Result]) -> list[Done | Other]:
        with self._lock:
            return [self._finish(result) for result in results]

    def _finish(self, result: Result) -> Done | Other:
        row = self.rows.setdefault(result.key, Row(result.fingerprint))
        if row.fingerprint != result.fingerprint:
            return Other(row.fingerprint)
        if row.line is None:
            row.line, row.reason, row.owner = result.line, result.reason, None
        return Done(row.line)

    def put_back(self, keys: Sequence[str], owner: str) -> None:
        with self._lock:
            for key in keys:
                row = self.rows.get(key)
                if row is not None and row.owner == owner:
                    row.owner = None

    def beat(self, owner: str, lease: float) -> None:
        with self._lock:
            self.owners[owner] = self._clock() + lease

    def leave(self, owner: str) -> None:
        with self._lock:
            self.owners.pop(owner, None)

    def failures(self) -> Iterator[Failure]:
        with self._lock:
            found = [
                Failure(key, row.reason, row.line)
                for key, row in sorted(self.rows.items())
                if row.line is not None and row.reason is not None
            ]
        yield from found

    def forget(self, keys: Sequence[str] | None = None) -> int:
        with self._lock:
            found = [key for key, row in self.rows.items() if row.line is not None and row.reason is not None]
            wanted = found if keys is None else [key for key in dict.fromkeys(keys) if key in set(found)]
            for key in wanted:
                del self.rows[key]
            return len(wanted)

    def close(self) -> None:
        """Nothing to close."""
