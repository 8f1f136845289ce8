"""What a run would do and cost, before anything is sent."""

from __future__ import annotations

import json
import os

import msgspec

from streamguard.events import Usage
from streamguard.jobs.amount import Amount
from streamguard.jobs.job import Job
from streamguard.jobs.report.forecast import forecast, forecast_text
from streamguard.jobs.store.resume import Rules
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, GOOD, POLICY, Provider, batch_line, run_job, write_job

PRICED = POLICY + 'prices: {m: {input: "1.00", output: "10.00"}}\n'


def looked_at(spec):
    """A forecast, for which nothing was created or changed."""
    folder = os.path.dirname(spec.out)
    before = {name: (os.stat(f"{folder}/{name}").st_mtime_ns, os.stat(f"{folder}/{name}").st_size) for name in os.listdir(folder)}  # fmt: skip
    job = Job.open(spec, dry=True)
    try:
        return forecast(job), job.notices
    finally:
        job.close()
        assert {
            name: (os.stat(f"{folder}/{name}").st_mtime_ns, os.stat(f"{folder}/{name}").st_size)
            for name in os.listdir(folder)
        } == before


def test_before_the_first_run(tmp_path) -> None:
    """Nothing is known of answers, so they may be empty or as long as they are allowed to be."""
    spec = write_job(tmp_path, *(batch_line(f"r{n}", "word " * 100) for n in range(10)), policy=PRICED)
    found, notices = looked_at(spec)
    assert (found.rows, found.todo, found.kept, found.models, found.attempts) == (10, 10, 0, {"m": 10}, 2)
    low, high = found.input_tokens
    assert low < 10 * 100 < high
    assert (found.output_tokens, found.typical_output_tokens, found.unpriced) == ((0, 1000), None, ())
    assert found.cost_usd is not None
    assert (found.cost_usd[0], round(found.cost_usd[1], 6)) == (low / 1e6, round(high / 1e6 + 1000 * 10 / 1e6, 6))
    assert found.worst_cost_usd is not None
    assert found.worst_cost_usd > 2 * found.cost_usd[1]
    lines = forecast_text(found, notices).splitlines()
    assert lines[0] == "         rows  10"
    assert lines[1] == "       to ask  10 (m 10)"
    assert lines[-1] == "nothing was sent"


def test_after_a_run_answers_tell_how_long_they_are(tmp_path) -> None:
    """What succeeded is kept and teaches; what failed is asked again, unless told otherwise."""
    spec = write_job(tmp_path, "a", "b", "c", policy=PRICED)
    good = [answer(GOOD, usage=Usage(input_tokens=9, output_tokens=40))]
    run_virtual(run_job, spec, Provider(a=good, b=good, c=[answer(DEAD)]))
    found, _ = looked_at(spec)
    assert (found.todo, found.kept, found.typical_output_tokens, found.output_tokens) == (1, 2, 40, (40, 100))
    found, _ = looked_at(msgspec.structs.replace(spec, rules=Rules(retry_failed=False)))
    assert (found.todo, found.failed_before, found.cost_usd) == (0, {"json.schema": 1}, (0.0, 0.0))
    assert "not asked  1 that failed before (json.schema 1)" in forecast_text(found, [])
    found, _ = looked_at(msgspec.structs.replace(spec, fresh=True))
    assert (found.todo, found.kept, found.typical_output_tokens) == (3, 0, None)


def test_a_part_of_it(tmp_path) -> None:
    """A limit or a sample counts what it leaves out."""
    spec = write_job(tmp_path, *(f"r{n}" for n in range(10)), policy=PRICED)
    assert [
        (found.todo, found.left_out)
        for found, _ in (
            looked_at(msgspec.structs.replace(spec, limit=3)),
            looked_at(msgspec.structs.replace(spec, sample=Amount(percent=40))),
        )
    ] == [(3, 7), (4, 6)]


def test_without_a_price_no_cost_is_made_up(tmp_path) -> None:
    """The models are named, and what to do."""
    found, notices = looked_at(write_job(tmp_path, "a"))
    assert (found.cost_usd, found.worst_cost_usd, found.unpriced) == (None, None, ("m",))
    assert "cost  unknown: no price for m; give prices: in the policy" in forecast_text(found, notices)
    assert json.loads(json.dumps(msgspec.to_builtins(found)))["cost_usd"] is None


def test_an_output_without_a_journal_is_looked_at_too(tmp_path) -> None:
    """What a real run would take over counts as kept."""
    spec = write_job(tmp_path, "a", "b")
    run_virtual(run_job, spec, Provider(other=[answer(GOOD)]))
    (tmp_path / "out.jsonl.journal").unlink()
    found, notices = looked_at(spec)
    assert (found.kept, found.todo) == (2, 0)
    assert notices == [f"{spec.out}: 2 results that its journal did not have are kept"]
