"""How a job's last run differs from its earlier ones: thin answers, late first tokens, retries, another model.

In charge of the comparison and its sentences. Nothing depends on it: it is there for a person to look. Rows differ by
themselves, so a quantity counts as changed only where a test of ranks says so *and* the middle has moved by a quarter.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from streamguard.jobs.progress.summary import Reservoir
from streamguard.jobs.store.journal import Journal
from streamguard.jobs.store.journal_records import believed

ALPHA: Final = 0.001
"""Of each test, two-sided: several are made of every run."""

MOVED: Final = 1.25
"""By which the median of a quantity must differ, either way."""

FEWEST: Final = 30
"""Answers on each side."""

NORMAL: Final = statistics.NormalDist()


class Side(msgspec.Struct):
    """Some answers of a job."""

    rows: int = 0
    tokens: Reservoir = msgspec.field(default_factory=Reservoir)
    """Output tokens of accepted answers."""
    items: Reservoir = msgspec.field(default_factory=Reservoir)
    """Values in them: an empty list counts none."""
    first_tokens: Reservoir = msgspec.field(default_factory=Reservoir)
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    """Why attempts were not accepted."""
    models: Counter[str] = msgspec.field(default_factory=Counter)
    """That answered."""

    def take(self, line: Mapping[str, Any]) -> None:
        """Count one result line."""
        own = line.get("streamguard") or {}
        self.rows += 1
        for attempt in own.get("attempts") or ():
            if (reason := attempt.get("reason")) is not None:
                self.reasons[reason] += 1
            elif line["result"]["type"] == "succeeded":
                self._accepted(attempt)
        if line["result"]["type"] == "succeeded":
            self.items.append(float(_values(own.get("output"))))
            model = (line["result"].get("message") or {}).get("model")
            if isinstance(model, str):
                self.models[model] += 1

    def _accepted(self, attempt: Mapping[str, Any]) -> None:
        tokens, first = attempt.get("output_tokens"), attempt.get("first_token_seconds")
        if isinstance(tokens, list) and len(tokens) == 2 and tokens[0] == tokens[1] and tokens[0] is not None:
            self.tokens.append(float(tokens[0]))
        if isinstance(first, int | float):
            self.first_tokens.append(float(first))


def drift(journal: Journal) -> list[str]:
    """Return what is different about the last run of a job, in sentences with the test that says so.

    :raises JobError: the journal holds what no run has written.
    """
    runs = journal.runs()
    if len(runs) < 2:
        return []
    last = runs[-1].number
    before, now = Side(), Side()
    with believed(str(journal.path)):
        for run, line in journal.rows("SELECT run, line FROM records ORDER BY seq"):
            (now if run == last else before).take(msgspec.json.decode(line))
    return list(differences(before, now))


def differences(before: Side, now: Side) -> Iterator[str]:
    """Give what is different between two sides, one sentence each."""
    for name, was, is_, unit in (
        ("output tokens of an answer", before.tokens, now.tokens, ""),
        ("values in an answer", before.items, now.items, ""),
        ("first token", before.first_tokens, now.first_tokens, " s"),
    ):
        if (found := _moved(was, is_)) is not None:
            middle, middle_now, by_ranks = found
            yield (
                f"{name}: median {middle_now:.3g}{unit}, {middle:.3g}{unit} in earlier runs "
                f"(rank test, {_p(by_ranks)}; {len(is_):,} and {len(was):,} answers)"
            )
    for reason in sorted({*before.reasons, *now.reasons}):
        if (p := _more(before, now, reason)) is not None:
            share, share_now = (side.reasons[reason] / side.rows for side in (before, now))
            yield (
                f"{reason}: {share_now:.1%} of the rows, {share:.1%} in earlier runs "
                f"(two proportions, {_p(p)}; {now.rows:,} and {before.rows:,} rows)"
            )
    if before.models and (new := sorted(now.models.keys() - before.models.keys())):
        yield f"another model answers: {', '.join(new)}; in earlier runs {', '.join(sorted(before.models))}"


def rank_test(some: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p of the test that two samples rank alike (Mann and Whitney 1947, normal, with ties).

    :param some: one sample; neither may be empty.
    :param others: the other one.
    """
    counts = Counter([*some, *others])
    ranks: dict[float, float] = {}
    place, ties = 0, 0.0
    for value in sorted(counts):
        ranks[value] = place + (counts[value] + 1) / 2
        place += counts[value]
        ties += counts[value] ** 3 - counts[value]
    n, m = len(some), len(others)
    total = n + m
    u = sum(ranks[value] for value in some) - n * (n + 1) / 2
    spread = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(spread)
    return 2 * (1 - NORMAL.cdf(z))


def _moved(was: Reservoir, is_: Reservoir) -> tuple[float, float, float] | None:
    """The medians and p, if a quantity has moved."""
    if min(len(was), len(is_)) < FEWEST:
        return None
    middle, middle_now = statistics.median(was), statistics.median(is_)
    low, high = sorted((middle, middle_now))
    if high < low * MOVED or high == low:
        return None
    p = rank_test(list(is_), list(was))
    return (middle, middle_now, p) if p < ALPHA else None


def _more(before: Side, now: Side, reason: str) -> float | None:
    """P, if attempts end for a reason more often than before."""
    if min(before.rows, now.rows) < FEWEST:
        return None
    share, share_now = before.reasons[reason] / before.rows, now.reasons[reason] / now.rows
    if share_now <= share * MOVED:
        return None
    pooled = min(1.0, (before.reasons[reason] + now.reasons[reason]) / (before.rows + now.rows))
    spread = math.sqrt(pooled * (1 - pooled) * (1 / before.rows + 1 / now.rows))
    p = 0.0 if spread == 0 else 2 * (1 - NORMAL.cdf((share_now - share) / spread))
    return p if p < ALPHA else None


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def _values(value: Any) -> int:
    """How many values a document has that hold no others; `null` and empty texts are none."""
    if isinstance(value, Mapping):
        return sum(map(_values, value.values()))
    if isinstance(value, list):
        return sum(map(_values, value))
    return int(value is not None and value != "")
