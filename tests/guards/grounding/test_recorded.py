"""Recorded answers of a small model to the advisories: those that got past the schema, held against their texts."""

from __future__ import annotations

import json

import pytest

from streamguard import Grounded, JsonDocument, Policy
from streamguard.replay.recording import Recording, recordings
from streamguard.replay.rerun import replay
from tests.data import path

SCHEMA = json.loads(path("advisories", "advisory.schema.json").read_text())
VALID = JsonDocument(schema=SCHEMA, fence="strip", preamble="skip", trailing="allow")
ALL = ("/package", "/functions/*", "/alternatives/*", "/fixed_in")


def valid() -> list[tuple[Recording, str]]:
    """The recordings whose answer the schema lets pass, each with the advisory that it is about."""
    texts = {}
    for line in path("advisories", "advisories.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts[row["custom_id"]] = row["text"]
    found = recordings([path("real_sse", "gemma270m-advisories.zip")])
    good = [one for one in found if replay(one, Policy(json=VALID)).reason is None]
    return [(one, next(text for name, text in texts.items() if name in one.file)) for one in good]


@pytest.mark.parametrize(("places", "ended"), [(("/package",), 1), (("/functions/*",), 2), (ALL, 4)])
def test_half_of_the_valid_answers_say_what_the_text_does_not(places: tuple[str, ...], ended: int) -> None:
    """Of eight valid answers; what is ended is ended before its last token."""
    policy = Policy(json=VALID.replace(grounded=[Grounded(at=place) for place in places]))
    found = [replay(recording, policy, source_text=text) for recording, text in valid()]
    dead = [one for one in found if one.reason is not None]
    assert (len(found), len(dead), {one.reason for one in dead}) == (8, ended, {"json.ungrounded"})
    assert all(0 < one.tokens_after < one.tokens for one in dead)
