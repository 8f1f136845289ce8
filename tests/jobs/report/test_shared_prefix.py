"""What rows share and nobody caches: found in the order in which a cache sees it, and priced."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.jobs.job import Job
from streamguard.jobs.report.forecast import forecast, forecast_text, prefix_notices
from streamguard.jobs.report.shared_prefix import LONG_ENOUGH, PrefixFinder, PrefixHint, _common
from streamguard.pricing.price import PriceSpec
from tests.jobs.jobs import POLICY, batch_line, write_job

LONG = "The rules of the house are many. " * 400
PRICE = PriceSpec(input="10", output="10").price()


def params(own: str, system: Any = LONG, **fields: Any) -> dict[str, Any]:
    """A request whose rows differ in what the user says."""
    return {"model": "m", "system": system, "messages": [{"role": "user", "content": own}], **fields}


def hint(*requests: dict[str, Any]) -> PrefixHint | None:
    """What is found in some requests."""
    finder = PrefixFinder()
    for one in requests:
        finder.take(one)
    return finder.hint({"m": PRICE})


def test_a_long_system_text_is_worth_caching() -> None:
    """Ten rows: one write and nine reads cost a fifth of ten inputs."""
    found = hint(*(params(f"row {i}") for i in range(10)))
    assert found is not None
    assert (found.model, found.rows) == ("m", 10)
    assert found.tokens > LONG_ENOUGH
    assert found.share > 0.95
    assert found.saved == pytest.approx(0.785, abs=0.03)
    assert found.saves_usd == pytest.approx(found.tokens * (10 - 1.25 - 0.9) * 10 / 1e6)


@pytest.mark.parametrize(
    "requests",
    [
        [params("one row")],
        [params(f"row {i}", system="Short.") for i in range(9)],
        [params(f"row {i}", system=f"{i} {LONG}") for i in range(9)],
        [
            params(f"row {i}", [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}])
            for i in range(9)
        ],
    ],
    ids=["one row", "short", "the difference comes first", "marked already"],
)
def test_nothing_is_said_where_nothing_helps(requests: list[dict[str, Any]]) -> None:
    """A row alone, a short prefix, a prefix that differs from its first word, and one that is cached already."""
    assert hint(*requests) is None


@given(st.text(max_size=30), st.text(max_size=10), st.text(max_size=10))
def test_the_common_beginning_is_the_longest(shared: str, one: str, other: str) -> None:
    """It begins both, and one character more does not."""
    a, b = shared + one, shared + other
    found = _common(a, b)
    assert a.startswith(found)
    assert b.startswith(found)
    assert len(found) >= len(shared)
    assert len(found) in (len(a), len(b)) or a[len(found)] != b[len(found)]


def test_a_dry_run_and_a_check_say_so(tmp_path) -> None:
    """One line each, with what to do."""
    lines = [batch_line(f"row-{i}", f"{i}", system=LONG) for i in range(5)]
    job = Job.open(write_job(tmp_path, *lines, policy=POLICY), dry=True)
    try:
        said = prefix_notices(job)
        text = forecast_text(forecast(job), [], 10_000)
    finally:
        job.close()
    assert len(said) == 1
    assert said[0].startswith("5 rows share their first ≈ ")
    assert "cache: true" in said[0]
    assert said[0] in text
