"""How a job stands, as its journal has it: rows by outcome, what was spent, run by run. Also while it runs.

In charge of the figures and their words. It reads and changes nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from streamguard.jobs.batches.log import Batch, BatchLog
from streamguard.jobs.report.drift import drift
from streamguard.jobs.store.journal import Journal
from streamguard.jobs.store.journal_records import RunInfo, believed
from streamguard.jobs.store.resume import MAX_ROW_FAILURES
from streamguard.terminal import aligned
from streamguard.verdict import REASONS

N = TypeVar("N", int, float)


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the job."""

    number: int
    state: str
    """`running`, or how it ended: `finished`, `signal`, `budget`, `refused`, `failed`, `killed`."""
    began: str
    """UTC, as ISO 8601."""
    seconds: float | None
    """`None` while it runs, and if it was killed and nobody looked since."""
    pid: int
    host: str
    todo: int
    asked: int
    attempts: int
    lost: int
    """Rows that were under way when it was killed."""
    output_tokens: tuple[int, int | None]
    cost_usd: tuple[float, float | None]
    """`[low, high]`, without an upper end if some of it is unknown."""


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One Message Batch of the job."""

    id: str | None
    """The provider's; `None` if it was never named."""
    state: str
    """`noted`: perhaps submitted. `sent`: the provider has it. `taken`: every result is in the journal. `refused`: it
    was not taken. `gone`: the provider does not know it any more."""
    rows: int
    since: str
    """When it was submitted: UTC, as ISO 8601."""
    counts: dict[str, int]
    """What the provider last said of its requests."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A job."""

    output: str
    name: str | None
    state: str
    """Of the last run; `none` before the first."""
    rows: int
    """Of the input of the last run."""
    succeeded: int
    marked: dict[str, int]
    """Rows among them that are marked with what is wrong with them, by reason."""
    failed: dict[str, int]
    """By reason."""
    dead: int
    """Rows among them that are not asked any more."""
    canceled: int
    not_asked: int
    """Rows without a result."""
    in_flight: tuple[str, ...]
    attempts: int
    output_tokens: tuple[int, int | None]
    cost_usd: tuple[float, float | None]
    """`[low, high]` of all runs."""
    runs: tuple[RunStatus, ...]
    batches: tuple[BatchStatus, ...] = ()
    drift: tuple[str, ...] = ()
    """How the last run differs from earlier ones, in sentences that name the test."""


def look(journal: Journal, out: str) -> Status:
    """How the job stands now.

    :raises JobError: the journal says what no run has written.
    """
    with believed(str(journal.path)):
        return _look(journal, out)


def _look(journal: Journal, out: str) -> Status:
    infos = journal.runs()
    runs = [_run(run) for run in infos]
    counts = journal.counts()
    failed = {reason or "unknown": count for (kind, reason), count in counts.items() if kind == "errored"}
    succeeded = sum(count for (kind, _), count in counts.items() if kind == "succeeded")
    marked = {reason: count for (kind, reason), count in counts.items() if kind == "succeeded" and reason is not None}
    canceled = sum(count for (kind, _), count in counts.items() if kind == "canceled")
    spec = journal.about("spec") or {}
    after = (spec.get("rules") or {}).get("max_row_failures", MAX_ROW_FAILURES)
    done = succeeded + canceled + sum(failed.values())
    rows = infos[-1].rows if infos else done
    return Status(
        output=out,
        name=journal.about("name"),
        state=runs[-1].state if runs else "none",
        rows=rows,
        succeeded=succeeded,
        marked=marked,
        failed=failed,
        dead=len(journal.dead(after)),
        canceled=canceled,
        not_asked=max(0, rows - done),
        in_flight=tuple(journal.in_flight()),
        attempts=sum(run.attempts for run in runs),
        output_tokens=_total((run.output_tokens for run in runs), 0),
        cost_usd=_total((run.cost_usd for run in runs), 0.0),
        runs=tuple(runs),
        batches=tuple(map(_batch, BatchLog(journal).all())),
        drift=tuple(drift(journal)),
    )


def _batch(batch: Batch) -> BatchStatus:
    return BatchStatus(
        id=batch.id,
        state=batch.state,
        rows=len(batch.members),
        since=datetime.fromtimestamp(batch.noted, UTC).isoformat(timespec="seconds"),
        counts={name: count for name, count in batch.counts.items() if count},
    )


