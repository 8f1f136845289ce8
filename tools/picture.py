"""The picture of the README, drawn from a real run in virtual time: `python -m tools.picture` writes docs/guard.svg.

One answer of 3,600 characters lacks a comma at character 424; the next answer is right. Both come at 80
tokens a second. The upper row reads each answer to its end and parses it. The lower row is `streamguard.run()` with
a JSON document.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import streamguard
from streamguard.testing import Item, answer, pace, run_virtual, script
from streamguard.verdict import Trip

FILE = Path(__file__).parent.parent / "docs" / "guard.svg"
LINES = [{"what": f"part {number:04}", "quantity": number, "price": number / 4} for number in range(1, 73)]
RIGHT = json.dumps({"number": "DN-64220", "lines": LINES})
WRONG = RIGHT[:424] + RIGHT[424:].replace(", ", " ", 1)
DELTAS_PER_SECOND = 80
LEFT, WIDTH, ROW = 130, 820, 44
COLOURS = {"good": "#2e7d32", "bad": "#c62828", "saved": "none"}


def played(text: str) -> list[Item]:
    """The items of one answer at the pace of a live model."""
    return [pace(DELTAS_PER_SECOND), *answer(text)]


async def _call(texts: list[str], policy: streamguard.Policy) -> streamguard.Outcome:
    return await streamguard.run(script(*(played(text) for text in texts)), policy=policy)


def measured() -> tuple[list[float], streamguard.Outcome]:
    """Seconds of both answers when each is read to its end, and the guarded call."""
    whole = [run_virtual(_call, [text], streamguard.Policy()).attempts[0].times.end for text in (WRONG, RIGHT)]
    guarded = streamguard.Policy(
        json=streamguard.JsonDocument(),
        retry=streamguard.Retry(attempts=2, rules=[streamguard.Rule(when="json.*")]),
    )
    return whole, run_virtual(_call, [WRONG, RIGHT], guarded)


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" rx="3" fill="{COLOURS[colour]}"/>'


def drawn() -> str:
    """The picture as SVG."""
    whole, outcome = measured()
    first, second = outcome.attempts
    trip = first.ended
    assert isinstance(trip, Trip)
    assert trip.where is not None
    scale = (WIDTH - LEFT - 20) / sum(whole)
    rows = [
        ("plain SDK", [(whole[0], "bad"), (whole[1], "good")]),
        ("streamguard", [(first.times.end, "bad"), (second.times.end, "good")]),
    ]
    guarded = first.times.end + second.times.end
    says = [
        f"the answer is read and paid to its end; then json.loads fails; asked again: {sum(whole):.0f} s",
        f"ended at byte {trip.where.offset}: {trip.reason}; asked again from scratch: {guarded:.0f} s",
    ]
    parts = []
    for index, ((name, bars), sentence) in enumerate(zip(rows, says, strict=True)):
        y, x = 14 + index * (ROW + 22), float(LEFT)
        parts.append(_text(LEFT - 12, y + 16, name, "end", 14))
        for seconds, colour in bars:
            parts.append(_bar(x, y, seconds * scale - 2, colour))
            x += seconds * scale
        parts.append(_text(LEFT, y + 40, sentence))
    height = 14 + 2 * (ROW + 22)
    title = "One bad answer and one good one: read to the end, and ended at the first byte that nothing can repair"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">'
        f"<title>{escape(title)}</title><style>text{{fill:#24292f}}"
        "@media (prefers-color-scheme: dark){text{fill:#e6edf3}}</style>" + "\n".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    FILE.write_text(drawn())
