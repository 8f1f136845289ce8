"""Counting, and what is said about it: unknown is never zero, estimates are marked."""

from __future__ import annotations

import io
import json

import msgspec
import pytest

from streamguard.engine.telemetry import AttemptAborted, AttemptStarted, CallCompleted, RetryScheduled
from streamguard.errors import GaveUp, Interrupted
from streamguard.events import Failed, Usage
from streamguard.jobs.asking import ended
from streamguard.jobs.progress.progress import (
    Progress,
    duration,
    how,
    line,
    money,
    state,
    summary_rows,
    summary_text,
    tokens,
)
from streamguard.jobs.progress.summary import BudgetState, Carried, Interval, Quantiles, Reservoir, Tally
from streamguard.jobs.runner import Stop
from streamguard.jobs.store.results import About
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome, Times
from streamguard.pace.pace import PaceView
from streamguard.policy.model import Policy
from streamguard.retry.breaker import BreakerView
from streamguard.testing import run_virtual
from streamguard.usage import UsageRange
from streamguard.verdict import Decision, Trip


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def interval(*pairs: tuple[int | None, int | None]) -> Interval:
    made = Interval()
    for low, high in pairs:
        made.add(low, high)
    return made


def attempt(low: int, high: int, *, cost: Cost, ended=None, first: float | None = 0.5, saved=None) -> AttemptRecord:
    usage = UsageRange(low=Usage(output_tokens=low), high=Usage(output_tokens=high), exact=low == high)
    return AttemptRecord(
        number=1, usage=usage, cost=cost, ended=ended, times=Times(first_token=first, end=1.0), saved_tokens=saved
    )


def record(*attempts: AttemptRecord, seconds: float = 2.0, **more) -> dict:
    return {
        "attempts": attempts,
        "usage": UsageRange.total(one.usage for one in attempts),
        "cost": sum((one.cost for one in attempts), Cost(0, 0)),
        "seconds": seconds,
        **more,
    }


TRIP = Trip(reason="json.schema", message="m")


def tallied() -> tuple[Tally, Clock]:
    """Six of ten rows: three good in three ways, one given up, one canceled, one at work; two were kept."""
    clock = Clock()
    tally = Tally(10, 2, clock)
    bad = attempt(5, 9, cost=Cost(100, 200), ended=TRIP, first=None, saved=40)
    good = attempt(20, 20, cost=Cost(1000, 1000))
    unknown = attempt(1, 2, cost=Cost(None, None), ended=Failed(reason="provider.overloaded", message="busy"))
    came = [
        Outcome(**record(bad, good, lag=0.2), completed="whole"),
        Outcome(**record(good), completed="cut"),
        Outcome(**record(good), completed=None),
        GaveUp("m", reason="provider.overloaded", record=CallRecord(**record(unknown, seconds=9.0))),
        Interrupted("m", reason="operator.interrupt", record=CallRecord(**record(good)), by="x"),
    ]
    for one in came:
        tally.began()
        tally.hook(AttemptStarted(call="c", attempt=1, model="m"))
        clock.now += 2.0
        if isinstance(one, Outcome):
            tally.hook(CallCompleted(call="c", outcome=one))
        tally.took("", ended("", one, About(policy="p"), "f", {}, Policy()))
    tally.hook(AttemptAborted(call="c", attempt=bad))
    tally.hook(
        RetryScheduled(call="c", attempt=2, decision=Decision(action="retry", reason="json.schema", why="w", rule=0))
    )
    tally.began()
    tally.began()
    tally.put_back()
    return tally, clock


