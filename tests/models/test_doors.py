"""A type at the doors: `run`, `stream` and `sync` give instances, and ask again for what the type refuses."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

import streamguard
from streamguard import GaveUp, JsonDocument, Policy, PolicyError, Retry, Rule, SchemaError
from streamguard.testing import answer, script
from tests.models.bad_answers import BREAKS, Invoice, bad_answers

AGAIN = Policy(retry=Retry(attempts=2, rules=[Rule(when=["json.*"])]))


class Total(TypedDict):
    total: int


class Raises(BaseModel):
    a: int
    b: int

    @field_validator("b")
    @classmethod
    def _broken(cls, value: int) -> int:
        raise KeyError("a bug")


def run(*texts: str, policy: Policy = AGAIN, output: Any = None) -> Any:
    """The outcome of a call that is answered with these texts, one an attempt."""

    async def main() -> Any:
        return await streamguard.run(script(*map(answer, texts)), policy=policy, output=output)

    return anyio.run(main)


@pytest.mark.parametrize("broken", BREAKS)
def test_run_asks_again_for_a_bad_answer(broken: str) -> None:
    """Whatever is wrong with an answer, `run` asks again, and gives the instance that Pydantic makes of the good one."""
    for name, bad, good in bad_answers(90):
        if name == broken:
            outcome = run(bad, good, output=Invoice)
            assert outcome.value == Invoice.model_validate_json(good)
            assert [reason in ("json.model", "json.schema") for reason in outcome.reasons] == [True]


def test_stream_asks_again_for_a_bad_answer() -> None:
    """The same through `stream`, whose `result()` is the outcome."""

    async def main() -> None:
        for broken, bad, good in bad_answers(45, seed=1):
            source = script(answer(bad), answer(good))
            async with streamguard.stream(source, policy=AGAIN, output=Invoice) as events:
                with pytest.raises(RuntimeError, match="no outcome yet"):
                    events.result()
                async for _ in events:
                    pass
            assert events.result().value == Invoice.model_validate_json(good), broken
            assert len(events.result().attempts) == 2

    anyio.run(main)


def test_a_thread_gets_an_instance_too() -> None:
    """`streamguard.sync.run(output=…)` is the same door."""
    outcome = streamguard.sync.run(script(answer('{"total": 3}')), policy=AGAIN, output=Total)
    assert outcome.value == {"total": 3}


@pytest.mark.parametrize(
    ("output", "text", "value"),
    [
        (Total, '{"total": "3"}', {"total": 3}),
        (list[Total], '[{"total": 3}]', [{"total": 3}]),
        (int | list[int], "[1, 2]", [1, 2]),
        (Invoice | None, "null", None),
    ],
)
def test_any_type_of_pydantic_will_do(output: Any, text: str, value: Any) -> None:
    """A typed dict, a list, a union: what `TypeAdapter` takes; `data` is the JSON as it came."""
    import json

    outcome = run(text, output=output)
    assert (outcome.value, outcome.data) == (value, json.loads(text))


def test_the_type_may_stand_in_the_policy() -> None:
    """`JsonDocument(schema=Invoice)` says the same as `output=Invoice`; both together are fine if they are the same."""
    policy = AGAIN.replace(json=JsonDocument(schema=Total))
    assert run('{"total": 3}', policy=policy).value == {"total": 3}
    assert run('{"total": 3}', policy=policy, output=Total).value == {"total": 3}
    with pytest.raises(PolicyError, match="both say what the document is"):
        run('{"total": 3}', policy=policy, output=Invoice)


def test_where_a_validator_speaks_the_trip_says_where() -> None:
    """The trip of a validator has the reason `json.model`, the place, and Pydantic's own words."""
    with pytest.raises(GaveUp) as caught:
        run('{"number": "AB-1234", "kind": "invoice", "iban": "FR", "lines": [', policy=Policy(), output=Invoice)
    (attempt,) = caught.value.attempts
    assert attempt.ended.reason == "json.model"
    assert attempt.ended.where.pointer == "/iban"
    assert attempt.ended.where.char == 52
    assert attempt.ended.where.keyword == "value_error"
    assert attempt.ended.message == "Value error, not an IBAN of this country (at character 52, in /iban)"
    assert attempt.ended.knob == "json.schema"
    assert attempt.value == {"number": "AB-1234", "kind": "invoice"}


def test_a_validator_s_bug_is_the_guard_s_failure() -> None:
    """What is no `ValidationError` is `guard.failed`; but if a field has failed before it, that is what is said."""
    with pytest.raises(GaveUp) as caught:
        run('{"a": 1, "b": 2}', output=Raises)
    assert caught.value.reason == "guard.failed"
    with pytest.raises(GaveUp) as caught:
        run('{"b": 2, "a": "x"}', output=Raises)
    assert caught.value.reason == "json.model"


def test_validators_may_be_kept_for_the_end() -> None:
    """`field_validators: final` judges once, when the document is complete; `early` twice, the first time at once."""
    seen: list[str] = []

    class Counted(BaseModel):
        a: str

        @field_validator("a")
        @classmethod
        def _seen(cls, value: str) -> str:
            seen.append(value)
            return value

    run('{"a": "x"}', policy=AGAIN.replace(json=JsonDocument(schema=Counted, field_validators="final")))
    assert seen == ["x"]
    run('{"a": "x"}', policy=AGAIN.replace(json=JsonDocument(schema=Counted)))
    assert seen == ["x", "x", "x"]


def test_the_contract_kills_earlier() -> None:
    """`model: contract` refuses what the type's own JSON Schema does, such as a number in quotes."""
    policy = AGAIN.replace(json=JsonDocument(schema=Total, model="contract"))
    outcome = run('{"total": "3"}', '{"total": 3}', policy=policy)
    assert (outcome.value, outcome.reasons) == ({"total": 3}, ("json.schema",))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"enough_when": ["/a"]}, "enough_when gives parts of a document"),
        ({"max_depth": 201}, "max_depth is at most 200 with a type"),
    ],
)
def test_options_that_cannot_go_with_a_type_are_refused(given: dict[str, Any], said: str) -> None:
    """A type needs the whole document, and no deeper one than Pydantic reads."""
    with pytest.raises(Exception, match=said):
        JsonDocument(schema=Invoice, **given)


def test_what_is_no_type_is_refused_before_anything_is_sent() -> None:
    """A value, or a class that Pydantic cannot validate, is a mistake of the caller's, said in words."""
    source = script(answer("1"))

    async def main(output: Any) -> None:
        await streamguard.run(source, policy=AGAIN, output=output)

    with pytest.raises(PolicyError, match="must be a type that Pydantic validates"):
        anyio.run(main, "Invoice")
    with pytest.raises(SchemaError, match="Pydantic cannot validate"):
        anyio.run(main, type("Opaque", (), {}))
    assert source.opened == 0


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("streamguard:extracton", "no shipped policy"),
        ("nowhere.yaml", "nowhere.yaml"),
        ({"json": {}}, "policy must be a Policy or the name of one, such as streamguard:extraction"),
        (None, "not NoneType"),
    ],
)
def test_a_policy_is_given_or_named(policy: Any, said: str) -> None:
    """A name is taken wherever a policy is; anything else gets a sentence that says what to write."""
    source = script(answer('{"total": 3}'))
    with pytest.raises(PolicyError, match=said):
        streamguard.sync.run(source, policy=policy)
    outcome = streamguard.sync.run(source, policy="streamguard:extraction", output=Total)
    assert outcome.value == {"total": 3}
