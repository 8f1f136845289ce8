"""Which batches a job has, in the job's journal: noted before they are submitted, so that none is submitted twice.

In charge of one table of the journal's file, which is made when the first batch is noted. What the states mean is
`lane`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import msgspec

from streamguard.jobs.store.journal import BATCHES, Journal
from streamguard.jobs.store.journal_records import believed

State = Literal["noted", "sent", "taken", "refused", "gone"]
"""`noted`: about to be submitted, perhaps it was. `sent`: the provider has named it. `taken`: every result is in the
journal. `refused`: the provider took it at no time. `gone`: the provider does not know it any more."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A row in a batch. Its `custom_id` there is the batch's token and its place."""

    key: str
    fingerprint: str
    micro_usd: int | None = None
    """The most that it can cost, at the price of a batch; `None` without a budget of money."""
    tokens: int = 0
    """The most tokens that it can take; 0 without a budget."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the journal has it."""

    token: str
    """Ours: what its rows' ids begin with, and what its holds are called."""
    state: State = "noted"
    id: str | None = None
    """The provider's."""
    members: tuple[Member, ...]
    holds: Mapping[str, Mapping[str, int]]
    """Ledger → scope → what is held, in the scope's unit."""
    noted: float
    """Unix seconds."""
    counts: Mapping[str, int] = {}
    """What the provider last said of its requests."""

    def custom_id(self, place: int) -> str:
        """The id of a row in the batch."""
        return f"{self.token}-{place}"

    def member(self, custom_id: object) -> Member | None:
        """Which row has an id; `None` for an id of no row of this batch."""
        token, _, place = str(custom_id).rpartition("-")
        known = token == self.token and place.isascii() and place.isdigit() and int(place) < len(self.members)
        return self.members[int(place)] if known else None


class BatchLog:
    """The batches of a job.

    :param journal: open for writing, or to read only.
    """

    def __init__(self, journal: Journal, *, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self.clock = clock

    def note(self, batch: Batch) -> None:
        """Note a batch that is about to be submitted."""
        with self._journal.transaction() as db:
            db.execute(BATCHES)
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    batch.token,
                    self._journal.run,
                    batch.state,
                    batch.id,
                    msgspec.json.encode(batch.members),
                    msgspec.json.encode(batch.holds).decode(),
                    batch.noted,
                    msgspec.json.encode(batch.counts).decode(),
                ),
            )

    def change(self, batch: Batch) -> None:
        """Note a batch's state, its name and its counts."""
        with self._journal.transaction() as db:
            db.execute(
                "UPDATE batches SET state = ?, id = ?, counts = ? WHERE token = ?",
                (batch.state, batch.id, msgspec.json.encode(batch.counts).decode(), batch.token),
            )

    def all(self) -> list[Batch]:
        """Every batch, the first one first.

        :raises JobError: the file is damaged.
        """
        if not self._exists:
            return []
        return list(self._read("SELECT token, state, id, members, holds, noted, counts FROM batches ORDER BY noted"))

    def open(self) -> list[Batch]:
        """The batches whose results are still to come."""
        return [batch for batch in self.all() if batch.state in ("noted", "sent")]

    @property
    def _exists(self) -> bool:
        return any(self._journal.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'batches'"))

    def _read(self, sql: str) -> Iterator[Batch]:
        for token, state, name, members, holds, noted, counts in self._journal.rows(sql):
            with believed(str(self._journal.path)):
                yield msgspec.convert(
                    {
                        "token": token,
                        "state": state,
                        "id": name,
                        "members": msgspec.json.decode(members),
                        "holds": msgspec.json.decode(holds),
                        "noted": noted,
                        "counts": msgspec.json.decode(counts),
                    },
                    Batch,
                )