def test_the_summary_of_a_run() -> None:
    """Rows by what became of them; a cost that is partly unknown has no upper end."""
    tally, _ = tallied()
    summary = tally.summary(Stop("budget", "no room"))
    assert (summary.rows, summary.kept, summary.not_run, summary.failures) == (10, 2, 3, 1)
    assert (summary.succeeded, summary.failed, summary.canceled) == (
        {"whole": 1, "cut": 1, "unclaimed": 1},
        {"provider.overloaded": 1},
        1,
    )
    assert (summary.attempts, summary.retries) == (5, {"json.schema": 1})
    assert (summary.output_tokens, summary.saved_tokens, summary.saved_unknown) == ((86, 91), 40, 0)
    assert (summary.cost_usd, summary.cost_unknown) == ((0.0041, None), 1)
    assert (summary.seconds, summary.first_token_seconds, summary.row_seconds) == (
        10.0,
        Quantiles(0.5, 0.5),
        Quantiles(2.0, 9.0),
    )
    assert summary_text(summary).splitlines() == (
        [
            "         rows  10 (2 kept from before)",
            "    succeeded  3 (whole 1, cut 1, unclaimed 1)",
            "      gave up  1 (provider.overloaded 1)",
            "     canceled  1",
            "      not run  3",
            "     attempts  5",
            "      retries  1 (json.schema 1)",
            "output tokens  ≈ 86 to 91",
            " tokens saved  ≈ 40",
            "         cost  ≥ $0.0041 (price unknown for 1 row)",
            "         time  10 s",
            "  first token  p50 0.50 s, p95 0.50 s",
            "          row  p50 2.00 s, p95 9.00 s",
            "          lag  a timer was 0.20 s late: this machine was too busy",
            "  for example  provider.overloaded: busy",
            "   what to do  streamguard reason provider.overloaded",
            "      stopped  no room",
            "         next  run again to go on: what succeeded is kept",
        ]
    )


def test_the_line_of_a_run() -> None:
    """Everything a person looks for, and how long it will take at the recent rate."""
    tally, clock = tallied()
    clock.now += 2.0
    # Four rows in ten seconds since the first one ended; three to begin, and one that runs as long as the shortest.
    assert line(tally) == (
        "6/10 done · 9.0 s left · ≥ $0.0041 · 1 running · 1 retried · 1 gave up · 0.4 rows/s · "
        "≈ 86 to 91 tokens (7/s) · first token 0.5 s"
    )
    tally.budget = BudgetState("b", "micro_usd", 4_100, 25_000_000)
    assert " · budget $0.00 of $25.00 · " in line(tally)
    tally.budget = BudgetState("b", "tokens", 12_345, 1_000_000)
    assert " · budget 12.3k of 1M tokens · " in line(tally)


def test_the_state_for_machines() -> None:
    """The same as numbers: unknown is `null`, intervals are pairs."""
    tally, clock = tallied()
    clock.now += 2.0
    assert state(tally) == {
        "event": "progress",
        "rows": 10,
        "done": 6,
        "running": 1,
        "batches": None,
        "cooling_seconds": 0.0,
        "held": None,
        "succeeded": 3,
        "failed": {"provider.overloaded": 1},
        "marked": {},
        "retries": {"json.schema": 1},
        "rows_per_second": 0.4,
        "output_tokens": (86, 91),
        "cost_usd": [0.0041, None],
        "budget": None,
        "eta_seconds": 9.0,
        "pace": None,
        "seconds": 12.0,
    }


VIEW = PaceView(
    allowed_per_second=0.35, limit="input_tokens", left={"input_tokens": 0.93}, own=1.0, inflight=1, places=None
)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (VIEW, "0.4 rows/s of 0.35 the limits allow (input tokens, 93% left)"),
        (
            msgspec.structs.replace(VIEW, own=0.7),
            "0.4 rows/s of 0.35 the limits allow (input tokens, 93% left, at 70% after refusals)",
        ),
        (
            msgspec.structs.replace(VIEW, allowed_per_second=None, limit=None, places=12),
            "0.4 rows/s (12 at a time: no limits are stated)",
        ),
        (
            msgspec.structs.replace(VIEW, store="away", programs=16),
            "0.4 rows/s (the pace's store is away: at 1/16 by ourselves)",
        ),
    ],
)
def test_the_line_says_what_binds(view: PaceView, said: str) -> None:
    """The rate beside what the limits allow, and which of them is the narrow one."""
    tally, clock = tallied()
    clock.now += 2.0
    tally.paces = lambda: {"m": view}
    assert f" · {said} · " in line(tally)