def _total(pairs: Iterable[tuple[N, N | None]], nothing: N) -> tuple[N, N | None]:
    """A sum of intervals; without an upper end if one has none."""
    low, high = nothing, nothing
    open_end = False
    for one, other in pairs:
        low += one
        open_end = open_end or other is None
        high += nothing if other is None else other
    return low, None if open_end else high


def _run(run: RunInfo) -> RunStatus:
    open_end = run.lost > 0
    cost = None if open_end or run.cost_unknown else run.cost_high
    tokens = None if open_end or run.tokens_unknown else run.tokens_high
    return RunStatus(
        number=run.number,
        state=run.how or ("running" if _alive(run) else "killed"),
        began=datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds"),
        seconds=None if run.ended is None or run.how == "killed" else round(run.ended - run.began, 3),
        pid=run.pid,
        host=run.host,
        todo=run.todo,
        asked=run.asked,
        attempts=run.attempts,
        lost=run.lost,
        output_tokens=(run.tokens_low, tokens),
        cost_usd=(run.cost_low / 1e6, None if cost is None else cost / 1e6),
    )


def _alive(run: RunInfo) -> bool:
    """Whether its process is there; of another machine's nobody can tell, so it is."""
    if run.host != socket.gethostname():
        return True
    try:
        os.kill(run.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def status_text(status: Status, width: int | None = None) -> str:
    """The same for people.

    :param width: see `terminal.columns`.
    """
    return aligned(_lines(status), width)


def _lines(status: Status) -> Iterator[tuple[str, str]]:
    last = status.runs[-1] if status.runs else None
    where = f": process {last.pid} on {last.host}, since {last.began}" if last and status.state == "running" else ""
    yield "job", f"{status.name or 'unnamed'}, {status.output}"
    yield "state", f"{_STATES.get(status.state, status.state)}{where}"
    yield "rows", f"{status.rows:,}"
    yield "succeeded", f"{status.succeeded:,}"
    if status.marked:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in status.marked.items())
        yield "marked", f"{sum(status.marked.values()):,} of them, kept with what is wrong with them ({listed})"
    if status.failed:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in status.failed.items())
        yield "failed", f"{sum(status.failed.values()):,} ({listed})"
        if known := [reason for reason in status.failed if reason in REASONS]:
            yield "what to do", f"streamguard reason {known[0]}"
    if status.dead:
        yield "dead", f"{status.dead:,} of them failed too often and are not asked again, but by streamguard retry"
    if status.canceled:
        yield "canceled", f"{status.canceled:,}"
    if status.in_flight:
        yield "under way", f"{len(status.in_flight):,}"
    if status.not_asked:
        yield "no result", f"{status.not_asked:,}"
    yield "attempts", f"{status.attempts:,}"
    yield "tokens", f"{_span(status.output_tokens, '{:,}')} of output"
    yield "cost", _span(status.cost_usd, "${:,.4f}")
    for difference in status.drift:
        yield "differs", difference
    for batch in status.batches:
        counts = "".join(f", {name} {count:,}" for name, count in batch.counts.items())
        yield "batch", f"{batch.id or 'without a name'}: {_BATCHES[batch.state]}, {batch.rows:,} rows{counts}"
    for run in status.runs:
        took = "" if run.seconds is None else f" after {run.seconds:,.0f} s"
        lost = f", {run.lost:,} rows lost under way" if run.lost else ""
        how = f"{_STATES.get(run.state, run.state)}{took}"
        money = _span(run.cost_usd, "${:,.4f}")
        yield f"run {run.number}", f"{run.began}: {how}, {run.asked:,} of {run.todo:,} rows{lost}, {money}"


_BATCHES = {
    "noted": "perhaps submitted; the next run finds out",
    "sent": "under way at the provider; run again to take its results",
    "taken": "its results are taken",
    "refused": "not taken by the provider",
    "gone": "the provider does not know it any more",
}

_STATES = {
    "none": "never run",
    "signal": "ended by a signal",
    "budget": "stopped by a budget",
    "refused": "stopped: the provider takes no such request (key, model or address)",
    "failed": "ended by an error",
}


def _span(pair: tuple[float, float | None], form: str) -> str:
    low, high = pair
    if high is None:
        return f"≥ {form.format(low)}"
    return form.format(low) if low == high else f"≈ {form.format(low)} to {form.format(high)}"
