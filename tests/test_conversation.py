"""Conversations: only answers that stood become history, whole and as they came, and requests are what a provider takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

import streamguard
from streamguard import GaveUp, JsonDocument, Policy
from streamguard.conversation import Conversation, ConversationError, ToolCall
from streamguard.testing import wire
from streamguard.testing.scripted import answer, script
from tests.conversations import SETUP, Provider, block, call, result, stream, text, thought, told


def test_turns(run_real) -> None:
    """What was said and the answer that stood become history; aborted attempts leave nothing in it."""

    async def main() -> None:
        provider = Provider(
            stream(thought("LOST"), text("LOST"), whole=False),
            stream(thought("hm"), text("Hello.")),
            stream(text("LOST"), whole=False),
            stream(text("Bye.")),
        )
        conversation = Conversation(system="Be kind.", **SETUP).user("Hi")
        conversation.commit(await provider.run(conversation))
        conversation.user("And").user([{"type": "image", "source": {"type": "url", "url": "http://x/y"}}])
        conversation.commit(await provider.run(conversation, temperature=0.5))
        assert conversation.messages == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [thought("hm"), text("Hello.")]},
            {
                "role": "user",
                "content": [text("And"), {"type": "image", "source": {"type": "url", "url": "http://x/y"}}],
            },
            {"role": "assistant", "content": [text("Bye.")]},
        ]
        assert provider.asked[0] == provider.asked[1]
        assert provider.asked[2]["messages"] == conversation.messages[:3]
        assert [body.get("temperature") for body in provider.asked] == [None, None, 0.5, 0.5]
        assert [body["system"] for body in provider.asked] == ["Be kind."] * 4

    run_real(main)


def test_tool_calls(run_real) -> None:
    """Calls go back as they came, wait for their results, and results come first, in the order of the calls."""

    async def main() -> None:
        said = [thought("which?", "c2ln+/="), text("Let me look."), call("1", name="Zoë"), call("2", deep={"a": [1.5]})]
        provider = Provider(stream(*said, stop="tool_use"), stream(text("Both there.")))
        conversation = Conversation(**SETUP).user("Look them up.")
        conversation.commit(await provider.run(conversation))
        first, second = conversation.tool_calls
        assert first == ToolCall(id="toolu_1", name="look_up", input={"name": "Zoë"})
        conversation.user("Quick, please.").tool_result(second, [text("no")], is_error=True)
        with pytest.raises(ConversationError, match=r"wait for a result: look_up \(toolu_1\)"):
            conversation.request()
        conversation.tool_result("toolu_1", "found")
        assert conversation.tool_calls == ()
        conversation.commit(await provider.run(conversation))
        assert conversation.messages[1:3] == [
            {"role": "assistant", "content": said},
            {
                "role": "user",
                "content": [result("1"), result("2", [text("no")], is_error=True), text("Quick, please.")],
            },
        ]
        assert provider.asked[1]["messages"] == conversation.messages[:3]

    run_real(main)


def test_a_failed_call(run_real) -> None:
    """A call that gave up changes nothing: the same can be asked again, or dropped."""

    async def main() -> None:
        broken = [stream(text("LOST"), whole=False)] * 3
        provider = Provider(*broken, *broken, stream(text("Now.")))
        conversation = Conversation(**SETUP).user("Hi")
        for _ in range(2):
            with pytest.raises(GaveUp) as caught:
                await provider.run(conversation)
            assert conversation.messages == [{"role": "user", "content": "Hi"}]
        with pytest.raises(ConversationError, match="a call that failed has no answer: gave up after 3 attempts"):
            conversation.commit(caught.value)
        with pytest.raises(ConversationError, match="there is no answer"):
            conversation.commit(None)
        assert conversation.drop().messages == []
        with pytest.raises(ConversationError, match="nothing to answer"):
            conversation.request()
        conversation.commit(await provider.run(conversation.user("Hello?")))
        assert [turn["content"] for turn in conversation.messages] == ["Hello?", [text("Now.")]]

    run_real(main)


def test_as_events(run_virtual) -> None:
    """A stream's outcome is committed like any other; before its end there is none."""

    async def main() -> None:
        conversation = Conversation(**SETUP).user("Hi")
        source = script(answer("Hello."), request=conversation.request(), messages=True)
        async with streamguard.stream(source, policy=Policy()) as events:
            with pytest.raises(ConversationError, match="there is no answer"):
                conversation.commit(events.outcome)
            async for _ in events:
                pass
        conversation.commit(events.outcome)
        assert conversation.messages[1]["content"] == [text("Hello.")]

    run_virtual(main)


def test_said_meanwhile(run_real) -> None:
    """What is said while a call runs belongs to the next turn."""

    async def main() -> None:
        provider = Provider(stream(text("One.")), stream(text("Two.")))
        conversation = Conversation(**SETUP).user("1?")
        outcome = await provider.run(conversation)
        conversation.user("2?")
        conversation.commit(outcome)
        conversation.commit(await provider.run(conversation))
        assert [turn["content"] for turn in conversation.messages] == ["1?", [text("One.")], "2?", [text("Two.")]]

    run_real(main)