def test_a_cool_down_is_said() -> None:
    """Rows that run and wait for it look idle otherwise; less than a second is not worth a word."""
    tally, _ = tallied()
    assert "nothing is sent" not in line(tally)
    tally.cooling = lambda: 42.3
    assert " running · nothing is sent for 42 s: the provider refuses · " in line(tally)
    assert state(tally)["cooling_seconds"] == 42.3


DOWN = BreakerView(model="m", base_url=None, reason="transport.connect", seconds=42.0, next_look=12.0)


def test_a_held_job_says_what_is_down() -> None:
    """Which endpoint, for how long, and when somebody looks; for machines the reason, too; a line in the summary."""
    tally, _ = tallied()
    tally.endpoint = "https://one.example"
    for second in range(42):
        tally.looked(msgspec.structs.replace(DOWN, seconds=float(second)), 1.0)
    tally.looked(DOWN, 1.0)
    assert " · held: https://one.example is down for 42 s, next look in 12 s · " in line(tally)
    assert state(tally)["held"] == {
        "why": "breaker",
        "endpoint": "https://one.example",
        "model": "m",
        "reason": "transport.connect",
        "down_seconds": 42.0,
        "seconds": 12.0,
    }
    tally.looked(msgspec.structs.replace(DOWN, looking=True, next_look=0.0), 1.0)
    assert "is down for 42 s, looking now" in line(tally)
    tally.looked(None, 1.0)
    assert "held" not in line(tally)
    assert ("down", "once, 44 s: no rows began meanwhile") in list(summary_rows(tally.summary()))


def test_the_time_left_is_no_shorter_than_the_limits_allow() -> None:
    """Three rows to begin, one each 2.86 s as the limits allow, and one that runs."""
    tally, clock = tallied()
    clock.now += 2.0
    tally.paces = lambda: {"m": VIEW}
    assert tally.eta == pytest.approx(3 / 0.35 + 0.75 * 2)


def test_the_summary_says_what_would_make_it_faster() -> None:
    """Only where rows waited for the limits longer than the job took: one line of advice, by the narrow limit."""
    tally, _ = tallied()
    tally.paces, tally.waited = (lambda: {"m": VIEW}), 90.0
    rows = dict(summary_rows(tally.summary()))
    assert rows["limits"] == "21 rows a minute allowed, rows waited 1 min 30 s for them together"
    assert rows["faster"].startswith("input tokens are the narrow limit: a smaller prompt, cache_control")
    tally.waited = 1.0
    assert "faster" not in dict(summary_rows(tally.summary()))


def test_what_earlier_runs_left_is_counted_apart() -> None:
    """Failures from before count as done and as failures, rows that were left out as neither; spend is carried over."""
    carried = Carried(runs=2, cost=(1_500_000, None), failed={"json.schema": 2}, left_out=3)
    tally = Tally(10, 4, Clock(), carried=carried)
    summary = tally.summary()
    assert (tally.done, tally.wanted, summary.not_run, summary.failures) == (6, 7, 1, 2)
    assert summary_text(summary).splitlines()[:10] == [
        "         rows  10 (4 kept from before)",
        "    succeeded  0",
        "failed before  2 (json.schema 2), not asked again",
        "     left out  3",
        "      not run  1",
        "     attempts  0",
        "output tokens  0",
        " tokens saved  ≈ 0",
        "         cost  $0.0000",
        "       before  ≥ $1.5000 in 2 runs",
    ]


def test_quantiles_of_many_values_are_a_samples() -> None:
    """Memory is bounded, and the median and the 95th percentile are within 2 % of the ranks."""
    many = Reservoir()
    for value in range(100_000):
        many.append(float((value * 7919) % 100_000))
    found = Quantiles.of(many)
    assert len(many) == 4096
    assert found is not None
    assert abs(found.p50 - 50_000) < 2_000
    assert abs(found.p95 - 95_000) < 2_000


def test_a_run_that_has_not_begun() -> None:
    """Nothing is known, and nothing is claimed."""
    tally = Tally(0, 0, Clock())
    summary = tally.summary()
    assert (line(tally), tally.eta, summary.cost_usd, summary.first_token_seconds) == (
        "0/0 done",
        None,
        (0.0, 0.0),
        None,
    )
    assert summary.output_tokens == (0, 0)


