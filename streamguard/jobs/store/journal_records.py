"""What a journal holds and says, as plain records: what is known of a row, what it took, a run, a moment of one.

Plain data, without the file they come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from streamguard.errors import JobError, Problem, StreamguardError

How = Literal["finished", "signal", "budget", "refused", "failed", "killed"]
"""How a run ended; `killed` is found out by the next one."""


class JournalError(StreamguardError):
    """The journal cannot be written, or read, any more. Every row that is in it is whole."""

    def __init__(self, name: str, error: Exception, what: str = "written") -> None:
        super().__init__(f"{name}: cannot be {what}: {error}; what is in it is whole, so run again to go on")


_UNREADABLE = (
    *(msgspec.MsgspecError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)
"""What reading a value raises that is not what it should be."""


@contextmanager
def believed(file: str) -> Iterator[None]:
    """Read what a journal holds. What no run has written is a typed error: the file is damaged, or somebody else's.

    :raises JobError: names the file.
    """
    try:
        yield
    except (msgspec.MsgspecError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"is damaged, or was not written by a run: {type(error).__name__}: {str(error)[:200]}"
        raise JobError(Problem(file=file, problem=what)) from error
    except RecursionError as error:
        raise JobError(
            Problem(file=file, problem="is damaged, or was not written by a run: nested too deeply")
        ) from error


class Known(msgspec.Struct, frozen=True):
    """What is known of a row from before."""

    type: str
    """`succeeded`, `errored` or `canceled`."""
    reason: str | None
    """Why it failed, or what its answer is marked with."""
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
