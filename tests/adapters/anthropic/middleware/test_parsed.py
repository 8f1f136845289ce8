"""`messages.parse()` behind the guard: no caller meets a raw `ValidationError` for what could have been asked again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import anyio
import pytest
from pydantic import BaseModel, Field

from streamguard import Completion, GaveUp, GuardMiddleware, JsonDocument, Policy, Retry, Rule
from streamguard.testing import ScriptedServer, wire
from tests.models.bad_answers import BREAKS, Invoice, bad_answers

REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 4000,
    "messages": [{"role": "user", "content": "Extract."}],
}
AGAIN = Policy(retry=Retry(attempts=3, rules=[Rule(when=["json.*", "stop.*"])]))


class Small(BaseModel):
    word: str = Field(max_length=3)


def parsed(*attempts: list[bytes], policy: Any = AGAIN, kind: Any = Small) -> Any:
    """What the caller of `parse()` gets."""

    async def main() -> Any:
        async with ScriptedServer(*attempts) as server:
            middleware = [GuardMiddleware(policy)]
            async with anthropic.AsyncAnthropic(
                api_key="sk-ant-test", base_url=server.url, middleware=middleware, max_retries=0
            ) as client:
                message = await client.messages.parse(**REQUEST, output_format=kind)
                return message, len(server.requests)

    return anyio.run(main)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_bad_answer_is_asked_again(broken: str) -> None:
    """Whatever is wrong, the caller of `parse()` gets the instance of the good answer, and no `ValidationError`."""
    for name, bad, good in bad_answers(30, seed=2):
        if name == broken:
            message, requests = parsed(wire.text_stream(bad), wire.text_stream(good), kind=Invoice)
            assert message.parsed_output == Invoice.model_validate_json(good)
            assert requests == 2


def two_blocks(first: str, second: str) -> list[bytes]:
    """An answer of two text blocks."""
    blocks = [
        part
        for index, text in enumerate((first, second))
        for part in (wire.block_start(index), wire.text_delta(text, index), wire.block_stop(index))
    ]
    return [wire.message_start(), *blocks, wire.message_delta("end_turn"), wire.message_stop()]


@pytest.mark.parametrize(
    ("policy", "answer"),
    [
        (AGAIN, two_blocks('{"word": ', '"abc"}')),
        (AGAIN.replace(json=JsonDocument(fence="strip")), wire.text_stream('```json\n{"word": "abc"}\n```')),
        (
            AGAIN.replace(json=JsonDocument(preamble="skip", trailing="cut")),
            wire.text_stream('Here: {"word": "abc"} I hope this helps.'),
        ),
    ],
)
def test_the_document_alone_is_handed_on(policy: Policy, answer: list[bytes]) -> None:
    """Two blocks, a fence, words around it: what the policy lets pass, the SDK's own parser can read."""
    message, requests = parsed(answer, policy=policy)
    assert message.parsed_output == Small(word="abc")
    assert [block.text for block in message.content] == ['{"word": "abc"}']
    assert requests == 1


@pytest.mark.parametrize("accept", [["end_turn"], ["end_turn", "max_tokens", "refusal"]])
@pytest.mark.parametrize("stop", ["max_tokens", "refusal"])
def test_an_answer_that_was_cut_off_reaches_no_parser(stop: str, accept: list[str]) -> None:
    """Half an answer or a refusal is asked again, whether or not the policy takes such a stop reason for an end."""
    policy = AGAIN.replace(completion=Completion(accept=accept))
    message, requests = parsed(
        wire.text_stream('{"word": "a', stop_reason=stop), wire.text_stream('{"word": "abc"}'), policy=policy
    )
    assert (message.parsed_output, requests) == (Small(word="abc"), 2)


def test_the_parser_judges_where_its_type_is_not_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the SDK name its variable otherwise, the caller's parser itself still judges inside the attempt."""
    monkeypatch.setattr("streamguard.adapters.anthropic.middleware.parsed._PARSED_TYPE", "renamed")
    policy = AGAIN.replace(json=JsonDocument())
    message, requests = parsed(
        wire.text_stream('{"word": "much too long"}'), wire.text_stream('{"word": "abc"}'), policy=policy
    )
    assert (message.parsed_output, requests) == (Small(word="abc"), 2)


def test_a_given_up_parse_is_a_typed_error() -> None:
    """When all attempts are used the caller gets a `CallError` with the reason, the place and Pydantic's words."""
    with pytest.raises(GaveUp) as caught:
        parsed(*[wire.text_stream(json.dumps({"word": "much too long"}))] * 3)
    assert caught.value.reason in ("json.schema", "json.model")
    assert [attempt.ended.where.pointer for attempt in caught.value.attempts] == ["/word"] * 3


def test_a_synchronous_client_parses_too() -> None:
    """`Anthropic.messages.parse()` behind the guard asks again as well."""

    async def main() -> Any:
        bad, good = wire.text_stream('{"word": "long"}'), wire.text_stream('{"word": "abc"}')
        async with ScriptedServer(bad, good) as server:

            def ask() -> Any:
                with anthropic.Anthropic(
                    api_key="sk-ant-test", base_url=server.url, middleware=[GuardMiddleware(AGAIN)], max_retries=0
                ) as client:
                    return client.messages.parse(**REQUEST, output_format=Small)

            return await anyio.to_thread.run_sync(ask)

    assert anyio.run(main).parsed_output == Small(word="abc")


def test_a_call_that_parses_nothing_is_as_ever() -> None:
    """`create()` has no parser: its policy and message are not touched."""
    from streamguard.adapters.anthropic.middleware.parsed import Parser

    options = anthropic._models.FinalRequestOptions(method="post", url="/v1/messages", json_data={})
    request: Any = anthropic.APIRequest(options=options, cast_to=object, stream=False, stream_cls=None)
    parser = Parser(request)
    untouched: Callable[[Any], Any] = parser.policy
    assert not parser.wanted
    assert untouched(AGAIN) is AGAIN