@pytest.mark.parametrize(
    ("pairs", "shown", "priced"),
    [
        ([(1234, 1234)], "1,234", "$0.0012"),
        ([(1_230_000, 1_230_000)], "1.23M", "$1.23"),
        ([(12_300, 15_000), (1, 1)], "≈ 12.3k to 15k", "≈ $0.01 to $0.02"),
        ([(1_230_000, 1_230_001)], "≈ 1.23M", "≈ $1.23"),
        ([(12_300, None)], "≥ 12.3k", "≥ $0.01"),
        ([(12_300, 12_300), (None, None)], "≥ 12.3k", "≥ $0.01"),
        ([(None, None)], "unknown", "cost unknown"),
        ([], "0", "$0.00"),
        ([(2_500_000_000, 2_500_000_000)], "2.5G", "$2,500.00"),
        ([(999_999, 999_999)], "1M", "$1.00"),
    ],
)
def test_intervals_in_words(pairs, shown: str, priced: str) -> None:
    """Exact, estimated, open-ended and unknown are told apart."""
    assert (tokens(interval(*pairs)), money(interval(*pairs))) == (shown, priced)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.6, "1 min 0 s")],
)
def test_durations(seconds: float, shown: str) -> None:
    """In the two units that matter."""
    assert duration(seconds) == shown


def test_quantiles_by_nearest_rank() -> None:
    """Of one value it is that one; of a hundred the fiftieth and the ninety-fifth."""
    assert (Quantiles.of([]), Quantiles.of([3.0]), Quantiles.of([float(n) for n in range(100, 0, -1)])) == (
        None,
        Quantiles(3.0, 3.0),
        Quantiles(50.0, 95.0),
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_where_progress_is_shown() -> None:
    """Live on a terminal, plain elsewhere, JSON for machines, not at all if told to be quiet."""
    found = [how(Terminal(), quiet=False), how(io.StringIO(), quiet=False), how(Terminal(), quiet=True)]
    assert found == ["live", "plain", "off"]
    assert [how(Terminal(), quiet=quiet, as_json=True) for quiet in (False, True)] == ["json", "off"]


async def shown_for(show, stream: io.StringIO, seconds: float) -> None:
    import anyio

    tally, _ = tallied()
    progress = Progress(tally, show, stream)
    with anyio.move_on_after(seconds):
        await progress.run()
    progress.say("a notice \x1b[31m")
    progress.close()


def test_plain_progress_is_a_line_now_and_then() -> None:
    """One in fifteen seconds, and what a model or a file says cannot colour it."""
    stream = io.StringIO()
    run_virtual(shown_for, "plain", stream, 31)
    lines = stream.getvalue().splitlines()
    assert [one.partition(" · ")[0] for one in lines] == ["6/10 done", "6/10 done", "a notice \\e[31m"]
    quiet = io.StringIO()

    async def off() -> None:
        await shown_for("off", quiet, 31)

    run_virtual(off)
    assert quiet.getvalue() == ""


def test_progress_for_machines_is_one_object_a_line() -> None:
    """Every five seconds; notices are objects, too."""
    stream = io.StringIO()
    run_virtual(shown_for, "json", stream, 11)
    lines = [json.loads(one) for one in stream.getvalue().splitlines()]
    assert [(one["event"], one.get("done"), one.get("text")) for one in lines] == [
        ("progress", 6, None),
        ("progress", 6, None),
        ("notice", None, "a notice \x1b[31m"),
    ]


def test_live_progress_leaves_the_terminal_as_it_was(monkeypatch) -> None:
    """The cursor is hidden and given back, and the line is gone at the end."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    run_virtual(shown_for, "live", stream, 1)
    text = stream.getvalue()
    assert "6/10 done" in text
    assert "retried: json.schema 1 " in text
    assert "gave up: provider.overloaded 1 " in text
    assert (text.count("\x1b[?25l"), text.count("\x1b[?25h")) == (1, 1)
    assert "a notice \\e[31m" in text
