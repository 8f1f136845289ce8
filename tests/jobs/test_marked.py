"""Rows that are kept and marked: in the output, in the counts, in later runs, and at the other doors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamguard.batch.columns import ADDED, cells
from streamguard.jobs.job import Job
from streamguard.jobs.progress.progress import summary_text
from streamguard.jobs.report.report import report
from streamguard.jobs.report.report_html import page
from streamguard.jobs.report.status import look, status_text
from streamguard.jobs.report.timeline import timeline
from streamguard.jobs.store.journal import read_journal
from streamguard.jobs.store.journal_records import Known
from streamguard.jobs.store.resume import Rules, Selection, fate
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, Provider, results, run_job, write_job

POLICY = """
version: 1
timeouts: {total: 60}
json: {schema: {type: object, properties: {n: {type: integer}}, required: [n], additionalProperties: false}}
checks: [{reason: check.even, that: doc.n % 2 == 0, say: "{doc.n} is odd"}]
retry:
  attempts: 3
  rules:
    - {when: check.*, max_uses: 1, accept: marked}
    - {when: [json.*], max_uses: 1}
"""
ODD, EVEN = '{"n": 3}', '{"n": 4}'
SCRIPTS = {
    "even": [answer(EVEN)],
    "odd": [answer(ODD)],
    "mended": [answer(ODD), answer(EVEN)],
    "dead": [answer(DEAD)],
}


def a_job(folder: Path, **scripts: Any) -> Any:
    spec = write_job(folder, *SCRIPTS, policy=POLICY)
    provider = Provider(**(SCRIPTS | scripts))
    return spec, *run_virtual(run_job, spec, provider), provider


def line_of(folder: Path, row: str) -> bytes:
    return next(
        line for line in (folder / "out.jsonl").read_bytes().splitlines() if json.loads(line)["custom_id"] == row
    )


def test_the_result_of_a_marked_row(tmp_path: Path) -> None:
    """It succeeded, has its output, and says what is wrong with it and why it was kept."""
    a_job(tmp_path)
    assert results(tmp_path) == {"even": "succeeded", "odd": "succeeded", "mended": "succeeded", "dead": "json.schema"}
    own = json.loads(line_of(tmp_path, "odd"))["streamguard"]
    assert (own["output"], own["completed"], own["reasons"]) == ({"n": 3}, "whole", ["check.even"])
    assert own["marked"] == [
        {"reason": "check.even", "message": "3 is odd (at character 7, in /n)", "pointer": "/n"},
    ]
    assert own["attempts"][-1]["decision"]["action"] == "accept"
    for other in ("even", "mended"):
        assert "marked" not in json.loads(line_of(tmp_path, other))["streamguard"]


def test_the_counts(tmp_path: Path) -> None:
    """Summary, status and report: a marked row is a success, counted apart, with an example."""
    spec, _, summary, _ = a_job(tmp_path)
    assert (summary.succeeded, summary.marked) == ({"whole": 2, "marked": 1}, {"check.even": 1})
    assert (summary.failed, summary.failures) == ({"json.schema": 1}, 1)
    text = summary_text(summary)
    assert "succeeded  3 (whole 2, marked 1)" in text
    assert "marked  1 (check.even 1), kept with what is wrong with them" in text
    assert "for example  check.even: 3 is odd (at character 7, in /n) (row odd)" in text
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        status = look(journal, spec.out)
        found = report(journal, spec.out)
    assert (status.succeeded, status.marked, status.failed) == (3, {"check.even": 1}, {"json.schema": 1})
    assert "1 of them, kept with what is wrong with them (check.even 1)" in status_text(status)
    assert dict(found.succeeded) == {"whole": 2, "marked": 1}
    assert [(row.custom_id, row.reason, row.attempts, row.pointer) for row in found.marked] == [
        ("odd", "check.even", 2, "/n")
    ]
    html = page(found)
    assert "<h2>Marked rows: 1</h2>" in html
    assert "succeeded (marked)" in html


def test_its_story(tmp_path: Path) -> None:
    """`--show-row` tells the mark, and by which rule it was kept."""
    a_job(tmp_path)
    story = list(timeline(line_of(tmp_path, "odd")))
    why = (
        "retry.rules[0] was used 1 of 1 times; the attempt before failed in the same way, so the source itself may be "
        "wrong; the answer is kept, and marked (accept: marked)"
    )
    assert [line.strip() for line in story if "marked" in line] == [
        f"→ marked by rule 0: {why}",
        "marked check.even: 3 is odd (at character 7, in /n)",
    ]


def test_a_second_run_keeps_it(tmp_path: Path) -> None:
    """Only what failed is asked again."""
    spec, *_ = a_job(tmp_path)
    provider = Provider(dead=[answer(EVEN)])
    _, summary = run_virtual(run_job, spec, provider)
    assert (provider.asked, summary.kept) == (["dead"], 3)
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        assert look(journal, spec.out).marked == {"check.even": 1}


def test_a_journal_that_was_lost_is_made_of_the_output(tmp_path: Path) -> None:
    """The marks come back with the rows."""
    spec, *_ = a_job(tmp_path)
    for file in tmp_path.glob("out.jsonl.*"):
        file.unlink()
    job = Job.open(spec)
    job.start()
    try:
        assert look(job.journal, spec.out).marked == {"check.even": 1}
    finally:
        job.close()


@pytest.mark.parametrize(
    ("selection", "known", "expected"),
    [
        (Selection(reasons=("check.*",)), Known("succeeded", "check.even", "f", 0), "again"),
        (Selection(reasons=("json.*",)), Known("succeeded", "check.even", "f", 0), "unselected"),
        (Selection(reasons=("check.*",)), Known("succeeded", None, "f", 0), "unselected"),
        (Selection(), Known("succeeded", "check.even", "f", 0), "unselected"),
        (Selection(ids=("a",)), Known("succeeded", "check.even", "f", 0), "again"),
        (None, Known("succeeded", "check.even", "f", 0), "kept"),
    ],
)
def test_asking_for_marked_rows_again(selection: Selection | None, known: Known, expected: str) -> None:
    """`streamguard retry --reason` takes marks for reasons; nothing else asks for a marked row again."""
    assert fate("a", known, 0, Rules(only=selection))[0] == expected


def test_its_columns(tmp_path: Path) -> None:
    """In any engine's table: output and mark side by side."""
    a_job(tmp_path)
    found = cells(line_of(tmp_path, "odd"), asked=True, keep_message=False)
    assert list(found) == list(ADDED)
    assert {name: found[name] for name in ("output", "completed", "marked", "reason", "message")} == {
        "output": '{"n":3}',
        "completed": "whole",
        "marked": "check.even",
        "reason": None,
        "message": "3 is odd (at character 7, in /n)",
    }
    unmarked = cells(line_of(tmp_path, "even"), asked=True, keep_message=False)
    assert (unmarked["marked"], unmarked["message"]) == (None, None)
