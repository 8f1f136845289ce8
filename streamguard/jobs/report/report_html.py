"""A report as one HTML file: no scripts, nothing fetched, opens from a disk or a CI artefact.

In charge of words and layout. The figures are `report`'s, the charts `svg`'s. Every text of a model, a provider or a
file is escaped, its control characters spelled out, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from streamguard.jobs.progress.progress import duration, money, tokens
from streamguard.jobs.report import svg
from streamguard.jobs.report.excerpt import Excerpt
from streamguard.jobs.report.limits_seen import figures
from streamguard.jobs.report.report import MOST_ROWS, FailedRow, Histogram, Report
from streamguard.jobs.store.journal_records import Sample
from streamguard.pace.limits import NAMES, WORDS
from streamguard.terminal import printable

MOST_REASONS = 12
"""Reasons with a bar of their own."""

MOST_RUNS = 4
"""Runs with a timeline of their own: the last ones."""

STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#5b6572;--line:#d4d9df;--tile:#f5f7f9;--a:#2f6fb3;--b:#b3532f;--good:#2e8b57;
--warn:#d9a400;--bad:#c0392b}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--soft:#9aa5b1;--line:#333a41;--tile:#1c2126;
--a:#6aa5e0;--b:#e08a6a;--good:#5fbf8a;--warn:#c79a1e;--bad:#e0705f}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:var(--paper);
max-width:1120px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:0 0 .5rem}
.sub{color:var(--soft);margin:.25rem 0 1.5rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:.75rem;margin-bottom:1.75rem}
.tile{background:var(--tile);border-radius:8px;padding:.7rem .9rem}
.tile b{display:block;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:1.75rem 2rem;
margin-bottom:2rem}
section p{color:var(--soft);font-size:.85rem;margin:.3rem 0 0}
svg{width:100%;height:auto;display:block}svg text{font-size:12px;fill:var(--ink)}svg text.soft{fill:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th{text-align:left;color:var(--soft);font-weight:500;border-bottom:1px solid var(--line);padding:.35rem .6rem .35rem 0}
td{vertical-align:top;border-bottom:1px solid var(--line);padding:.45rem .6rem .45rem 0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
td code{overflow-wrap:anywhere}td.r code{white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0 0;background:var(--tile);border-radius:6px;
padding:.4rem .6rem}
mark{background:var(--bad);color:#fff;border-radius:2px;padding:0 .1em}
.scroll{overflow-x:auto}
"""


