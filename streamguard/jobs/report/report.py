"""What a job came to, in the figures of a report: outcomes, tokens and money, latencies, where answers died, when.

In charge of reading the journal once, from its first row to its last, in bounded memory. Estimates are intervals; what
is unknown is counted, never zero. How it looks is `report_html`'s business.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from streamguard.jobs.progress.summary import Interval, Quantiles, Reservoir
from streamguard.jobs.report.excerpt import Excerpt
from streamguard.jobs.report.limits_seen import Seen
from streamguard.jobs.report.status import Status, look
from streamguard.jobs.store.journal import Journal
from streamguard.jobs.store.journal_records import Sample, believed

MOST_ROWS = 200
"""Failed rows that are shown one by one: the first ones. All of them are counted."""

PER_DECADE = 8
"""Bins of a histogram between 1 and 10, 10 and 100, …"""


class Histogram:
    """Counts of positive numbers in bins of equal width on a logarithmic scale."""

    def __init__(self, per_decade: int = PER_DECADE) -> None:
        self.count = 0
        self._bins: Counter[int] = Counter()
        self._per_decade = per_decade
        self._values = Reservoir()

    def add(self, value: float) -> None:
        """One more; what is not above zero counts as a tenth of a thousandth."""
        self.count += 1
        self._values.append(value)
        self._bins[math.floor(math.log10(max(value, 1e-4)) * self._per_decade + 1e-9)] += 1

    @property
    def quantiles(self) -> Quantiles | None:
        """The median and the 95th percentile."""
        return Quantiles.of(self._values)

    def bins(self) -> list[tuple[float, float, int]]:
        """From, to, how many; without gaps, so that widths compare."""
        if not self._bins:
            return []
        edges = range(min(self._bins), max(self._bins) + 1)
        return [
            (10 ** (edge / self._per_decade), 10 ** ((edge + 1) / self._per_decade), self._bins[edge]) for edge in edges
        ]


class Spent:
    """Tokens and money of some attempts."""

    def __init__(self) -> None:
        self.attempts = 0
        self.tokens = Interval()
        self.cost = Interval()

    def add(self, attempt: _Attempt) -> None:
        """One more."""
        self.attempts += 1
        self.tokens.add(*attempt.output_tokens)
        low, high = attempt.cost_usd or (None, None)
        self.cost.add(*(None if usd is None else round(usd * 1_000_000) for usd in (low, high)))


class FailedRow(msgspec.Struct, frozen=True):
    """A row that failed, and how its last attempt that says where died; or one that is marked, and with what."""

    custom_id: str
    reason: str
    message: str
    attempts: int
    offset: Any
    pointer: str | None
    keyword: str | None
    excerpt: Excerpt | None
    reasons: tuple[str, ...]


class _Attempt(msgspec.Struct):
    number: int = 1
    reason: str | None = None
    offset: int | str | None = None
    pointer: str | None = None
    keyword: str | None = None
    output_tokens: tuple[int | None, int | None] = (None, None)
    saved_tokens: int | None = None
    cost_usd: tuple[float | None, float | None] | None = None
    first_token_seconds: float | None = None


class _Mark(msgspec.Struct):
    reason: str = "unknown"
    message: str = ""
    pointer: str | None = None


class _Own(msgspec.Struct):
    completed: str | None = None
    marked: list[_Mark] = []
    attempts: list[_Attempt] = []
    ms: float | None = None


class _Said(msgspec.Struct):
    type: str = "unknown"
    message: str = ""


class _Error(msgspec.Struct):
    error: _Said = msgspec.field(default_factory=_Said)


class _Result(msgspec.Struct):
    type: str
    error: _Error | None = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result
    streamguard: _Own = msgspec.field(default_factory=_Own)


class Report:
    """A job's figures. Of every row its latest result; of money and tokens also what all runs took together."""

    def __init__(self, status: Status, about: dict[str, Any]) -> None:
        self.status = status
        self.about = about
        """What the journal knows of the job as a whole."""
        self.succeeded: Counter[str] = Counter()
        """Rows by how they were accepted."""
        self.ended: dict[str, Spent] = {}
        """Attempts that were not accepted, by why."""
        self.accepted = Spent()
        self.rejected = Spent()
        self.avoided = Interval()
        """≈ Output tokens that aborts avoided."""
        self.first_token = Histogram()
        self.latency = Histogram()
        self.offsets = Histogram(per_decade=4)
        """Byte offsets at which documents died."""
        self.failed: list[FailedRow] = []
        """The first of them."""
        self.marked: list[FailedRow] = []
        """The first of the rows that were kept with what is wrong with them."""
        self.samples: dict[int, list[Sample]] = {}
        """By run."""
        self.limits: list[Seen] = []
        """The rate limits that answers of the last run stated."""

    def take(self, line: _Line, detail: bytes | None) -> None:
        """Count one row's latest result."""
        own = line.streamguard
        if line.result.type == "succeeded":
            self.succeeded["marked" if own.marked else own.completed or "unclaimed"] += 1
            if own.marked and len(self.marked) < MOST_ROWS:
                self.marked.append(_kept(line))
        if own.ms is not None:
            self.latency.add(own.ms / 1000)
        for attempt in own.attempts:
            self._attempt(attempt)
        if line.result.type == "errored" and len(self.failed) < MOST_ROWS:
            self.failed.append(_failed(line, detail))

    def _attempt(self, attempt: _Attempt) -> None:
        if attempt.first_token_seconds is not None:
            self.first_token.add(attempt.first_token_seconds)
        if attempt.reason is None:
            self.accepted.add(attempt)
            return
        self.rejected.add(attempt)
        self.ended.setdefault(attempt.reason, Spent()).add(attempt)
        if attempt.saved_tokens is not None:
            self.avoided.add(attempt.saved_tokens, attempt.saved_tokens)
        if isinstance(attempt.offset, int):
            self.offsets.add(float(max(1, attempt.offset)))


