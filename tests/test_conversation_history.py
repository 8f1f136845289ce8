"""Conversations: what is refused, what is saved, and any history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import GaveUp, Policy
from streamguard.conversation import Conversation, ConversationError
from streamguard.testing import BACKENDS
from tests.conversations import SETUP, Provider, call, result, stream, text, thought, told


def test_cut_off_by_its_limit(run_real) -> None:
    """Where the policy accepts an answer that reached its limit it is a turn, but not if it ends in a thought."""

    async def main() -> None:
        policy = Policy(completion=streamguard.Completion(accept=["max_tokens"], require_content=False))
        provider = Provider(stream(text("Hel"), stop="max_tokens"), stream(thought("hm", None), stop="max_tokens"))
        conversation = Conversation(**SETUP).user("Hi")
        conversation.commit(await provider.run(conversation, policy))
        assert conversation.messages[1]["content"] == [text("Hel")]
        outcome = await provider.run(conversation.user("Go on."), policy)
        with pytest.raises(ConversationError, match="the thinking has no signature"):
            conversation.commit(outcome)

    run_real(main)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (lambda c: c.user(""), "nothing to say"),
        (lambda c: c.user([]), "nothing to say"),
        (lambda c: c.user([7]), "a content block is a mapping, not 7"),
        (lambda c: c.user(result("1")), "goes to tool_result"),
        (lambda c: c.tool_result("toolu_9", "x"), "no tool call 'toolu_9' waits for a result; waiting: none"),
        (lambda c: c.request(messages=[]), "the conversation's own"),
        (lambda c: c.request(), "nothing to answer"),
        (lambda c: c.commit(told("end_turn", text("Hi"))), "asked nothing"),
    ],
)
def test_misuse(said: Any, problem: str) -> None:
    """A mistake is told before anything is sent."""
    with pytest.raises(ConversationError, match=problem):
        said(Conversation(**SETUP))


@pytest.mark.parametrize(
    ("history", "problems"),
    [
        ([{"role": "assistant", "content": "Hi"}], ["/messages/0/role: turns alternate"]),
        (
            [{"role": "tool", "content": "Hi"}],
            ["/messages/0/role: a turn is the user's or the assistant's, not 'tool'"],
        ),
        ([{"role": "user", "content": "Hi"}] * 2, ["/messages/1/role: turns alternate"]),
        (
            [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
            ["/messages/1/role: the last turn is the user's or the assistant's, not 'system'"],
        ),
        (
            [{"role": "user", "content": []}, {"role": "assistant", "content": [7]}],
            ["/messages/0/content: a turn has text", "/messages/1/content: a turn has text"],
        ),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [call("1"), call("2")]},
                {"role": "user", "content": [result("1")]},
                {"role": "assistant", "content": "b"},
            ],
            ["/messages/2/content: the calls before it are 'toolu_1', 'toolu_2', its results are for 'toolu_1'"],
        ),
        (
            [{"role": "user", "content": [result("1")]}],
            ["/messages/0/content: the calls before it are none, its results are for 'toolu_1'"],
        ),
    ],
)
def test_a_wrong_history(history: list[Any], problems: list[str]) -> None:
    """A history that no provider takes is refused, with every mistake and its place."""
    with pytest.raises(ConversationError) as caught:
        Conversation(messages=history, **SETUP)
    assert [
        str(problem)[: len(start)] for problem, start in zip(caught.value.problems, problems, strict=True)
    ] == problems


def test_a_saved_history() -> None:
    """A history with a system turn, and a user's turn that is open, goes on where it stopped."""
    history = [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "from now on"},
        {"role": "assistant", "content": [call("1"), call("2")]},
        {"role": "user", "content": [result("2"), text("and?")]},
    ]
    conversation = Conversation(messages=history, **SETUP)
    assert [one.id for one in conversation.tool_calls] == ["toolu_1"]
    conversation.tool_result("toolu_1", "found")
    assert conversation.request()["messages"] == [
        *history[:3],
        {"role": "user", "content": [result("1"), result("2"), text("and?")]},
    ]


