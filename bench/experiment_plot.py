"""The experiment as one self-contained HTML page: bars as inline SVG, and the table. It measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = {"plain": "#8a8f98", "streamed": "#b5a642", "instructor": "#9467bd", "syntax": "#2c7fb8"}
COLOURS["schema"] = "#0b5394"
WIDTH, BAR, GAP, LABEL = 760, 16, 22, 190

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2rem auto;padding:0 1rem}
body{color:#1c1e21;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;text-align:right}
td:first-child,th:first-child{text-align:left}
thead{border-bottom:1px solid #999}svg text{font:13px system-ui,sans-serif}
@media (prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181c}svg text{fill:#e6e6e6}}
"""


def page(found: Mapping[str, Sequence[Any]], cpu: Mapping[int, Mapping[str, float]]) -> str:
    """The whole page. `found` has a sequence of results by mix; `cpu` milliseconds by deltas and way."""
    charts = [
        _bars("Tokens generated for one valid answer", {name: _per_valid(results) for name, results in found.items()}),
        _bars(
            "Seconds until an answer is valid, 99th percentile",
            {name: {one.way: one.p99 for one in results} for name, results in found.items()},
        ),
        _bars(
            "Client CPU for one good answer, ms",
            {f"{deltas} deltas": dict(costs) for deltas, costs in cpu.items()},
        ),
    ]
    tables = "".join(_table(name, results) for name, results in found.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Is streaming worth it?</title>'
        f"<style>{STYLE}</style>"
        f"<h1>Is streaming worth it when a machine reads the answer?</h1>{''.join(charts)}{tables}</html>\n"
    )


def _per_valid(results: Sequence[Any]) -> dict[str, float]:
    documents = results[0].documents
    return {one.way: one.tokens / max(1, round(one.valid * documents)) for one in results}


def _bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    most = max((value for bars in groups.values() for value in bars.values()), default=1.0) or 1.0
    parts, y = [], 0
    for group, bars in groups.items():
        parts.append(f'<text x="0" y="{y + 13}" font-weight="600">{escape(group)}</text>')
        y += GAP
        for way, value in bars.items():
            width = (WIDTH - LABEL - 90) * value / most
            parts.append(f'<text x="12" y="{y + 12}">{escape(way)}</text>')
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 3}" fill="{COLOURS.get(way, "#666")}"/>'
            )
            parts.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{value:,.4g}</text>')
            y += BAR
        y += 8
    return (
        f'<h2>{escape(title)}</h2><svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {y}" width="100%">'
        f"{''.join(parts)}</svg>"
    )


def _table(name: str, results: Sequence[Any]) -> str:
    head = "".join(
        f"<th>{title}</th>" for title in ("way", "valid", "right", "requests", "tokens", "USD", "p50 s", "p99 s")
    )
    rows = "".join(
        f"<tr><td>{escape(one.way)}</td><td>{one.valid:.1%}</td><td>{_share(one.right)}</td><td>{one.requests}</td><td>{one.tokens:,}</td>"
        f"<td>{'-' if one.usd is None else f'{one.usd:.4f}'}</td><td>{one.p50:.1f}</td><td>{one.p99:.1f}</td></tr>"
        for one in results
    )
    return f"<h2>{escape(name)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _share(right: float | None) -> str:
    return "-" if right is None else f"{right:.1%}"
