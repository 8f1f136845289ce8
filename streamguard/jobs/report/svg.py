"""Charts as inline SVG: bars, a histogram, a timeline. Text in, text out.

In charge of geometry. Colours are CSS variables of the page (`--ink`, `--soft`, `--line`, `--a`, `--b`, `--warn`), so a
chart follows the page's light or dark. It knows no jobs. Whatever is shown is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec

from streamguard.terminal import printable

WIDTH = 520
ROW = 24
PLOT = 150


class Bar(msgspec.Struct, frozen=True):
    """One bar, and what stands at its end."""

    label: str
    value: float
    text: str
    colour: str = "a"


class Mark(msgspec.Struct, frozen=True):
    """A place on an axis with a name."""

    at: float
    text: str


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars, one below the other."""
    if not rows:
        return _nothing(title)
    most = max(row.value for row in rows) or 1.0
    left = min(220.0, 10 + max(len(row.label) for row in rows) * 6.6)
    room = WIDTH - left - 10 - max(len(row.text) for row in rows) * 6.6
    parts = []
    for index, row in enumerate(rows):
        y = index * ROW
        width = max(1.0 if row.value else 0.0, room * row.value / most)
        size = f'width="{width:.1f}" height="{ROW - 8}" rx="2"'
        parts += [
            _text(left - 8, y + 16, row.label, anchor="end"),
            f'<rect x="{left:.1f}" y="{y + 4}" {size} fill="var(--{row.colour})"/>',
            _text(left + width + 6, y + 16, row.text, soft=True),
        ]
    return _svg(title, len(rows) * ROW + 4, parts)


def histogram(
    bins: Sequence[tuple[float, float, int]], title: str, shown: Callable[[float], str], marks: Iterable[Mark] = ()
) -> str:
    """Vertical bars of equal width, each a bin of a logarithmic axis; marks stand where they belong."""
    if not bins:
        return _nothing(title)
    top, bottom, left = 18, PLOT, 34
    most = max(count for _, _, count in bins)
    step = (WIDTH - left - 6) / max(len(bins), 12)
    parts = [
        _line(left, bottom, WIDTH - 6, bottom),
        _text(left - 6, top + 8, f"{most:,}", anchor="end", soft=True),
        _text(left - 6, bottom, "0", anchor="end", soft=True),
    ]
    for index, (low, high, count) in enumerate(bins):
        height = (bottom - top) * count / most
        parts.append(
            f'<rect x="{left + index * step + 1:.1f}" y="{bottom - height:.1f}" width="{max(1.0, step - 2):.1f}" '
            f'height="{height:.1f}" fill="var(--a)"><title>{_safe(shown(low))} to {_safe(shown(high))}: {count:,}'
            "</title></rect>"
        )
    every = max(1, round(len(bins) / 6), round(58 / step))
    parts += [
        _text(left + index * step, bottom + 16, shown(bins[index][0]), soft=True)
        for index in range(0, len(bins), every)
    ]
    for number, mark in enumerate(marks):
        place = _place(bins, mark.at)
        if place is not None:
            x = left + place * step
            # The first one's words stand to its left, the others' to the right, if there is room: so they do not meet.
            to_the_left = (number == 0 and x > left + 70) or x > WIDTH - 80
            side, anchor = (-4, "end") if to_the_left else (4, "start")
            parts += [
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="var(--b)" stroke-dasharray="3 3"/>',
                _text(x + side, top - 4, mark.text, anchor=anchor),
            ]
    return _svg(title, PLOT + 24, parts)


def _place(bins: Sequence[tuple[float, float, int]], value: float) -> float | None:
    """Where a value stands, in bins from the left."""
    for index, (low, high, _) in enumerate(bins):
        if low <= value < high or (index == 0 and value < low):
            return index + 0.5
    return None


def timeline(
    points: Sequence[tuple[float, float]], title: str, shaded: Sequence[tuple[float, float]], marks: Iterable[Mark]
) -> str:
    """A line over seconds from 0, with some stretches shaded."""
    if len(points) < 2 or points[-1][0] <= 0:
        return _nothing(title)
    top, bottom, left, right = 18, PLOT, 34, WIDTH - 6
    end, most = points[-1][0], max(1.0, *(value for _, value in points))

    def x(seconds: float) -> float:
        return left + (right - left) * min(seconds, end) / end

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / most

    parts = [
        f'<rect x="{x(start):.1f}" y="{top}" width="{max(1.5, x(stop) - x(start)):.1f}" height="{bottom - top}" '
        'fill="var(--warn)" opacity="0.35"><title>cooling down</title></rect>'
        for start, stop in shaded
    ]
    # Steps: between two notes nothing is known, and least is claimed.
    path = f"M{x(points[0][0]):.1f},{y(points[0][1]):.1f}" + "".join(
        f"H{x(seconds):.1f}V{y(value):.1f}" for seconds, value in points[1:]
    )
    parts += [
        f'<path d="{path}" fill="none" stroke="var(--a)" stroke-width="1.6"/>',
        _line(left, bottom, right, bottom),
        _text(left - 6, top + 8, f"{most:,.0f}", anchor="end", soft=True),
        _text(left - 6, bottom, "0", anchor="end", soft=True),
        *(
            _text(x(mark.at), bottom + 16, mark.text, anchor="end" if mark.at >= end else "start", soft=True)
            for mark in marks
        ),
    ]
    return _svg(title, PLOT + 24, parts)


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{_safe(title)}">'
        f"<title>{_safe(title)}</title>{''.join(parts)}</svg>"
    )


def _nothing(title: str) -> str:
    return _svg(title, 32, [_text(0, 20, "nothing yet", soft=True)])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--line)"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    return escape(printable(text))