def test_nothing_is_shared() -> None:
    """Neither what comes out nor what went in is a way to change the history."""
    image = {"type": "image", "source": {"type": "url", "url": "u"}}
    conversation = Conversation(**SETUP).user([image])
    conversation.request()["messages"][0]["content"].append("x")
    said = told("tool_use", call("1", a=[1]))
    conversation.commit(said)
    image["source"]["url"] = said["content"][0]["input"]["a"][0] = "changed"
    conversation.tool_calls[0].input["a"].append(2)
    assert conversation.messages == [
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"role": "assistant", "content": [call("1", a=[1])]},
    ]


WORDS = st.text(min_size=1, max_size=8).filter(str.strip)
JSON = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=6) | st.booleans() | st.none(), max_size=3)
OTHER = st.sampled_from(
    [
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "yet_to_be_invented", "payload": {"x": [1, None, "y"]}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srv_1",
            "content": [{"type": "web_search_result", "url": "u"}],
        },
    ]
)


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The blocks of an answer: perhaps thoughts, some text or blocks of other kinds, perhaps tool calls."""
    thoughts = [thought(draw(WORDS), draw(WORDS))] if draw(st.booleans()) else []
    middle = [draw(OTHER) if draw(st.booleans()) else text(draw(WORDS)) for _ in range(draw(st.integers(1, 3)))]
    calls = [call(str(draw(st.integers(0, 10**9))), **draw(JSON)) for _ in range(draw(st.integers(0, 2)))]
    unique = {one["id"]: one for one in calls}
    return [*thoughts, *middle, *unique.values()]


class Turn:
    """One call of the property test: how many attempts break off, and what the last one says."""

    def __init__(self, broken: int, blocks: Sequence[dict[str, Any]], *, drop: bool) -> None:
        self.broken, self.blocks, self.drop = broken, list(blocks), drop

    @property
    def streams(self) -> list[bytes]:
        lost = [stream(thought("LOST"), call("LOST"), text("LOST"), whole=False)] * self.broken
        stop = "tool_use" if any(one["type"] == "tool_use" for one in self.blocks) else "end_turn"
        return lost if self.broken == 3 else [*lost, stream(*self.blocks, stop=stop)]

    def __repr__(self) -> str:
        return f"Turn({self.broken}, {self.blocks}, drop={self.drop})"


TURNS = st.lists(st.builds(Turn, st.integers(0, 3), answers(), drop=st.booleans()), min_size=1, max_size=5)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(turns=TURNS)
def test_only_what_stood_is_history(backend: str, turns: list[Turn]) -> None:
    """Whatever breaks off, gives up, is dropped or is asked again: turns alternate, every call has its result, each
    answer is block for block what the provider said, and nothing of an aborted attempt is anywhere."""

    async def main() -> None:
        provider = Provider(*(one for turn in turns for one in turn.streams))
        conversation, stood = Conversation(**SETUP), []
        for number, turn in enumerate(turns):
            if conversation.tool_calls:
                for one in conversation.tool_calls:
                    conversation.tool_result(one, f"result {number}")
            else:
                conversation.user(f"question {number}")
            before = conversation.messages
            try:
                outcome = await provider.run(conversation)
            except GaveUp:
                assert conversation.messages == before
                if turn.drop:
                    conversation.drop()
                continue
            conversation.commit(outcome)
            stood.append(turn.blocks)
            assert conversation.messages[:-1] == before
            again = Conversation(messages=json.loads(json.dumps(conversation.messages)), **SETUP)
            assert again.messages == conversation.messages
        history = [one["content"] for one in conversation.messages if one["role"] == "assistant"]
        assert history == stood
        assert "LOST" not in json.dumps([conversation.messages, [body["messages"] for body in provider.asked]])
        for body in provider.asked:
            roles = [one["role"] for one in body["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
            for said, replied in zip(body["messages"][1::2], body["messages"][2::2], strict=True):
                calls = [one["id"] for one in said["content"] if one["type"] == "tool_use"]
                results = replied["content"] if isinstance(replied["content"], list) else []
                assert [one["tool_use_id"] for one in results if one["type"] == "tool_result"] == calls

    anyio.run(main, backend=backend)
