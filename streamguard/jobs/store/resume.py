"""What a run does with a row of which something is known: keep it, ask it again, or leave it alone. Pure.

In charge of the decision, row by row. Successes are kept; failures are asked again, until they failed in so many runs
for a reason of their own; a row that was under way whenever the process died is suspected of having killed it, is asked
last and alone, and in the end not at all.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from streamguard.jobs.store.journal_records import Known

MAX_ROW_FAILURES = 3
"""Runs in which a row may fail for a reason of its own, and process deaths that it may be under way at, before it is
not asked any more."""

ALONE_FROM = 2
"""Process deaths from which on a row is asked alone, so that the next one tells whether it is to blame."""

NOT_ITS_FAULT = (
    *("provider.overloaded", "provider.rate_limited", "provider.api_error", "provider.timeout", "provider.billing"),
    *("provider.spend_limit", "provider.authentication", "provider.permission", "provider.not_found", "transport.*"),
    *("timeout.connect", "timeout.first_token", "timeout.alive", "budget.*", "operator.*", "hedge.*"),
)
"""Reasons that say nothing about the row: however often they come, it is asked again."""

POISON = "job.poison"
"""Why a row fails that the process died of."""

Fate = Literal["new", "again", "kept", "failed", "dead", "unselected"]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to ask again, of those that have a result."""

    reasons: tuple[str, ...] = ()
    """Reasons or globs, of failures and of marked answers; none for every failure."""
    ids: tuple[str, ...] = ()
    """Rows by their ids, succeeded ones too; none for all."""

    def selects(self, key: str, known: Known | None) -> bool:
        """Whether a row is asked again."""
        if known is None or (self.ids and key not in self.ids):
            return False
        if known.type == "succeeded" and (known.reason is None or not self.reasons):
            return bool(self.ids) and not self.reasons
        reason = known.reason or "operator.interrupt"
        return not self.reasons or any(fnmatchcase(reason, pattern) for pattern in self.reasons)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How a run goes on from earlier ones."""

    retry_failed: bool = True
    max_row_failures: int = MAX_ROW_FAILURES
    only: Selection | None = None
    """Ask these rows and no others, dead ones too."""


def fate(key: str, known: Known | None, crashes: int, rules: Rules) -> tuple[Fate, int | None]:
    """What becomes of a row, and its turn: 0 for the first ones, then by the deaths it is suspected of.

    :param crashes: process deaths that it was under way at since its last result.
    """
    if rules.only is not None:
        return ("again", 0) if rules.only.selects(key, known) else ("unselected", None)
    if known is not None and known.type == "succeeded":
        return "kept", None
    if crashes >= rules.max_row_failures:
        return "dead", None
    if known is None:
        return "new", crashes
    if known.type == "errored" and not rules.retry_failed:
        return "failed", None
    if known.type == "errored" and known.failures >= rules.max_row_failures:
        return "dead", None
    return "again", crashes


def own_fault(reason: str) -> bool:
    """Whether a failure for this reason says something about the row."""
    return not any(fnmatchcase(reason, pattern) for pattern in NOT_ITS_FAULT)
