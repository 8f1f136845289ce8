"""The simulated model: documents with an answer each, faults that are faults, and odds that are kept."""

from __future__ import annotations

import json
import random
from collections import Counter

import anthropic
import jsonschema
import pytest

from streamguard.demo.documents import SCHEMA, Document, answer, documents, prompt
from streamguard.demo.simulated import (
    ANSWER_FAULTS,
    MAX_TOKENS,
    attempt,
    in_full,
    simulated,
    spoken,
)
from streamguard.testing.steps import Status

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
MANY = documents(200, seed=5)


def is_valid(text: str) -> bool:
    try:
        return VALIDATOR.is_valid(json.loads(text))
    except ValueError:
        return False


def test_documents_come_from_the_seed() -> None:
    """The same for the same seed, others for another; all different, and each one's record satisfies the schema."""
    assert documents(20, seed=5) == MANY[:20]
    assert documents(20, seed=6) != MANY[:20]
    assert len({prompt(one) for one in MANY}) == len(MANY)
    assert all(is_valid(answer(one.record)) for one in MANY)
    for one in MANY[:20]:
        assert str(one.record["number"]) in one.text
        assert f"{one.record['total']:.2f}" in one.text


def test_the_schema_is_a_schema() -> None:
    """By its own dialect."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("fault", ANSWER_FAULTS)
def test_every_fault_is_one(fault) -> None:
    """No document survives any of them; only loops run into the limit."""
    _, damage = ANSWER_FAULTS[fault]
    for number, one in enumerate(MANY):
        said = damage(one.record, random.Random(number))
        assert not is_valid(said.text), (fault, said.text)
        looped = fault == "a loop to max_tokens"
        assert (said.stop_reason, said.tokens == MAX_TOKENS) == ("max_tokens" if looped else "end_turn", looped)


def kind(one: Document, number: int) -> str:
    """What an attempt is, judged by what it sends."""
    items = attempt(one, number, seed=5)
    head = next(item for item in items if isinstance(item, Status))
    if head.code != 200:
        return str(head.code)
    return "whole" if items[-1] == attempt(MANY[0], 1, seed=5)[-1] else "broken"


def test_about_one_answer_in_five_is_bad() -> None:
    """Of 2,000 attempts: refused, broken off, and bad in themselves, each as often as it is meant to be."""
    kinds = Counter(kind(one, number) for one in MANY for number in range(1, 11))
    bad = sum(not is_valid(spoken(one.record, random.Random(f"{one.id}/{n}")).text) for one in MANY for n in range(10))
    assert 0.13 < bad / 2000 < 0.19
    assert 0.005 < kinds["429"] / 2000 < 0.02
    assert 0.008 < kinds["529"] / 2000 < 0.025
    assert 0.018 < kinds["broken"] / 2000 < 0.045
    assert 0.17 < (bad + kinds["429"] + kinds["529"] + kinds["broken"]) / 2000 < 0.24


def test_an_attempt_is_the_same_every_time() -> None:
    """By seed, document and number; the next one is drawn anew."""
    assert repr(attempt(MANY[3], 1, 5)) == repr(attempt(MANY[3], 1, 5))
    assert len({repr(attempt(MANY[3], number, 5)) for number in range(1, 7)}) > 1
    assert repr(attempt(MANY[3], 1, 5)) != repr(attempt(MANY[3], 1, 6))


def test_served_through_the_sdk(run_virtual) -> None:
    """The n-th request about a document is answered by its n-th attempt; usage is what the server bills."""

    def whole(one: Document) -> bool:
        return kind(one, 1) == "whole"

    async def ask() -> None:
        good = [one for one in MANY if whole(one)][:5]
        async with (
            simulated(MANY, seed=5) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            for one in good:
                message = await client.messages.create(
                    model="m", max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": prompt(one)}]
                )
                said = spoken_first(one)
                assert (message.content[0].text, message.usage.output_tokens) == (said.text, said.tokens)
            assert [in_full(exchange) for exchange in server.exchanges] == [spoken_first(one).tokens for one in good]
            assert [bill.output_tokens for bill in server.billed] == [spoken_first(one).tokens for one in good]
            assert all(bill.input_tokens > 500 for bill in server.billed)

    run_virtual(ask)


def spoken_first(one: Document):
    """What the model says on the first attempt, whose service is fine."""
    source = random.Random(f"5/{one.id}/1")
    source.random()  # the draw of the service
    return spoken(one.record, source)
