"""The row journal: which rows of a job have a result, and who asks for the others. The contract of all its stores.

In charge of the promise: one result per row for ever. A row is claimed before its request is sent, and the first result
of a row stays. An owner is a process; its one lease covers all rows that it has claimed. Rows of an owner whose lease
expired are free again, and the death counts against them. Time is the store's: the server's clock.

Life of a row: ``absent → claimed`` by `claim`, then ``→ done`` by `finish`, ``→ free`` by `put_back`, or, when the
lease of its owner ends, ``→ claimed`` by the next owner with one more death.

Each store is bound to one job, has blocking verbs, and is safe to call from several threads. Each verb is atomic per
row, and may be sent twice: the second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from streamguard.errors import ConfigError, StreamguardError


class JournalLost(StreamguardError):
    """The row journal cannot be reached, or no longer holds what it held. Nothing may be sent on its account."""


class JournalEmptied(JournalLost):
    """The row journal was emptied or replaced while it was open: to wait would not help."""


class JournalRefused(ConfigError):
    """A row journal that cannot be used as it is set up."""


class Ask(msgspec.Struct, frozen=True):
    """A row that somebody wants to ask for."""

    key: str
    fingerprint: str
    """Of the row's request and of what decides which answer is right."""


class Mine(msgspec.Struct, frozen=True):
    """The row is the caller's to ask."""

    deaths: int
    """Owners that died while they had the row."""


class Done(msgspec.Struct, frozen=True):
    """The row has its result."""

    line: bytes


class Busy(msgspec.Struct, frozen=True):
    """Another owner has the row."""

    seconds: float
    """Until the lease of that owner ends, unless it is renewed."""


class Other(msgspec.Struct, frozen=True):
    """The row has the result of another question."""

    fingerprint: str


Answer = Mine | Done | Busy | Other


class Result(msgspec.Struct, frozen=True):
    """What came of a row."""

    key: str
    fingerprint: str
    line: bytes
    reason: str | None = None
    """Why the row failed; `None` for a success."""


class Failure(msgspec.Struct, frozen=True):
    """A row whose result is a failure: a dead letter."""

    key: str
    reason: str
    line: bytes


class RowJournal(Protocol):
    """A store of one job's rows."""

    blocks: bool
    """Whether verbs wait for a disk or a network, so that async code calls them in a thread."""

    @property
    def caveats(self) -> Sequence[str]:
        """What the promise rests on, in sentences, to be shown to whoever relies on it."""

    def claim(self, asks: Sequence[Ask], owner: str, lease: float) -> list[Answer]:
        """Take the rows that are free, and make the owner's lease good for `lease` seconds from now.

        A failure is kept like a success, but a row that failed is free for another question.

        :returns: one answer for each row, in order.
        :raises JournalLost: the store cannot be reached.
        """

    def finish(self, results: Sequence[Result]) -> list[Done | Other]:
        """Keep results. Of two results of a row the first stays, whoever brings it.

        :returns: for each row the result that stands, or that the row is another question now.
        :raises JournalLost: the store cannot be reached.
        """

    def put_back(self, keys: Sequence[str], owner: str) -> None:
        """Let go of claimed rows without a result. No death counts."""

    def beat(self, owner: str, lease: float) -> None:
        """Make the owner's lease good for `lease` seconds from now."""

    def leave(self, owner: str) -> None:
        """Forget an owner that has no rows any more."""

    def failures(self) -> Iterator[Failure]:
        """The rows that failed, by key."""

    def forget(self, keys: Sequence[str] | None = None) -> int:
        """Remove results that are failures, so that their rows are asked again; returns how many.

        :param keys: only of these rows; `None` for all.
        """

    def close(self) -> None:
        """Close files and sockets."""
