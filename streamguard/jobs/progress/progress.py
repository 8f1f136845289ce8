"""A running job on standard error: a live picture on a terminal, a plain line now and then elsewhere, or JSON.

In charge of words and layout. It reads the tally and changes nothing. `rich` is loaded only for a terminal.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TextIO

import anyio
import msgspec

from streamguard.jobs.progress.summary import BudgetState, Interval, Summary, Tally
from streamguard.pace.limits import WORDS, LimitName
from streamguard.pace.pace import PaceView
from streamguard.retry.breaker import BreakerView
from streamguard.terminal import aligned, packed, printable, put
from streamguard.verdict import REASONS

LIVE_EVERY = 0.2
"""Seconds between two pictures of the live line."""

PLAIN_EVERY = 15.0
"""Seconds between two plain lines: a log that somebody reads later."""

JSON_EVERY = 5.0
"""Seconds between two lines for a machine."""

BAR = 10
"""Columns of the bar: the figures beside it need the rest of 80."""

MOST_REASONS = 4
"""Reasons that the live picture counts by name: the most frequent ones."""

Show = Literal["live", "plain", "json", "off"]


def how(stream: TextIO, *, quiet: bool, as_json: bool = False) -> Show:
    """What to show on this stream."""
    if quiet:
        return "off"
    if as_json:
        return "json"
    return "live" if stream.isatty() else "plain"


class Progress:
    """The progress of one job.

    :param show: see `how`.
    """

    def __init__(self, tally: Tally, show: Show, stream: TextIO | None = None) -> None:
        self._tally = tally
        self._show = show
        self._stream = stream if stream is not None else sys.stderr
        self._live: Any = None

    async def run(self) -> None:
        """Show it until cancelled; then `close()`. A terminal that goes away does not end the job."""
        try:
            if self._show == "live":
                self._open()
                while True:
                    self._live.update(self._picture(), refresh=True)
                    await anyio.sleep(LIVE_EVERY)
        except OSError:
            self._show = "off"
        while self._show == "plain":
            await anyio.sleep(PLAIN_EVERY)
            put(self._stream, line(self._tally) + "\n")
        while self._show == "json":
            await anyio.sleep(JSON_EVERY)
            put(self._stream, json.dumps(state(self._tally)) + "\n")

    def close(self) -> None:
        """Take the live line away and give the cursor back."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        if self._live is not None:
            from rich.text import Text

            with suppress(OSError):
                # As it is: a terminal breaks what is too long, and an address can still be copied.
                self._live.console.print(Text(printable(text)), soft_wrap=True)
        elif self._show == "json":
            put(self._stream, json.dumps({"event": "notice", "text": text}) + "\n")
        elif self._show != "off":
            put(self._stream, printable(text) + "\n")

    def _open(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # Own refreshes, from the event loop: rich's would come from a thread.
        self._live = Live(console=Console(file=self._stream), auto_refresh=False, transient=True)
        self._live.start()

    def _picture(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=BAR)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        bar: Any = ProgressBar(total=max(1, self._tally.wanted), completed=self._tally.done, width=BAR)
        room = max(1, self._live.console.width - BAR - 1)
        lines = [*packed(list(_parts(self._tally)), room)]
        for word, reasons in _reasons(self._tally):
            lines += packed([f"{word}: {reasons[0]}", *reasons[1:]], room, ", ")
        for number, text in enumerate(lines):
            grid.add_row(bar if number == 0 else "", Text(text, no_wrap=True, overflow="ellipsis"))
        return grid


def line(tally: Tally) -> str:
    """The state in one line of plain text."""
    return " · ".join(_parts(tally))


def _parts(tally: Tally) -> Iterator[str]:
    yield f"{tally.done:,}/{tally.wanted:,} done"
    if (eta := tally.eta) is not None and tally.done < tally.wanted:
        yield f"{duration(eta)} left"
    if tally.budget is not None:
        yield _budget(tally.budget)
    elif tally.cost.known or tally.cost.unknown:
        yield money(tally.cost)
    if tally.running:
        yield f"{tally.running} running"
    if (batches := tally.batches) is not None:
        yield f"{batches.rows:,} in {batches.batches:,} batch{'' if batches.batches == 1 else 'es'}"
    if tally.down is not None:
        yield _held(tally.down, tally.endpoint)
    elif (wait := tally.cooling()) >= 1:
        yield f"nothing is sent for {duration(wait)}: the provider refuses"
    if tally.retries:
        yield f"{tally.retries.total():,} retried"
    if tally.failed:
        yield f"{tally.failed.total():,} gave up"
    if (rate := tally.rate) is not None:
        yield f"{rate:.3g} rows/s{_allowed(tally.pace)}"
    if tally.output_tokens.known:
        per_second = tally.token_rate
        yield f"{tokens(tally.output_tokens)} tokens" + (f" ({_count(round(per_second))}/s)" if per_second else "")
    if tally.budget is not None and (tally.cost.known or tally.cost.unknown):
        yield money(tally.cost)
    if tally.recent_first_tokens:
        yield f"first token {statistics.median(tally.recent_first_tokens):.2g} s"


def _held(down: BreakerView, endpoint: str | None) -> str:
    """What is down, and when somebody looks."""
    where = endpoint or "the endpoint"
    look = "looking now" if down.looking or down.next_look <= 0 else f"next look in {duration(down.next_look)}"
    return f"held: {where} is down for {duration(down.seconds)}, {look}"


def _why_held(tally: Tally) -> dict[str, Any] | None:
    """Why no rows begin, for machines; `None` if they do."""
    if (down := tally.down) is not None:
        plain = {"model": down.model, "reason": down.reason, "down_seconds": down.seconds, "seconds": down.next_look}
        return {"why": "breaker", "endpoint": tally.endpoint, **plain}
    return {"why": "cooldown", "seconds": wait} if (wait := tally.cooling()) > 0 else None


def _allowed(pace: PaceView | None) -> str:
    """What the limits allow, and which of them is the narrow one."""
    if pace is None or pace.store == "away":
        return "" if pace is None else f" (the pace's store is away: at 1/{pace.programs} by ourselves)"
    if pace.allowed_per_second is None or pace.limit is None:
        return "" if pace.places is None else f" ({pace.places} at a time: no limits are stated)"
    left = pace.left.get(pace.limit)
    state = WORDS[pace.limit] + ("" if left is None else f", {left:.0%} left")
    cut = "" if pace.own > 0.995 else f", at {pace.own:.0%} after refusals"
    return f" of {pace.allowed_per_second:.3g} the limits allow ({state}{cut})"


def _reasons(tally: Tally) -> Iterator[tuple[str, list[str]]]:
    """What attempts ended for, and what was given up for, most frequent first."""
    for word, counts in (("retried", tally.retries), ("gave up", tally.failed)):
        named = counts.most_common(MOST_REASONS)
        if named:
            others = counts.total() - sum(count for _, count in named)
            yield word, [f"{reason} {count:,}" for reason, count in named] + ([f"others {others:,}"] if others else [])


def _budget(state: BudgetState) -> str:
    """How much of a budget is gone, with what is held for what runs."""
    if state.unit == "micro_usd":
        return f"budget ${state.spent / 1e6:,.2f} of ${state.cap / 1e6:,.2f}"
    return f"budget {_count(state.spent)} of {_count(state.cap)} tokens"


def state(tally: Tally) -> dict[str, Any]:
    """The state for machines: one object, counts as numbers, unknown as `null`."""
    cost = tally.cost.pair
    budget = tally.budget
    return {
        "event": "progress",
        "rows": tally.wanted,
        "done": tally.done,
        "running": tally.running,
        "batches": None if (batches := tally.batches) is None else msgspec.structs.asdict(batches),
        "cooling_seconds": tally.cooling(),
        "held": _why_held(tally),
        "succeeded": tally.succeeded.total(),
        "failed": dict(tally.failed.most_common()),
        "marked": dict(tally.marked.most_common()),
        "retries": dict(tally.retries.most_common()),
        "rows_per_second": tally.rate,
        "pace": None if (pace := tally.pace) is None else msgspec.structs.asdict(pace),
        "output_tokens": tally.output_tokens.pair,
        "cost_usd": None if cost is None else [cost[0] / 1e6, None if cost[1] is None else cost[1] / 1e6],
        "budget": None if budget is None else msgspec.structs.asdict(budget),
        "eta_seconds": tally.eta,
        "seconds": tally.clock() - tally.start,
    }


def tokens(interval: Interval) -> str:
    """`1,234`, or `≈ 12.3k to 15k`, or `≥ 12.3k`, or `unknown`."""
    return _span(interval.pair, _count)


def money(interval: Interval) -> str:
    """`$1.23`, or `≈ $1.20 to $1.30`, or `≥ $1.20`, or that no price is known. Of micro-USD."""
    digits = 2 if interval.low >= 10_000 or interval.pair == (0, 0) else 4
    return _span(interval.pair, lambda micro: f"${micro / 1e6:,.{digits}f}", unknown="cost unknown")


def _span(pair: tuple[Any, Any] | None, shown: Callable[[Any], str], unknown: str = "unknown") -> str:
    """An interval in words: exact, estimated, open or unknown."""
    if pair is None:
        return unknown
    low, high = pair
    if low == high:
        return shown(low)
    if high is None:
        return f"≥ {shown(low)}"
    return f"≈ {shown(low)} to {shown(high)}" if shown(low) != shown(high) else f"≈ {shown(low)}"


def _count(number: int) -> str:
    """In three digits from 10,000 on."""
    if number >= 10_000:
        for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
            scaled = number / size
            if scaled >= 0.9995:
                digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
                text = f"{scaled:,.{digits}f}"
                return (text.rstrip("0").rstrip(".") if digits else text) + unit
    return f"{number:,}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def summary_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    """The summary as a table of two columns, for people."""
    yield "rows", f"{summary.rows:,}" + (f" ({summary.kept:,} kept from before)" if summary.kept else "")
    yield "succeeded", _by(summary.succeeded)
    if summary.marked:
        yield "marked", f"{_by(summary.marked)}, kept with what is wrong with them"
    if summary.failed:
        yield "gave up", _by(summary.failed)
    if summary.canceled:
        yield "canceled", f"{summary.canceled:,}"
    if summary.failed_before:
        yield "failed before", f"{_by(summary.failed_before)}, not asked again"
    if summary.left_out:
        yield "left out", f"{summary.left_out:,}"
    if summary.not_run:
        yield "not run", f"{summary.not_run:,}"
    yield "attempts", f"{summary.attempts:,}"
    if summary.retries:
        yield "retries", _by(summary.retries)
    yield "output tokens", _span(summary.output_tokens, lambda count: f"{count:,.0f}")
    if summary.saved_tokens is not None:
        but = f" (unknown for {_rows(summary.saved_unknown)})" if summary.saved_unknown else ""
        yield "tokens saved", f"≈ {summary.saved_tokens:,}{but}"
    but = f" (price unknown for {_rows(summary.cost_unknown)})" if summary.cost_unknown and summary.cost_usd else ""
    yield "cost", _span(summary.cost_usd, lambda usd: f"${usd:,.4f}") + but
    if summary.runs_before:
        runs = f"{summary.runs_before:,} run{'' if summary.runs_before == 1 else 's'}"
        yield "before", f"{_span(summary.cost_before_usd, lambda usd: f'${usd:,.4f}')} in {runs}"
    yield "time", duration(summary.seconds)
    for name, quantiles in (("first token", summary.first_token_seconds), ("row", summary.row_seconds)):
        if quantiles is not None:
            yield name, f"p50 {quantiles.p50:.2f} s, p95 {quantiles.p95:.2f} s"
    if (pace := summary.pace) is not None and pace.allowed_per_second is not None and pace.limit is not None:
        waited = f", rows waited {duration(summary.waited_for_limits_seconds)} for them together"
        yield "limits", f"{pace.allowed_per_second * 60:,.0f} rows a minute allowed{waited}"
        if summary.waited_for_limits_seconds > summary.seconds:
            yield "faster", ADVICE[pace.limit]
    if summary.outages:
        times = "once" if summary.outages == 1 else f"{summary.outages:,} times"
        yield "down", f"{times}, {duration(summary.outage_seconds)}: no rows began meanwhile"
    if summary.lag_seconds > 0.05:
        yield "lag", f"a timer was {summary.lag_seconds:.2f} s late: this machine was too busy"
    for reason, example in summary.examples.items():
        row = f" (row {example.custom_id})" if example.custom_id else ""
        yield "for example", f"{reason}: {_short(example.message)}{row}"
    if known := [reason for reason in summary.examples if reason in REASONS]:
        yield "what to do", f"streamguard reason {known[0]}"
    if summary.stopped is not None:
        yield "stopped", summary.stopped.why
    if (following := _next_step(summary)) is not None:
        yield "next", following


LONGEST_EXAMPLE = 300
"""Characters of an example's message in the summary; the output has all of it."""


ADVICE: Final[Mapping[LimitName, str]] = {
    "requests": "requests a minute are the narrow limit: a higher tier of the account, or more of the work in each row",
    "input_tokens": "input tokens are the narrow limit: a smaller prompt, cache_control on what rows share (what a "
    "cache serves does not count), or a higher tier of the account",
    "output_tokens": "output tokens are the narrow limit: shorter answers, or a higher tier of the account",
    "tokens": "tokens are the narrow limit: a smaller prompt, shorter answers, or a higher tier of the account",
}
"""What would make a job faster that its limits held back, by the narrow limit."""


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 1] + "…"


def _next_step(summary: Summary) -> str | None:
    """What a person may do about rows that have no answer."""
    steps = []
    if summary.not_run or summary.canceled or summary.failed:
        steps.append("run again to go on: what succeeded is kept")
    if row := next((one.custom_id for one in summary.examples.values() if one.custom_id), None):
        steps.append(f"streamguard status OUT --show-row {row} tells a row's story")
    return "; ".join(steps) or None


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _by(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return f"{total:,}" + (f" ({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else "")


def summary_text(summary: Summary, width: int | None = None) -> str:
    """The table as plain text, aligned.

    :param width: see `terminal.columns`.
    """
    return aligned(summary_rows(summary), width)
