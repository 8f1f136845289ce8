"""A job's figures, and the page that shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import msgspec
import pytest

from streamguard.jobs.report import svg
from streamguard.jobs.report.report import Histogram, report
from streamguard.jobs.report.report_html import page
from streamguard.jobs.report.status import look, status_text
from streamguard.jobs.store.journal import open_journal, read_journal
from streamguard.jobs.store.journal_records import Sample, Spent
from streamguard.testing import answer, error, pause, run_virtual
from tests.jobs.jobs import DEAD, GOOD, POLICY, Provider, run_job, write_job

PRICED = POLICY + 'prices: {m: {input: "1.00", output: "10.00"}}\n'
NASTY = '{"n": "<script>alert(1)</script>\x07'


def a_job(tmp_path):
    """Six rows: two good, one good the second time, one the provider was busy for, two that never are."""
    spec = write_job(tmp_path, *"abcdef", policy=PRICED)
    good = [[pause(0.5), *answer(GOOD)]]
    scripts = {"a": good, "b": good, "c": [answer(DEAD), *good], "d": [error("overloaded_error"), *good]}
    run_virtual(run_job, spec, Provider(**scripts, e=[answer(DEAD)], f=[answer(NASTY)]))
    return spec


def read(spec):
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        return report(journal, spec.out)


def test_the_figures_of_a_job(tmp_path) -> None:
    """Rows by outcome, attempts by reason, tokens and money by what became of them, and where answers died."""
    found = read(a_job(tmp_path))
    assert dict(found.succeeded) == {"whole": 4}
    assert found.status.failed == {"json.schema": 2}
    assert {reason: spent.attempts for reason, spent in found.ended.items()} == {
        "json.schema": 5,
        "provider.overloaded": 1,
    }
    assert (found.accepted.attempts, found.rejected.attempts) == (4, 6)
    assert found.accepted.tokens.pair == (8, 8)
    assert found.rejected.cost.unknown == 0
    assert (found.offsets.count, found.offsets.bins()[0][2]) == (5, 5)
    assert found.latency.count == 6
    assert [row.custom_id for row in found.failed] == ["e", "f"]
    row = found.failed[0]
    assert (row.reason, row.attempts, row.offset, row.pointer) == ("json.schema", 2, 6, "/n")
    assert row.excerpt is not None
    assert (row.excerpt.before, row.excerpt.after[:1]) == ('{"n": ', '"')
    assert max(sample.running for sample in found.samples[1]) == 6


class Page(HTMLParser):
    """Counts tags, and keeps what is marked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.marked: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "line", "rect", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "path"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["mark"]:
            self.marked.append(data)


def test_the_page_is_one_file_that_runs_nothing(tmp_path) -> None:
    """Every tag is closed, no script, no link, nothing fetched; what models said is text; dead bytes are marked."""
    text = page(read(a_job(tmp_path)), now=datetime(2026, 11, 21, tzinfo=UTC))
    found = Page(text)
    assert found._open == []
    assert {"script", "link", "img", "iframe", "object", "a"}.isdisjoint(found.tags)
    assert [name for name, value in found.attributes if name.startswith("on") or name in ("href", "src")] == []
    assert "default-src 'none'" in text
    assert found.tags.count("svg") == 7
    assert found.marked == ['"', '"']
    assert "2026-11-21 00:00 UTC" in text
    assert re.search(r"json\.schema</text>", text)


def test_a_job_that_was_never_run_has_a_page_too(tmp_path) -> None:
    """Empty charts say so."""
    with open_journal(str(tmp_path / "out.jsonl")) as journal:
        journal.say(name="n")
        found = report(journal, "out.jsonl")
    text = page(found)
    assert text.count("nothing yet") >= 5
    assert Page(text)._open == []