def page(report: Report, *, now: datetime | None = None) -> str:
    """The whole file.

    :param now: when it is made; the clock's time by default.
    """
    status = report.status
    title = f"{status.name or 'job'}: {status.output}"
    made = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    body = "".join(
        [
            f"<h1>{_safe(status.name or 'A job')}</h1>",
            f'<p class="sub">{_safe(" · ".join([*_about(report), made]))}</p>',
            f'<div class="tiles">{"".join(_tiles(report))}</div>',
            f'<div class="grid">{"".join(_charts(report))}</div>',
            *_drift(report),
            *_limits(report),
            *_runs(report),
            *_marked(report),
            *_failures(report),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _about(report: Report) -> Iterator[str]:
    spec = report.about.get("spec") or {}
    yield report.status.output
    for name in ("input", "policy", "schema", "template", "model"):
        if spec.get(name):
            yield f"{name} {spec[name]}"
    yield f"state: {report.status.state}"


def _tiles(report: Report) -> Iterator[str]:
    status = report.status
    share = f"{status.succeeded / status.rows:.1%} of {status.rows:,} rows" if status.rows else "no rows"
    yield _tile(f"{status.succeeded:,}", f"succeeded, {share}")
    dead = f", {status.dead:,} of them dead" if status.dead else ""
    yield _tile(f"{sum(status.failed.values()):,}", f"failed{dead}")
    if status.not_asked or status.canceled:
        yield _tile(f"{status.not_asked + status.canceled:,}", "without a result yet")
    low, high = status.cost_usd
    spent = f"${low:,.4f}" if low == high else f"≥ ${low:,.4f}" if high is None else f"≈ ${low:,.4f} to ${high:,.4f}"
    count = len(status.runs)
    yield _tile(spent, f"spent in {count} run{'' if count == 1 else 's'}, {status.attempts:,} attempts")
    yield _tile(tokens(report.accepted.tokens), "output tokens of accepted answers")
    yield _tile(tokens(report.rejected.tokens), f"wasted on rejected attempts, {money(report.rejected.cost)}")
    avoided = f"≈ {report.avoided.low:,}" if report.avoided.known else "unknown"
    yield _tile(avoided, "output tokens that aborts avoided")


def _tile(value: str, words: str) -> str:
    return f'<div class="tile"><b>{_safe(value)}</b><span>{_safe(words)}</span></div>'


def _charts(report: Report) -> Iterator[str]:
    yield _chart("Rows by outcome", svg.bars(list(_outcomes(report)), "Rows by outcome"))
    yield _chart(
        "Attempts that were not accepted, by reason",
        svg.bars(list(_reasons(report)), "Attempts by reason"),
        "With the output tokens that each kind cost.",
    )
    yield _chart("Output tokens", svg.bars(list(_tokens(report)), "Output tokens"), "Upper ends of what is estimated.")
    yield _chart(
        "Where documents died",
        _log(report.offsets, "Byte offset of the first dead byte", lambda value: f"{value:,.0f}"),
        "Bytes from the document's start to the first one that nothing could repair.",
    )
    yield _chart(
        "First token", _log(report.first_token, "Seconds to the first token", _seconds), "Seconds, all attempts."
    )
    yield _chart(
        "Row latency",
        _log(report.latency, "Seconds from a row's first attempt to its result", _seconds),
        "Seconds from a row's first attempt to its result, retries and waits included.",
    )
    for run in list(report.samples)[-MOST_RUNS:]:
        yield _timeline(run, report.samples[run])


def _chart(title: str, drawn: str, words: str = "") -> str:
    said = f"<p>{_safe(words)}</p>" if words else ""
    return f"<section><h2>{_safe(title)}</h2>{drawn}{said}</section>"


def _outcomes(report: Report) -> Iterator[svg.Bar]:
    status, all_rows = report.status, max(1, report.status.rows)

    def bar(label: str, count: int, colour: str) -> svg.Bar:
        return svg.Bar(label, count, f"{count:,} ({count / all_rows:.1%})", colour)

    for how, count in report.succeeded.most_common():
        yield bar(f"succeeded ({how})", count, "soft" if how == "marked" else "good")
    named = list(status.failed.items())
    for reason, count in named[:MOST_REASONS]:
        yield bar(reason, count, "bad")
    if rest := sum(count for _, count in named[MOST_REASONS:]):
        yield bar("other reasons", rest, "bad")
    for label, count in (("canceled", status.canceled), ("no result", status.not_asked)):
        if count:
            yield bar(label, count, "soft")


def _reasons(report: Report) -> Iterator[svg.Bar]:
    ranked = sorted(report.ended.items(), key=lambda item: -item[1].attempts)
    for reason, spent in ranked[:MOST_REASONS]:
        yield svg.Bar(reason, spent.attempts, f"{spent.attempts:,}, {tokens(spent.tokens)} tokens", "b")


def _tokens(report: Report) -> Iterator[svg.Bar]:
    for label, interval, colour in (
        ("accepted", report.accepted.tokens, "good"),
        ("wasted", report.rejected.tokens, "bad"),
        ("avoided", report.avoided, "a"),
    ):
        pair = interval.pair
        value = 0 if pair is None else pair[0] if pair[1] is None else pair[1]
        yield svg.Bar(label, value, ("≈ " if label == "avoided" and interval.known else "") + tokens(interval), colour)


def _log(found: Histogram, title: str, shown: Callable[[float], str]) -> str:
    quantiles = found.quantiles
    marks = (
        []
        if quantiles is None
        else [
            svg.Mark(quantiles.p50, f"p50 {shown(quantiles.p50)}"),
            svg.Mark(quantiles.p95, f"p95 {shown(quantiles.p95)}"),
        ]
    )
    if len(marks) == 2 and marks[0].at == marks[1].at:
        marks = marks[:1]
    return svg.histogram(found.bins(), title, shown, marks)


def _seconds(value: float) -> str:
    return f"{value:.3g}"


def _timeline(run: int, samples: Sequence[Sample]) -> str:
    start = samples[0].at
    points = [(sample.at - start, float(sample.running)) for sample in samples]
    shaded = [(sample.at - start, sample.at - start + sample.cooling) for sample in samples if sample.cooling > 0]
    end = points[-1][0]
    marks = [svg.Mark(0, "0 s"), svg.Mark(end, duration(end))]
    drawn = svg.timeline(points, f"Rows under way in run {run}", shaded, marks)
    words = "Rows under way." + (" Shaded: the provider was left alone after a refusal." if shaded else "")
    return _chart(f"Run {run}: concurrency", drawn, words)


def _drift(report: Report) -> Iterator[str]:
    """How the last run differs from earlier ones."""
    if report.status.drift:
        yield "<h2>The last run differs from earlier ones</h2>"
        yield f"<ul>{''.join(f'<li>{_safe(one)}</li>' for one in report.status.drift)}</ul>"


def _limits(report: Report) -> Iterator[str]:
    """The rate limits that answers stated: what they came to, and the log."""
    if not report.limits:
        return
    heads = ("limit", "per minute, as stated", "least that was left", "answers")
    yield '<section class="scroll"><h2>Limits as seen</h2>'
    yield _table(
        ("model", *heads),
        (
            (
                one.model or "",
                WORDS[one.name],
                " → ".join(f"{value:,}" for value in one.per_minute[-4:]),
                f"{one.least_left:.0%}",
                f"{one.answers:,}",
            )
            for one in figures(report.limits)
        ),
    )
    yield "<details><summary>The log: what each answer stated as left, of how much a minute</summary>"
    yield _table(
        ("sent, s", "head, s", "model", *(WORDS[name] for name in NAMES), "refused"),
        (
            (
                f"{seen.sent:.2f}",
                f"{seen.at:.2f}",
                seen.model or "",
                *("" if (one := stated.get(name)) is None else f"{one.left:,} of {one.per_minute:,}" for name in NAMES),
                seen.reason or "",
            )
            for seen in report.limits
            for stated in [dict(seen.limits)]
        ),
    )
    yield "</details></section><br>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _runs(report: Report) -> Iterator[str]:
    if len(report.status.runs) < 2:
        return
    yield '<section class="scroll"><h2>Runs</h2><table><thead><tr><th>run</th><th>began</th><th>ended</th>'
    yield "".join(f'<th class="n">{name}</th>' for name in ("rows", "attempts", "lost under way", "cost"))
    yield "</tr></thead><tbody>"
    for run in report.status.runs:
        low, high = run.cost_usd
        cost = f"≥ ${low:,.4f}" if high is None else f"${high:,.4f}"
        took = "" if run.seconds is None else f" after {duration(run.seconds)}"
        yield (
            f'<tr><td>{run.number}</td><td>{_safe(run.began)}</td><td>{_safe(run.state + took)}</td><td class="n">'
            f'{run.asked:,} of {run.todo:,}</td><td class="n">{run.attempts:,}</td><td class="n">{run.lost:,}</td>'
            f'<td class="n">{_safe(cost)}</td></tr>'
        )
    yield "</tbody></table></section><br>"


def _marked(report: Report) -> Iterator[str]:
    """The rows that were kept with what is wrong with them."""
    if count := sum(report.status.marked.values()):
        yield from _listed("Marked rows", count, report.marked, "what is wrong with the answer that was kept")
        yield "<br>"


def _failures(report: Report) -> Iterator[str]:
    if count := sum(report.status.failed.values()):
        yield from _listed("Failed rows", count, report.failed, "why, and where the answer died")


def _listed(title: str, count: int, rows: Sequence[FailedRow], why: str) -> Iterator[str]:
    shown = f"the first {MOST_ROWS:,} of {count:,}" if count > MOST_ROWS else f"{count:,}"
    yield f'<section class="scroll"><h2>{title}: {shown}</h2><table><thead><tr><th>row</th><th>reason</th>'
    yield f'<th class="n">attempts</th><th>{why}</th></tr></thead><tbody>'
    for row in rows:
        yield (
            f'<tr><td><code>{_safe(row.custom_id)}</code></td><td class="r"><code>{_safe(row.reason)}</code></td>'
            f'<td class="n">{row.attempts}</td><td>{_safe(row.message)}{_where(row)}</td></tr>'
        )
    yield "</tbody></table></section>"


def _where(row: FailedRow) -> str:
    facts = [
        *([f"byte {row.offset}"] if row.offset is not None else []),
        *([f"at {row.pointer}"] if row.pointer else []),
        *([f"keyword {row.keyword}"] if row.keyword else []),
    ]
    place = f"<p>{_safe(', '.join(facts))}</p>" if facts else ""
    return place + ("" if row.excerpt is None else f"<pre>{_excerpt(row.excerpt)}</pre>")


def _excerpt(found: Excerpt) -> str:
    dead = _safe(found.after[:1]) or "end"
    return (
        f"{'…' * found.cut_before}{_safe(found.before)}<mark>{dead}</mark>{_safe(found.after[1:])}"
        f"{'…' * found.cut_after}"
    )


def _safe(text: str) -> str:
    return escape(printable(text))
