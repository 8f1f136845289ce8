"""What grounded values and checks catch, and refuse: `python -m bench.meaning [right|wrong|advisories] [--right N]`.

* `right`: right answers of the simulated provider about made-up invoices; how many are refused.
* `wrong`: the same with one thing wrong, by kind; how many are ended, by which guard, and how much is read
  by then. Every one is valid by its schema.
* `advisories`: 400 real advisories with their recorded package, and with packages that are seeded: another advisory's,
  a misspelled one, a made-up one.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.grounding import ENTRIES
from streamguard import Check, Grounded, JsonDocument, Policy
from streamguard.demo.documents import SCHEMA, answer, documents
from streamguard.demo.wrong_values import WRONG, wrong
from streamguard.events import Delta
from streamguard.files.frozen_json import FrozenJson
from streamguard.guards.base import AttemptContext
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.panel import Panel
from streamguard.testing import answer as spoken
from streamguard.verdict import Trip

ADVISORIES = Path(__file__).parent.parent / "tests/data/advisories"
TOTAL = Check(reason="check.total", that="abs(doc.total - sum(l.quantity * l.price for l in doc.lines)) < 0.005")
POLICY = Policy(json=JsonDocument(schema=FrozenJson(SCHEMA), grounded=ENTRIES), checks=[TOTAL])
SCHEMA_ALONE = Policy(json=JsonDocument(schema=FrozenJson(SCHEMA)))


class Read(NamedTuple):
    """What became of an answer."""

    reason: str | None
    share: float
    """Of its characters that were read by then."""


def read(policy: Policy, source: str, text: str, piece: int = 14) -> Read:
    """Hold an answer in pieces, as the simulated provider sends it, against its source."""
    panel = Panel(policy.panel_guards, AttemptContext(sources=SourceTexts(source)), 0.0)
    characters = 0
    for event in spoken(text, chunk=piece):
        characters += len(event.text) if type(event) is Delta else 0
        found = panel.feed(event, 0.0)
        if isinstance(found, Trip):
            return Read(found.reason, characters / len(text))
    return Read(None, 1.0)


def right(count: int) -> None:
    """Print how many right answers are refused.

    Args:
        count: Of invoices.
    """
    refused: Counter[str] = Counter()
    for document in documents(count, 8):
        reason = read(POLICY, document.text, answer(document.record), 140).reason
        if reason is not None:
            refused[reason] += 1
    print(f"right answers refused: {refused.total()} of {count:,} {dict(refused) or ''}")


def told(title: str, came: list[Read]) -> None:
    """Print a line of a table."""
    ended = [one for one in came if one.reason is not None]
    by = Counter(one.reason for one in ended)
    share = f"{100 * len(ended) / len(came):5.1f} %" if came else "      -"
    read_by_then = f"{100 * sum(one.share for one in ended) / len(ended):4.0f} %" if ended else "     -"
    said = ", ".join(f"{reason} {count}" for reason, count in by.most_common())
    print(f"{title:28} {len(came):6,} {share}  {read_by_then}   {said}")


def wrongs(count: int = 500) -> None:
    """Print what share of wrong answers is ended, by kind.

    Args:
        count: Invoices of each kind.
    """
    print("one thing wrong               valid   ended   read   by")
    everything: list[Read] = []
    for kind in WRONG:
        came = []
        for turn, document in enumerate(documents(count, 9)):
            made = wrong(document.record, kind, random.Random(f"wrong/{kind}/{turn}"))
            if made is not None and read(SCHEMA_ALONE, document.text, answer(made), 10_000).reason is None:
                came.append(read(POLICY, document.text, answer(made)))
        told(kind, came)
        everything += came
    told("all", everything)
    read_of_all = sum(one.share for one in everything if one.reason is not None)
    caught = sum(one.reason is not None for one in everything)
    print(
        f"of the answers that were ended, {100 * (1 - read_of_all / caught):.0f} % came after that and is not paid for"
    )


def advisories() -> None:
    """Print what becomes of the package of each advisory, right and wrong."""
    rows = [json.loads(line) for line in (ADVISORIES / "advisories.jsonl").read_text(encoding="utf-8").splitlines()]
    schema = json.loads((ADVISORIES / "advisory.schema.json").read_text(encoding="utf-8"))
    policy = Policy(json=JsonDocument(schema=schema, grounded=[Grounded(at="/package", edges="word")]))
    print("package                       valid   ended   read   by")
    for kind in ("right", "another advisory's", "misspelled", "made up"):
        came = []
        for turn, row in enumerate(rows):
            text = json.dumps(_advisory(row, dict(_packages(row, rows, turn))[kind]), indent=1)
            came.append(read(policy, row["text"], text))
        told(kind, came)


def _advisory(row: Mapping[str, Any], package: str) -> dict[str, Any]:
    gold = row["gold"]
    return {
        "package": package,
        "kind": gold["kind"],
        "categories": gold["categories"][:4],
        "fixed_in": None,
        "functions": [],
        "alternatives": [],
        "summary": row["source"]["title"][:40].ljust(20, "."),
    }


def _packages(row: Mapping[str, Any], rows: list[Any], turn: int) -> Iterator[tuple[str, str]]:
    source = random.Random(f"package/{turn}")
    package = row["gold"]["package"]
    yield "right", package
    others = [one["gold"]["package"] for one in rows if one["gold"]["package"] != package]
    yield "another advisory's", source.choice(others)
    at = source.randrange(len(package))
    letter = source.choice([one for one in string.ascii_lowercase if one != package[at]])
    yield "misspelled", f"{package[:at]}{letter}{package[at + 1 :]}"
    yield "made up", "".join(source.choice(("ser", "tok", "io", "net", "cry", "pt", "lib")) for _ in range(3)) + "-rs"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.meaning", description=__doc__)
    parser.add_argument("what", nargs="*", help="right, wrong, advisories; all of them by default")
    parser.add_argument("--right", type=int, default=100_000, help="right answers of `right` [default: 100,000]")
    options = parser.parse_args()
    for what in options.what or ("right", "wrong", "advisories"):
        {"right": lambda: right(options.right), "wrong": wrongs, "advisories": advisories}[what]()