def test_two_answers(run_real) -> None:
    """Of two answers to the same turn only the first becomes history."""

    async def main() -> None:
        provider = Provider(stream(text("A")), stream(text("B")))
        conversation = Conversation(**SETUP).user("Which?")
        first, second = await provider.run(conversation), await provider.run(conversation)
        conversation.commit(first)
        with pytest.raises(ConversationError, match="asked nothing that is not answered"):
            conversation.commit(second)
        assert conversation.messages[1]["content"] == [text("A")]

    run_real(main)


def test_a_paused_turn(run_real) -> None:
    """A turn that the provider paused goes on with the same history, and its parts are one turn; also after a save."""

    async def main() -> None:
        search = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
        found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}
        provider = Provider(stream(text("Wait."), search, stop="pause_turn"), stream(found, text("There.")))
        policy = Policy(completion=streamguard.Completion(accept=["end_turn", "pause_turn"]))
        conversation = Conversation(**SETUP).user("Search.")
        conversation.commit(await provider.run(conversation, policy))
        conversation = Conversation(messages=json.loads(json.dumps(conversation.messages)), **SETUP)
        conversation.commit(await provider.run(conversation, policy))
        assert provider.asked[1]["messages"][1] == {"role": "assistant", "content": [text("Wait."), search]}
        assert conversation.messages == [
            {"role": "user", "content": "Search."},
            {"role": "assistant", "content": [text("Wait."), search, found, text("There.")]},
        ]
        with pytest.raises(ConversationError, match="nothing to answer"):
            conversation.request()

    run_real(main)


def test_a_cut_answer(run_real) -> None:
    """An answer that was cut behind its document is the document; one ended with `enough` is no turn."""

    async def main() -> None:
        said = thought("easy"), text('Sure: {"total": 1} and so on and so on')
        provider = Provider(stream(*said), stream(*said))
        cut = Policy(json=JsonDocument(preamble="skip", trailing="cut"))
        conversation = Conversation(**SETUP).user("As JSON.")
        outcome = await provider.run(conversation, cut)
        assert outcome.completed == "cut"
        conversation.commit(outcome)
        assert conversation.messages[1]["content"] == [thought("easy"), text('{"total": 1}')]
        conversation.user("Again.")
        enough = await provider.run(conversation, Policy(json=JsonDocument(preamble="skip", enough_when=["/total"])))
        assert enough.completed == "enough"
        with pytest.raises(ConversationError, match="completed: enough"):
            conversation.commit(enough)
        assert len(conversation.messages) == 3

    run_real(main)


def test_a_cut_tool_call(run_real) -> None:
    """A tool call that was cut behind its input is a whole tool call."""

    async def main() -> None:
        frames = [wire.message_start(), *block(0, call("1", total=1), stop=False), wire.input_json_delta("  ")]
        provider = Provider(b"".join(frames) + wire.block_stop(0))
        choice = {"type": "tool", "name": "look_up", "disable_parallel_tool_use": True}
        tool = {"name": "look_up", "input_schema": {"type": "object"}}
        conversation = Conversation(tools=[tool], tool_choice=choice, **SETUP).user("Call it.")
        policy = Policy(json=JsonDocument(where="tool:look_up", trailing="cut"))
        outcome = await provider.run(conversation, policy)
        assert outcome.completed == "cut"
        conversation.commit(outcome)
        assert conversation.messages[1]["content"] == [call("1", total=1)]
        assert [one.input for one in conversation.tool_calls] == [{"total": 1}]

    run_real(main)


def test_empty_text(run_real) -> None:
    """Text blocks without text, which the API does not take back, are left out."""

    async def main() -> None:
        provider = Provider(stream(text(""), text("\n\n"), call("1"), stop="tool_use"))
        conversation = Conversation(**SETUP).user("Call it.")
        conversation.commit(await provider.run(conversation))
        assert conversation.messages[1]["content"] == [call("1")]

    run_real(main)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (told(None, text("Hi")), "its stop reason is None"),
        (told("max_tokens", text("Hi")), "its stop reason is 'max_tokens'"),
        (told("refusal", text("No")), "the model refused"),
        (told("end_turn"), "/content: the answer has no content"),
        (told("end_turn", text(" ")), "/content: the answer has no content"),
        (
            told("tool_use", text("a"), call("1") | {"partial_json": '{"a'}),
            "/content/1: the tool_use block was cut off",
        ),
        (told("end_turn", text("a") | {"deltas": [{}]}), "/content/0: the text block was cut off"),
        (told("tool_use", call("1") | {"input": None}), "/content/0: the input of the tool call is no object"),
        ({"role": "user", "content": "Hi"}, "dict is no answer"),
        ("Hi", "str is no answer"),
    ],
)
def test_no_turn(message: Any, problem: str) -> None:
    """What is no complete answer is refused, and changes nothing."""
    conversation = Conversation(**SETUP).user("Hi")
    conversation.request()
    with pytest.raises(ConversationError) as caught:
        conversation.commit(message)
    assert problem in str(caught.value)
    assert conversation.messages == [{"role": "user", "content": "Hi"}]
    conversation.commit(told("end_turn", text("Hello.")))
    assert len(conversation.messages) == 2
