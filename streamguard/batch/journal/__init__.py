"""The stores of row journals, by address."""

from __future__ import annotations

from pathlib import Path

from streamguard.batch.journal.contract import JournalRefused, RowJournal
from streamguard.files.extras import needs

KINDS = "sqlite:PATH, redis://HOST:PORT/DB?journal=NAME or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def open_journal(address: str, job: str) -> RowJournal:
    """Open the row journal at an address, for one job.

    :param address: `sqlite:PATH` (one machine), `redis://…?journal=NAME` or `postgresql://…`.
    :param job: the job's name: rows of two jobs have nothing to do with each other.
    :raises JournalRefused: no such kind of journal, or one that cannot be used.
    :raises JournalLost: the store cannot be reached.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "sqlite":
        from streamguard.batch.journal.sqlite import SqliteJournal

        return SqliteJournal(Path(rest), job)
    if scheme in ("redis", "rediss", "unix"):
        with needs("a row journal in Redis", "redis", JournalRefused):
            from streamguard.batch.journal.redis import RedisJournal
        return RedisJournal.at(address, job)
    if scheme in ("postgresql", "postgres"):
        with needs("a row journal in PostgreSQL", "postgres", JournalRefused):
            from streamguard.batch.journal.postgres import PostgresJournal
        return PostgresJournal(address, job)
    raise JournalRefused(f"unknown kind of row journal {scheme!r}: use {KINDS}")
