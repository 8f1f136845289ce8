"""Answers that the line cut go on where they broke: the request, the seam, what consumers see, and what never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import GaveUp, JsonDocument, Policy, PolicyError, Retry, Rule, api, messages
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.engine.call import Call
from streamguard.engine.continuation import INSTRUCTION, MIN_OVERLAP, Seam
from streamguard.events import BlockStarted, BlockStopped, Delta, Started
from streamguard.testing import ScriptedServer, answer, fin, script, wire
from tests.clients import plain_client

REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "Tell me."}]}
RULE = Rule(when=["transport.reset", "transport.incomplete"], resume="continue")
POLICY = Policy(retry=Retry(attempts=3, rules=(RULE,)))
FIRST, REST = "Once upon a time there was a fox. It was ", "quick, and it jumped."


def cut(text: str) -> list[Any]:
    pieces = [wire.text_delta(text[at : at + 7]) for at in range(0, len(text), 7)]
    return [wire.message_start(), wire.block_start(), *pieces, fin()]


def against(*attempts: Any, program: Callable[[Any], Any], backend: str = "asyncio") -> tuple[Any, list[Any]]:
    """What a program gives with a client, and the bodies that were sent."""

    async def main() -> tuple[Any, list[Any]]:
        async with ScriptedServer(*attempts) as server, plain_client(server.url) as client:
            return await program(client), server.requests

    return anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("repeated", ["", "a fox. It was ", FIRST[-30:]])
def test_the_answer_is_whole(repeated: str, backend: str) -> None:
    """The partial text goes back as the model's turn; the seam leaves repetitions out; usage adds up."""
    outcome, sent = against(
        cut(FIRST),
        wire.text_stream(repeated + REST, chunk=3),
        program=lambda client: api.run(messages(client, **REQUEST), policy=POLICY),
        backend=backend,
    )
    assert (outcome.text, outcome.message.content[0].text, outcome.completed) == (FIRST + REST, FIRST + REST, "whole")
    assert sent[1]["messages"] == [
        *REQUEST["messages"],
        {"role": "assistant", "content": FIRST},
        {"role": "user", "content": INSTRUCTION},
    ]
    assert [attempt.text for attempt in outcome.attempts] == [FIRST, FIRST + REST]
    assert "goes on where this one broke" in outcome.attempts[0].decision.why
    last = outcome.attempts[1].usage
    assert last.exact
    assert outcome.usage.low.output_tokens == outcome.attempts[0].usage.low.output_tokens + last.low.output_tokens


def test_a_continuation_that_is_cut_is_continued() -> None:
    """From all that came; one that broke before its first text changes nothing."""
    outcome, sent = against(
        cut(FIRST),
        [wire.message_start(), fin()],
        cut("quick, "),
        wire.text_stream("and it jumped."),
        program=lambda client: api.run(
            messages(client, **REQUEST), policy=Policy(retry=Retry(attempts=4, rules=(RULE,)))
        ),
    )
    assert outcome.text == FIRST + REST
    assert [body["messages"][1]["content"] for body in sent[1:]] == [FIRST, FIRST, FIRST + "quick, "]


@pytest.mark.parametrize("deliver", ["live", "committed"])
def test_a_consumer_sees_each_character_once(deliver: Any) -> None:
    """Live, too, where nothing can be taken back: the stream goes on, and no second beginning is seen."""

    async def program(client: Any) -> list[Any]:
        async with api.stream(messages(client, **REQUEST), policy=POLICY, deliver=deliver) as events:
            return [event async for event in events]

    events, _ = against(cut(FIRST), wire.text_stream(FIRST[-20:] + REST, chunk=4), program=program)
    assert "".join(event.text for event in events if type(event) is Delta) == FIRST + REST
    assert [sum(type(event) is kind for event in events) for kind in (Started, BlockStarted, BlockStopped)] == [1, 1, 1]


def test_live_without_a_continuation_gives_up() -> None:
    """What follows for another reason cannot begin again unseen."""

    async def program(client: Any) -> Any:
        with pytest.raises(GaveUp, match="already delivered") as raised:
            async with api.stream(messages(client, **REQUEST), policy=policy, deliver="live") as events:
                async for _ in events:
                    pass
        return [attempt.reason for attempt in raised.value.attempts]

    policy = Policy(retry=Retry(attempts=3, rules=(RULE, Rule(when=["stop.*"]))))
    reasons, _ = against(cut(FIRST), wire.text_stream("x", stop_reason="max_tokens"), program=program)
    assert reasons == ["transport.reset", "stop.max_tokens"]


TOOL = {"name": "look", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("more", "first"),
    [
        ({"tools": [TOOL]}, cut(FIRST)),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, cut(FIRST)),
        ({}, cut("   ")),
        ({}, [wire.message_start(), wire.block_start(), wire.text_delta("a"), wire.block_stop(), wire.block_start(1), fin()]),
        ({"messages": [*REQUEST["messages"], {"role": "assistant", "content": "Once"}]}, cut(FIRST)),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_begins_again(more: dict[str, Any], first: list[Any]) -> None:
    """Tools, thinking, blanks, several blocks, an answer begun by the caller: from scratch, with the original request."""
    outcome, sent = against(
        first,
        wire.text_stream(REST),
        program=lambda client: api.run(messages(client, **{**REQUEST, **more}), policy=POLICY),
    )
    assert (outcome.text, sent[1]["messages"]) == (REST, sent[0]["messages"])


def test_documents_are_never_joined() -> None:
    """The doors refuse a rule that says so, and the engine does not follow one."""
    policy = POLICY.replace(json=JsonDocument())
    with pytest.raises(PolicyError, match="a document is never joined of two answers"):
        api.stream(script(answer("{}")), policy=policy)
    outcome, sent = against(
        cut('{"a": '),
        wire.text_stream('{"a": 1}'),
        program=lambda client: Call(messages(client, **REQUEST), policy, None).run(),
    )
    assert (outcome.value, sent[1]["messages"]) == ({"a": 1}, REQUEST["messages"])


def test_what_is_handed_on_as_it_came_is_refused() -> None:
    """Raw frames are of one answer; and a rule about other reasons cannot continue."""

    async def program(client: Any) -> None:
        with pytest.raises(PolicyError, match="joins two answers"):
            await api.run(FrameLog().source(messages(client, **REQUEST)), policy=POLICY)

    against(wire.text_stream("x"), program=program)
    with pytest.raises(PolicyError, match="answers that the line cut"):
        Rule(when=["json.*", "transport.*"], resume="continue")


@given(st.text("ab c", min_size=1, max_size=80), st.text("abcd ", max_size=40), st.integers(0, 60), st.integers(1, 9))
def test_a_repetition_at_the_seam_is_left_out(before: str, new: str, repeated: int, width: int) -> None:
    """In any pieces: what goes out is the new text, less at most what ends the old one."""
    after = (before[-repeated:] if repeated else "") + new
    seam = Seam(before)
    out = "".join(seam.feed(after[at : at + width]) for at in range(0, len(after), width)) + seam.end()
    size = next(
        (size for size in range(min(len(after), len(before)), MIN_OVERLAP - 1, -1) if before.endswith(after[:size])), 0
    )
    assert after.endswith(out)
    assert len(out) >= len(after) - size
    if width >= len(after):
        assert out == after[size:]
