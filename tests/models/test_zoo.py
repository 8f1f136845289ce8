"""Against `validate_json`: nothing that a type accepts is killed, and nothing that it refuses is accepted."""

from __future__ import annotations

import json
import random

import pytest

from streamguard import JsonDocument, Trip
from streamguard.guards.document.reader import DocumentReader
from streamguard.models.model import OutputType
from streamguard.verdict import Enough
from streamguard.viability.syntax.strict import Refused, parse
from tests.models.nearly import texts
from tests.models.zoo import ZOO


def judged(name: str, text: str, seed: int, most: int) -> tuple[Trip | Enough | None, bool]:
    """The verdict on a text that comes in pieces, and whether it came before the end."""
    spec = JsonDocument(schema=ZOO[name][0], expect="any")
    reader = DocumentReader(spec.plan(spec.own_schema()), may_end=False)
    chance = random.Random(seed)
    at = 0
    while at < len(text):
        size = chance.randint(1, most)
        verdict = reader.feed(text[at : at + size])
        if verdict is not None:
            return verdict, True
        at += size
    return reader.finish(), False


@pytest.mark.parametrize("name", ZOO)
def test_the_verdict_is_that_of_validate_json(name: str) -> None:
    """A JSON text is accepted exactly if `validate_json` accepts it, however it comes, whatever its numbers' form."""
    adapter = OutputType.of(ZOO[name][0]).plan().adapter
    for number, text in enumerate(texts(name, seed=1, count=120)):
        try:
            parse(text)
        except Refused:
            continue
        try:
            adapter.validate_json(text)
            accepted = True
        except Exception:  # a validator may raise anything
            accepted = False
        verdict, _ = judged(name, text, number, (1, 4, 30, 1000)[number % 4])
        assert (verdict is None) == accepted, (text, verdict)


@pytest.mark.parametrize("name", ZOO)
def test_the_verdict_does_not_depend_on_the_pieces(name: str) -> None:
    """The first failure of a model's own validators is the same one for every split of the text."""
    for number, text in enumerate(texts(name, seed=2, count=25)):
        whole, _ = judged(name, text, 0, 1)
        for most in (4, 30, 1000):
            again, _ = judged(name, text, number, most)
            assert again == whole, text


@pytest.mark.parametrize("name", ZOO)
def test_documents_of_the_zoo_are_accepted(name: str) -> None:
    """Each type accepts its own documents: the tests above are about something."""
    adapter = OutputType.of(ZOO[name][0]).plan().adapter
    for document in ZOO[name][1]:
        text = json.dumps(document)
        assert judged(name, text, 0, 1)[0] is None
        adapter.validate_json(text)
