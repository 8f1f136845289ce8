"""A tool call that is handed out has an input that the model wrote, in full."""

from __future__ import annotations

from typing import Any

import anthropic
import anyio
import httpx2
import pytest

from streamguard import GuardMiddleware, Policy, load_policy, run
from streamguard.errors import CallError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext
from streamguard.guards.completion import Completion
from streamguard.guards.panel import Panel
from streamguard.testing import run_virtual, script, send, wire

CUT = '{"path": "/data/x", "dry_run": tr'
MALFORMED = ['{"path": /data/x}', '{"a": 1} ok', '"text"', "[1]", "null", "7", '{"a": NaN}', "[" * 3000]


def call(*pieces: str, index: int = 0) -> list[Event]:
    deltas = [Delta(index, "tool_input", piece) for piece in pieces]
    return [BlockStarted(index, "tool_input", "tool_use", "clean", "t"), *deltas, BlockStopped(index)]


def verdict(*events: Event, policy: Policy | None = None) -> tuple[str | None, int | None]:
    """The reason of the first trip, and the event's index."""
    policy = policy or Policy()
    panel = Panel(policy.panel_guards, AttemptContext(), 0.0, mode=policy.mode)
    for at, event in enumerate((Started(), *events)):
        if (trip := panel.feed(event, 0.0)) is not None:
            return getattr(trip, "reason", None), at
    return None, None


def end(reason: str) -> list[Event]:
    return [Metered(Usage(), reason), Stopped(reason)]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_an_input_that_nothing_can_mend_trips_with_its_block(text: str, mode: Any) -> None:
    """Whatever the policy says, and though every guard of its own only looks on."""
    policy = Policy(mode=mode)
    incomplete = text.startswith("[[")
    reason, at = verdict(*call(text), *end("tool_use"), policy=policy)
    assert (reason, at) == ("json.malformed", 3) or (incomplete and reason == "json.malformed")


@pytest.mark.parametrize("text", ['{"a": 1}', '{"\\ud83d": "x"}', " {} ", ""])
def test_an_object_passes(text: str) -> None:
    """Blanks around it, half an emoji in it, and no arguments at all."""
    assert verdict(*call(text), *end("tool_use")) == (None, None)


@pytest.mark.parametrize(
    ("reason", "accept", "expected"),
    [
        ("tool_use", ("tool_use",), ("json.incomplete", 5)),
        ("end_turn", ("end_turn",), ("json.incomplete", 5)),
        ("max_tokens", ("tool_use",), ("stop.max_tokens", 5)),
        ("max_tokens", ("max_tokens",), (None, None)),
        ("refusal", ("refusal",), (None, None)),
    ],
)
def test_an_unfinished_input_waits_for_the_stop_reason(
    reason: str, accept: tuple[str, ...], expected: tuple[str | None, int | None]
) -> None:
    """Servers close a block before they say that the answer was cut: completion speaks first."""
    policy = Policy(completion=Completion(accept=accept))
    assert verdict(*call(CUT), *end(reason), policy=policy) == expected


def test_another_block_says_that_it_was_not_cut() -> None:
    """The model went on."""
    assert verdict(*call(CUT), *call("{}", index=1)) == ("json.incomplete", 4)


def test_what_the_provider_runs_itself_is_not_looked_at() -> None:
    """A server tool's input is the provider's business."""
    block = [BlockStarted(0, "server_tool"), Delta(0, "tool_input", "[1"), BlockStopped(0)]
    text = [BlockStarted(1, "text"), Delta(1, "text", "x"), BlockStopped(1)]
    assert verdict(*block, *text, *end("end_turn")) == (None, None)


# At the doors


def body(text: str, stop: str) -> bytes:
    frames = [wire.message_start(), wire.block_start(0, "tool_use", id="t", name="clean", input={})]
    return b"".join(
        [
            *frames,
            wire.input_json_delta(text),
            wire.block_stop(),
            wire.message_delta(stop_reason=stop),
            wire.message_stop(),
        ]
    )


REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def through_middleware(sent: bytes, policy: Policy, how: str) -> Any:
    """The input of the call that a caller of the SDK gets; the reason, if the call is refused."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=sent)

    async def main() -> Any:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        guard = GuardMiddleware(policy, deliver="live")
        async with anthropic.AsyncAnthropic(api_key="x", http_client=http, max_retries=0, middleware=[guard]) as sdk:
            try:
                if how == "create":
                    message: Any = await sdk.messages.create(**REQUEST)
                else:
                    async with sdk.messages.stream(**REQUEST) as stream:
                        message = await stream.get_final_message()
            except CallError as error:
                return error.reason
            return message.content[0].input

    return anyio.run(main)


@pytest.mark.parametrize("how", ["create", "stream"])
@pytest.mark.parametrize("text", [CUT, ""])
def test_a_cut_call_that_is_accepted_has_a_form_that_no_loop_can_run(text: str, how: str) -> None:
    """Its input is the text that came, which no tool takes; never `{}`, and never the part that could be parsed."""
    chat = load_policy("streamguard:interactive_chat")
    assert through_middleware(body(text, "max_tokens"), chat, how) == text


@pytest.mark.parametrize("how", ["create", "stream"])
@pytest.mark.parametrize("text", [CUT, *MALFORMED[:6]])
def test_no_policy_lets_a_broken_call_through(text: str, how: str) -> None:
    """The SDK's own stream gives a part of the input, `{}`, or raises a bare `ValueError`."""
    for policy in (Policy(), Policy(mode="observe"), load_policy("streamguard:interactive_chat")):
        assert through_middleware(body(text, "tool_use"), policy, how) in ("json.malformed", "json.incomplete")


def test_a_whole_message_in_the_start_is_guarded() -> None:
    """Programmatic tool calling: a call that came with `message_start` is judged like any other."""
    message = {"type": "tool_use", "id": "t", "name": "f", "input": {"n": "seven"}}
    told = {"id": "m", "content": [message], "stop_reason": "tool_use", "usage": {}}
    start = wire.frame("message_start", {"type": "message_start", "message": told})
    tool = {"name": "f", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}

    async def main() -> None:
        source = script([send(start), send(wire.message_stop())], request={**REQUEST, "tools": [tool]})
        with pytest.raises(CallError) as caught:
            await run(source, policy=load_policy("streamguard:tool_input").model_copy(update={"retry": Policy().retry}))
        assert caught.value.reason == "json.schema"

    run_virtual(main)
