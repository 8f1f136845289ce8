"""The log of what answers stated of limits: bounded, in the journal, and in the report."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamguard.engine.telemetry import LimitsSeen
from streamguard.jobs.report.limits_seen import LimitFigures, LimitsLog, Seen, figures
from streamguard.jobs.report.report import report
from streamguard.jobs.report.report_html import page
from streamguard.jobs.store.journal import read_journal
from streamguard.pace.limits import Limit, Limits
from streamguard.testing import answer, run_virtual, status
from tests.jobs.jobs import GOOD, Provider, run_job, write_job


def record(at: float, left: int = 50) -> LimitsSeen:
    """An answer that was sent a second before its head came."""
    limits = Limits(requests=Limit(50, left))
    return LimitsSeen(call="c", attempt=1, model="m", sent=at - 1, at=at, limits=limits)


def test_the_log_thins_itself_out() -> None:
    """A thousand answers leave at most eight, spread over all of them."""
    log = LimitsLog(most=8)
    for i in range(1000):
        log.take(record(100.0 + i), began=100.0)
    moments = [seen.at for seen in log.entries]
    assert 4 <= len(moments) <= 8
    assert moments == sorted(moments)
    assert moments[0] == 0.0
    assert moments[-1] > 700


def test_figures_are_of_each_limit_of_each_model() -> None:
    """A limit that changed shows each value once, and the least that was ever left."""
    stated = [Limit(50, 40), Limit(50, 10), Limit(100, 60)]
    seen = [Seen(sent=0, at=1, model="m", limits=Limits(requests=limit)) for limit in stated]
    assert figures(seen) == [LimitFigures(model="m", name="requests", per_minute=(50, 100), least_left=0.2, answers=3)]


HEAD = status(200, {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"})
REFUSED = status(
    429,
    {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0", "retry-after": "2"},
)


def test_a_job_keeps_what_its_answers_stated(tmp_path: Path) -> None:
    """Answers and refusals are in the journal, by their times since the run began, and in the report."""
    rules = "[{when: provider.rate_limited, respect_retry_after: true}]"
    text = f"version: 1\npace: off\ntimeouts: {{total: 60}}\nretry: {{attempts: 2, rules: {rules}}}\n"
    spec = write_job(tmp_path, "a", policy=text)
    run_virtual(lambda: run_job(spec, Provider(a=[REFUSED, [HEAD, *answer(GOOD)]]), concurrency=1))
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        found = report(journal, spec.out)
    assert [msgspec.to_builtins(seen) for seen in found.limits] == [
        {
            "sent": 0.0,
            "at": 0.0,
            "model": "m",
            "reason": "provider.rate_limited",
            "limits": {"requests": {"per_minute": 50, "left": 0, "resets_in": None}},
        },
        {
            "sent": 2.0,
            "at": 2.0,
            "model": "m",
            "limits": {"requests": {"per_minute": 50, "left": 49, "resets_in": None}},
        },
    ]
    html = page(found)
    assert "Limits as seen" in html
    assert "49 of 50" in html
