"""`messages(client, output=…)`: the model is told the type, and the doors know it."""

from __future__ import annotations

from typing import Any

import anthropic
import anyio
import pytest
from pydantic import BaseModel, Field

import streamguard
from streamguard import ConfigError, Policy, Retry, Rule
from streamguard.testing import ScriptedServer, wire

REQUEST: dict[str, Any] = {"model": wire.MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "A word."}]}
AGAIN = Policy(retry=Retry(attempts=2, rules=[Rule(when="json.*")]))


class Word(BaseModel):
    word: str = Field(max_length=3)


class Opaque(BaseModel, arbitrary_types_allowed=True):
    value: ConfigError


def test_the_source_knows_its_type_and_the_model_is_told() -> None:
    """The request has the type's schema as the SDK would send it, and `run` and `stream` give instances."""

    async def main() -> None:
        bad, good = wire.text_stream('{"word": "long"}'), wire.text_stream('{"word": "abc"}')
        async with (
            ScriptedServer(bad, good, good) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            source = streamguard.messages(client, output=Word, **REQUEST)
            outcome = await streamguard.run(source, policy=AGAIN)
            assert (outcome.value, len(outcome.attempts)) == (Word(word="abc"), 2)
            async with streamguard.stream(source, policy=AGAIN) as events:
                assert [event async for event in events]
            assert events.result().value == Word(word="abc")
            told = source.request.body["output_config"]["format"]
            assert told == {"type": "json_schema", "schema": anthropic.transform_schema(Word.model_json_schema())}

    anyio.run(main)


def test_a_thread_s_source_knows_its_type() -> None:
    """The same through `streamguard.sync`."""

    async def main() -> Any:
        async with ScriptedServer(wire.text_stream('{"word": "abc"}')) as server:
            client = anthropic.Anthropic(api_key="k", base_url=server.url)
            source = streamguard.messages(client, output=Word, **REQUEST)
            return await anyio.to_thread.run_sync(lambda: streamguard.sync.run(source, policy=AGAIN))

    assert anyio.run(main).value == Word(word="abc")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"output": Word, "output_config": {"format": {"type": "json_schema", "schema": {}}}}, "leave one of them out"),
        ({"output": "Word"}, "must be a type that Pydantic validates"),
        ({"output": Opaque}, "Pydantic can write no JSON Schema of it"),
    ],
)
def test_what_cannot_be_told_is_refused(given: dict[str, Any], said: str) -> None:
    """Two formats, a value that is no type, a type without a schema: said before anything is sent."""
    with pytest.raises(ConfigError, match=said):
        streamguard.messages(anthropic.AsyncAnthropic(api_key="k"), **REQUEST, **given)