def test_cool_downs_are_shaded_and_runs_listed(tmp_path) -> None:
    """From the states that a run noted; with several runs there is a table of them."""
    with open_journal(str(tmp_path / "out.jsonl")) as journal:
        for number in (1, 2):
            journal.start(5, 5)
            for second in range(10):
                cooling = 2.0 if second == 4 else 0.0
                journal.sample(Sample(number, 1000.0 * number + second, second, 0, 0, 0, cooling, None))
            journal.end("finished")
        text = page(report(journal, "out.jsonl"))
    assert text.count("<title>cooling down</title>") == 2
    assert "Run 2: concurrency" in text
    assert text.count("finished after") == 2


def test_bins_of_a_histogram_have_no_gaps() -> None:
    """Equal steps of the logarithm, from the first to the last; quantiles are of the values."""
    found = Histogram(per_decade=1)
    for value in (0.5, 2, 3, 250):
        found.add(value)
    assert [(round(low, 3), round(high, 3), count) for low, high, count in found.bins()] == [
        (0.1, 1.0, 1),
        (1.0, 10.0, 2),
        (10.0, 100.0, 0),
        (100.0, 1000.0, 1),
    ]
    assert found.quantiles is not None
    assert (found.quantiles.p50, found.quantiles.p95) == (2, 250)
    assert Histogram().bins() == []


def test_what_a_label_says_cannot_break_a_chart() -> None:
    """Labels are escaped, control characters spelled out."""
    drawn = svg.bars([svg.Bar("</svg><script>\x1b[2J", 1, "&")], "<t>")
    assert "<script" not in drawn
    assert "&lt;/svg&gt;&lt;script&gt;\\e[2J" in drawn
    assert Page(drawn)._open == []


@pytest.mark.parametrize("values", [[5.0], [1.0, 1.0], [0.0001, 10_000.0]])
def test_a_histogram_of_anything_can_be_drawn(values) -> None:
    """One value, equal values, eight orders of magnitude."""
    found = Histogram()
    for value in values:
        found.add(value)
    quantiles = found.quantiles
    assert quantiles is not None
    drawn = svg.histogram(found.bins(), "t", str, [svg.Mark(quantiles.p50, "p50"), svg.Mark(1e9, "out of it")])
    assert drawn.count("stroke-dasharray") == 1
    assert "nan" not in drawn


# Status


def test_how_a_job_stands(tmp_path) -> None:
    """Rows, reasons, spend and runs; for machines and for people."""
    spec = a_job(tmp_path)
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        status = look(journal, spec.out)
    assert (status.state, status.rows, status.succeeded, status.failed) == ("finished", 6, 4, {"json.schema": 2})
    assert (status.not_asked, status.dead, status.in_flight, len(status.runs)) == (0, 0, (), 1)
    assert status.attempts == 10
    lines = status_text(status).splitlines()
    assert lines[1:6] == [
        "     state  finished",
        "      rows  6",
        " succeeded  4",
        "    failed  2 (json.schema 2)",
        "what to do  streamguard reason json.schema",
    ]


def test_a_run_whose_process_is_gone_was_killed(tmp_path) -> None:
    """One that is there runs; of one on another machine nobody can tell, so it is taken to."""
    with open_journal(str(tmp_path / "out.jsonl")) as journal:
        journal.start(9, 9)
        journal.begin("a")
        journal.finish("b", b"{}", type="succeeded", reason=None, fingerprint=None, spent=Spent(cost=(None, None)))
        status = look(journal, "out.jsonl")
        assert (status.state, status.in_flight, status.not_asked) == ("running", ("a",), 8)
        assert status.cost_usd == (0.0, None)
        assert "process" in status_text(status)
        states = []
        for pid, host in ((2**22 + 1, None), (2**22 + 1, "elsewhere")):
            journal._db.execute("UPDATE runs SET pid = ?, host = coalesce(?, host)", (pid, host))
            states.append(look(journal, "out.jsonl").state)
        assert states == ["killed", "running"]
        assert msgspec.json.encode(status)