def report(journal: Journal, out: str) -> Report:
    """The figures of a job.

    :raises JournalError: the journal cannot be read.
    """
    about = {name: journal.about(name) for name in ("spec", "options")}
    made = Report(look(journal, out), about)
    decode = msgspec.json.Decoder(_Line).decode
    with believed(str(journal.path)):
        for _, _, _, line, detail in journal.details():
            made.take(decode(line), detail)
        for sample in journal.samples():
            made.samples.setdefault(sample.run, []).append(sample)
        made.limits = msgspec.convert(journal.about("limits_seen") or [], list[Seen])
    return made


def _failed(line: _Line, detail: bytes | None) -> FailedRow:
    own, said = line.streamguard, (line.result.error or _Error()).error
    shown = {} if detail is None else msgspec.json.decode(detail, type=dict[int, Excerpt])
    # The last attempt that died somewhere tells most.
    last = next(_placed(own, shown), own.attempts[-1] if own.attempts else _Attempt())
    return FailedRow(
        custom_id=line.custom_id,
        reason=said.type,
        message=said.message,
        attempts=len(own.attempts),
        offset=last.offset,
        pointer=last.pointer,
        keyword=last.keyword,
        excerpt=shown.get(last.number),
        reasons=tuple(attempt.reason for attempt in own.attempts if attempt.reason is not None),
    )


def _kept(line: _Line) -> FailedRow:
    own = line.streamguard
    first = own.marked[0]
    return FailedRow(
        custom_id=line.custom_id,
        reason=first.reason,
        message="; ".join(mark.message for mark in own.marked),
        attempts=len(own.attempts),
        offset=None,
        pointer=first.pointer,
        keyword=None,
        excerpt=None,
        reasons=tuple(attempt.reason for attempt in own.attempts if attempt.reason is not None),
    )


def _placed(own: _Own, shown: dict[int, Excerpt]) -> Iterator[_Attempt]:
    yield from (attempt for attempt in reversed(own.attempts) if attempt.number in shown)
    yield from (attempt for attempt in reversed(own.attempts) if attempt.offset is not None)
