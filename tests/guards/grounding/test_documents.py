"""Whole documents: wherever the pieces end, a document dies at the same character, and only if a value stands nowhere."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from streamguard.events import Delta, Stopped
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.grounding.normal_form import normal_form
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.grounding.spec import Grounded
from streamguard.verdict import Trip
from tests.guards.grounding.test_search import ALPHABET, stands

SOURCE = "".join(random.Random(0).choice(ALPHABET) for _ in range(400)) + " 😀 \ud83d x 12 1.234,50"
SECTION = JsonDocument(
    grounded=[
        Grounded(at="/a"),
        Grounded(at="/list/*"),
        Grounded(at="/deep/*/n", as_="number"),
        Grounded(at="/w", edges="word"),
    ]
)


def read(text: str, pieces: list[str]) -> tuple[str, Any, Any, str] | None:
    """The reason, the character, the pointer and the message of the trip, if there is one."""
    watch = SECTION.watch(AttemptContext(sources=SourceTexts(SOURCE)), 0.0)
    trip: Any = None
    for piece in pieces:
        trip = watch.feed(Delta(kind="text", index=0, text=piece), 0.0)
        if isinstance(trip, Trip):
            break
    else:
        trip = watch.feed(Stopped("end_turn"), 0.0)
    if not isinstance(trip, Trip):
        return None
    assert trip.where is not None
    return trip.reason, trip.where.char, trip.where.pointer, trip.message


def value(rng: random.Random) -> str:
    """A part of the source, perhaps changed."""
    begin = rng.randrange(len(SOURCE))
    found = list(SOURCE[begin : begin + rng.randint(0, 9)])
    if rng.random() < 0.4 and found:
        found[rng.randrange(len(found))] = rng.choice(ALPHABET)
    return "".join(found)


def document(rng: random.Random) -> tuple[str, bool]:
    """A document, and whether the naive check lets it stand."""
    usual, numbers = normal_form(("case", "dashes", "quotes", "space")), (12, 1234.5, 7, 13)
    made: dict[str, Any] = {
        "other": value(rng),
        "a": rng.choice((value(rng), None, "", 5)),
        "list": [value(rng) for _ in range(rng.randint(0, 3))],
        "deep": {key: {"n": rng.choice((*numbers[:2], *numbers))} for key in "xy"[: rng.randint(0, 2)]},
        "w": value(rng),
    }
    names = list(made)
    rng.shuffle(names)
    made = {name: made[name] for name in names}
    texts = [one for one in (made["a"], *made["list"]) if isinstance(one, str)]
    good = all(stands(SOURCE, one, usual, "any") for one in texts) and stands(SOURCE, made["w"], usual, "word")
    good = good and all(one["n"] in (12, 1234.5) for one in made["deep"].values())
    return json.dumps(made, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1))), good


@pytest.mark.parametrize("seed", range(4))
def test_a_document_dies_where_it_does_however_it_is_cut(seed: int) -> None:
    """Escapes, surrogates, marks and numbers, in any order of members; whole, by character, and cut at random."""
    rng = random.Random(seed)
    died = 0
    for _ in range(120):
        text, good = document(rng)
        whole = read(text, [text])
        assert (whole is None) is good, text
        assert whole is None or whole[0] == "json.ungrounded"
        died += whole is not None
        cuts = sorted(rng.sample(range(1, len(text)), 3))
        parts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert read(text, list(text)) == whole, text
        assert read(text, parts) == whole, text
    assert 20 < died < 120
