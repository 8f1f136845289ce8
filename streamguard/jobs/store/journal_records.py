"""What a journal holds and says, as plain records: what is known of a row, what it took, a run, a moment of one.

Plain data, without the file they come from.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streamguard.errors import StreamguardError

How = Literal["finished", "signal", "budget", "refused", "failed", "killed"]
"""How a run ended; `killed` is found out by the next one."""


class JournalError(StreamguardError):
    """The journal cannot be written, or read, any more. Every row that is in it is whole."""

    def __init__(self, name: str, error: Exception, what: str = "written") -> None:
        super().__init__(f"{name}: cannot be {what}: {error}; what is in it is whole, so run again to go on")


class Known(msgspec.Struct, frozen=True):
    """What is known of a row from before."""

    type: str
    """`succeeded`, `errored` or `canceled`."""
    reason: str | None
    fingerprint: str | None
    failures: int
    """Runs in which it failed for a reason of its own."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a row took, of output tokens and of micro-USD: `(low, high)`, `None` where nothing is known."""

    attempts: int = 0
    tokens: tuple[int | None, int | None] = (0, 0)
    cost: tuple[int | None, int | None] = (0, 0)


class RunInfo(msgspec.Struct, frozen=True):
    """One run of the job."""

    number: int
    pid: int
    host: str
    began: float
    """Unix seconds; so is `ended`."""
    ended: float | None
    how: str | None
    rows: int
    todo: int
    asked: int
    lost: int
    """Rows that were under way when it was killed: what they cost is unknown."""
    attempts: int
    tokens_low: int
    tokens_high: int | None
    tokens_unknown: int
    cost_low: int
    cost_high: int | None
    cost_unknown: int
    summary: str | None


class Sample(msgspec.Struct, frozen=True):
    """The state of a run at one moment."""

    run: int
    at: float
    """Unix seconds."""
    running: int
    done: int
    failed: int
    retries: int
    cooling: float
    """Seconds for which the provider is to be left alone."""
    cost: int | None
    """Micro-USD, at the most."""
