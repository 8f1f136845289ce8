"""Guarded streams of the SDK's own kind: equal events, bytes as they came, closing, helpers, and what is refused."""

# ruff: noqa: SIM117  a server, its client and a stream are contexts of their own

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import anthropic
import anyio
import pytest

from streamguard import ConfigError, GaveUp, GuardMiddleware, JsonDocument, Policy
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.anthropic.middleware import events
from streamguard.adapters.anthropic.middleware.events import SdkEvents
from streamguard.adapters.sse.decoder import Decoder
from streamguard.testing import faults, wire
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, POLICY, REQUEST, client, guarded
from tests.adapters.wire import mocked
from tests.data import path
from tests.recorded import recorded

ON_BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])
LENIENT = Policy(completion={"accept": ["end_turn", "tool_use", "max_tokens", "stop_sequence"]})
SAMPLES = ("text_json_answer", "thinking_text", "tool_use_fine_grained", "max_tokens_truncated")
ODD = b"".join(
    [
        wire.message_start(),
        wire.frame("shiny_new", {"type": "shiny_new", "shine": 1}),
        wire.block_start(0, "thinking"),
        wire.thinking_delta("Hm"),
        wire.block_delta(0, {"type": "thinking_delta", "thinking": "", "estimated_tokens": 7}),
        wire.block_delta(0, {"type": "thinking_delta", "thinking": "so", "estimated_tokens": 9}),
        wire.signature_delta(),
        wire.block_stop(),
        wire.ping(),
        wire.block_start(1, text="A"),
        wire.text_delta("", 1),
        wire.frame("content_block_delta", b'{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"\\ud83d"}}'),
        wire.block_delta(1, {"type": "text_delta", "text": "b", "shiny": [1]}),
        wire.frame("content_block_delta", {"type": "content_block_delta", "index": 1, "at": 5, "delta": {"type": "text_delta", "text": "c"}}),
        wire.block_delta(1, {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x"}}),
        wire.block_delta(1, {"type": "beam_delta", "beam": 1}),
        wire.block_stop(1),
        wire.block_start(2, "tool_use", id="t", name="n", input={}),
        wire.input_json_delta("", 2),
        wire.block_stop(2),
        wire.block_start(3, "hologram", light=3),
        wire.block_stop(3),
        wire.message_delta(),
        wire.message_stop(),
    ]
)  # fmt: skip
"""Everything that is not a plain piece of output."""


def stream_of(name: str) -> bytes:
    if name == "odd":
        return ODD
    if name.startswith("recorded"):
        parts = [wire.message_start(), wire.block_start()]
        parts += [wire.text_delta(piece) for piece in recorded()[int(name[-1])].deltas]
        return b"".join([*parts, wire.block_stop(), wire.message_delta(), wire.message_stop()])
    return path("sse", f"{name}.sse").read_bytes()


async def events_of(sdk: anthropic.AsyncAnthropic, *, beta: bool = False) -> list[Any]:
    messages = sdk.beta.messages if beta else sdk.messages
    async with await messages.create(**REQUEST, stream=True) as stream:
        return [event async for event in stream]


def cut(stream: bytes, width: int | None) -> Any:
    if width is None:
        return [part + b"\n\n" for part in stream.split(b"\n\n") if part]
    return [stream[at : at + width] for at in range(0, len(stream), width)]


def same(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Equal in every way that a program can see."""
    assert [type(event) for event in ours] == [type(event) for event in theirs]
    assert ours == theirs
    for one, other in zip(ours, theirs, strict=True):
        assert one.model_dump(warnings=False) == other.model_dump(warnings=False)
        if "ud83d" not in repr(one):
            assert one.to_json(warnings=False) == other.to_json(warnings=False)
        assert one.to_dict(warnings=False) == other.to_dict(warnings=False)
        assert one.model_fields_set == other.model_fields_set
        assert repr(one) == repr(other)


# Events


@pytest.mark.parametrize("name", [*SAMPLES, "odd", "recorded-0", "recorded-7"])
@pytest.mark.parametrize("deliver", ["committed", "live"])
@pytest.mark.parametrize("width", [1, None, 100_000], ids=["bytes", "events", "whole"])
def test_the_events_are_the_sdks_own(name: str, deliver: Any, width: int | None) -> None:
    """Whole, per event and per byte, committed and live: types, values, dumps, sets of fields."""
    stream = stream_of(name)

    async def main() -> None:
        async with client("http://x", http_client=mocked(cut(stream, 100_000))) as plain:
            theirs = await events_of(plain)
        guard = GuardMiddleware(LENIENT, deliver=deliver)
        async with client("http://x", guard, http_client=mocked(cut(stream, width))) as sdk:
            ours = await events_of(sdk)
        same(ours, theirs)

    anyio.run(main)


@ON_BOTH
@pytest.mark.parametrize("name", ["thinking_text", "odd"])
def test_beta_events_are_the_sdks_own(name: str, backend: str) -> None:
    """`client.beta.messages` has event classes of its own."""
    stream = stream_of(name)

    async def main() -> None:
        async with client("http://x", http_client=mocked(cut(stream, 999))) as plain:
            theirs = await events_of(plain, beta=True)
        guard = GuardMiddleware(LENIENT, deliver="live")
        async with client("http://x", guard, http_client=mocked(cut(stream, 999))) as sdk:
            ours = await events_of(sdk, beta=True)
        same(ours, theirs)
        assert type(ours[0]).__name__ == "BetaRawMessageStartEvent"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("beta", [False, True])
def test_events_that_are_built_directly_are_whole_models(beta: bool) -> None:
    """They can be copied, pickled, validated again and changed, each by itself."""
    translator = Translator()
    translator.translate(
        Decoder().feed(b"".join([wire.text_delta("a"), wire.input_json_delta("b"), wire.thinking_delta("c")]))
    )
    for event in SdkEvents(beta=beta).of(translator.kept):
        assert pickle.loads(pickle.dumps(event)) == event
        assert copy.deepcopy(event) == event
        assert type(event).model_validate(event.model_dump()) == event
        event.index = 9
        assert (event.index, event.model_dump()["index"]) == (9, 9)


@pytest.mark.parametrize("name", [*SAMPLES, "odd"])
@pytest.mark.parametrize("beta", [False, True])
def test_the_public_way_to_events_gives_the_same(name: str, beta: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK's own way is not found, and instances are laid out in another way, events are equal all the same."""
    translator = Translator()
    translator.translate(Decoder().feed(stream_of(name)))
    ours = SdkEvents(beta=beta).of(translator.kept)
    monkeypatch.setattr(events, "_layout", lambda event: [object()])
    fallback = SdkEvents(beta=beta).of(translator.kept)
    assert [event.to_dict(warnings=False) for event in fallback] == [event.to_dict(warnings=False) for event in ours]
    assert [type(event) for event in fallback] == [type(event) for event in ours]


def test_an_sdk_that_shows_no_client_is_worked_around() -> None:
    """Responses without the SDK's private client: the stream itself is handed back."""

    class Bare:
        def __init__(self, response: Any) -> None:
            self.http_response, self.headers, self.close = response.http_response, response.headers, response.close

    async def bare(request: Any, call_next: Any) -> Any:
        return Bare(await call_next(request))

    async def main() -> None:
        stream = stream_of("tool_use_fine_grained")
        async with client("http://x", http_client=mocked(stream)) as plain:
            theirs = await events_of(plain)
        guard = GuardMiddleware(LENIENT, deliver="committed")
        async with client("http://x", guard, bare, http_client=mocked(cut(stream, 99))) as sdk:
            ours = await events_of(sdk)
            assert [event.model_dump() for event in ours] == [event.model_dump() for event in theirs]
            async with sdk.messages.stream(**REQUEST) as helper:
                assert (await helper.get_final_message()).stop_reason == "tool_use"
            with pytest.raises(ConfigError, match="makes responses in a way"):
                await sdk.messages.with_raw_response.create(**REQUEST, stream=True)

    anyio.run(main)


# What is released when


def test_committed_nothing_is_seen_of_an_attempt_that_was_thrown_away() -> None:
    """The first events come when the answer stands, and they are the good answer's."""

    async def main() -> None:
        async with guarded(BAD, GOOD, guard={"deliver": "committed"}) as (server, sdk):
            async with sdk.messages.stream(**REQUEST) as stream:
                assert stream.request_id == "req_scripted_2"
                assert [text async for text in stream.text_stream] == ['{"a"', ": 1}"]
        assert len(server.exchanges) == 2

    anyio.run(main)


def test_live_the_good_part_is_seen_and_the_trip_is_raised_where_one_iterates() -> None:
    """After output there is no second attempt; the error is typed, without a cause, and is raised again."""

    async def main() -> None:
        seen = []
        async with guarded(BAD, GOOD, guard={"deliver": "live"}) as (server, sdk):
            stream = await sdk.messages.create(**REQUEST, stream=True)
            with pytest.raises(GaveUp, match=r"json\.malformed") as caught:
                async for event in stream:
                    seen.append(event.type)
            with pytest.raises(GaveUp):
                await stream.__anext__()
        assert caught.value.__cause__ is None
        assert seen == ["message_start", "content_block_start", "content_block_delta"]
        assert len(server.exchanges) == 1

    anyio.run(main)


def test_live_what_fails_before_output_is_asked_again() -> None:
    """An error before the first output is raised, or silently mended, where the call is made."""

    async def main() -> None:
        early = [wire.message_start(), wire.error("overloaded_error")]
        async with guarded(early, GOOD, guard={"deliver": "live"}) as (server, sdk):
            events = await events_of(sdk)
        assert (len(server.exchanges), events[-1].type) == (2, "message_stop")
        async with guarded(early, guard={"deliver": "live"}) as (server, sdk):
            with pytest.raises(GaveUp, match=r"provider\.overloaded"):
                await sdk.messages.create(**REQUEST, stream=True)

    anyio.run(main)


def test_live_tool_input_is_seen_once_its_block_is_complete() -> None:
    """Guarded tool input never reaches the program in part; the text before it does."""

    async def main() -> None:
        answer = wire.tool_stream(faults.TOOL, '{"id": "x"}', preamble="Well")
        policy = Policy(json=JsonDocument(where="tools", schema="request"))
        seen = []
        async with guarded(answer, policy=policy, guard={"deliver": "live"}) as (_, sdk):
            stream = await sdk.messages.create(**faults.request("tool"), stream=True)
            with pytest.raises(GaveUp, match=r"json\.schema"):
                async for event in stream:
                    if event.type == "content_block_delta":
                        seen.append(event.delta.type)
        assert set(seen) == {"text_delta"}

    anyio.run(main)


@pytest.mark.parametrize("policy", [POLICY, Policy(deliver="committed")])
def test_streaming_needs_a_choice(policy: Policy) -> None:
    """A silent `committed` would turn a live screen blank, so somebody has to say it."""

    async def main() -> None:
        async with guarded(GOOD, policy=policy) as (server, sdk):
            with pytest.raises(ConfigError, match="needs a choice: deliver='committed' holds"):
                async with sdk.messages.stream(**REQUEST):
                    pass
        assert server.exchanges == []

    anyio.run(main)


def test_a_policy_that_says_live_has_chosen() -> None:
    """`deliver: live` in the policy is enough."""

    async def main() -> None:
        async with guarded(GOOD, policy=Policy(deliver="live")) as (_, sdk):
            assert len(await events_of(sdk)) == len(GOOD) - 1  # all but the ping

    anyio.run(main)


# Bytes


@pytest.mark.parametrize("deliver", ["committed", "live"])
@pytest.mark.parametrize("name", [*SAMPLES, "odd"])
def test_whoever_reads_bytes_gets_them_as_they_came(name: str, deliver: Any) -> None:
    """`with_streaming_response`: the guarded bytes are those of the wire; pings may come before what is held back."""
    stream = stream_of(name)

    async def main() -> None:
        guard = GuardMiddleware(LENIENT, deliver=deliver)
        async with client("http://x", guard, http_client=mocked(cut(stream, 77))) as sdk:
            async with sdk.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
                data = b"".join([part async for part in response.iter_bytes()])
        if deliver == "live":
            assert data == stream
        else:
            assert sorted(data.split(b"\n\n")) == sorted(stream.split(b"\n\n"))

    anyio.run(main)


def test_raw_responses_can_be_parsed_by_the_sdk_or_by_a_class_of_ones_own() -> None:
    """`with_raw_response`: the SDK decodes the guarded bytes itself, into whatever stream it is asked for."""

    class Mine(anthropic.AsyncStream[anthropic.types.RawMessageStreamEvent]):
        pass

    async def main() -> None:
        async with guarded(BAD, GOOD, BAD, GOOD, guard={"deliver": "committed"}) as (_, sdk):
            plain = await sdk.messages.with_raw_response.create(**REQUEST, stream=True)
            assert plain.headers["content-type"] == "text/event-stream"
            events = [event async for event in await plain.parse()]
            own = await sdk.messages.with_raw_response.create(**REQUEST, stream=True)
            mine = await own.parse(to=Mine)
            assert type(mine) is Mine
            assert [event async for event in mine] == events

    anyio.run(main)


def test_a_trip_ends_the_bytes_with_the_typed_error() -> None:
    """Live bytes: what was good has gone out, then the error."""

    async def main() -> None:
        async with guarded(BAD, guard={"deliver": "live"}) as (_, sdk):
            async with sdk.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
                data = []
                with pytest.raises(GaveUp, match=r"json\.malformed"):
                    async for part in response.iter_bytes():
                        data.append(part)
        assert b"".join(data) == b"".join(frame for frame in BAD[:4] if frame != wire.ping()) or b"".join(
            data
        ) == b"".join(BAD[:4])

    anyio.run(main)


def test_the_bytes_of_a_stream_of_events_are_gone() -> None:
    """A stream that hands on events has no bytes to read beside them, and says where there are some."""

    async def main() -> None:
        async with guarded(GOOD, guard={"deliver": "committed"}) as (_, sdk):
            async with await sdk.messages.create(**REQUEST, stream=True) as stream:
                with pytest.raises(ConfigError, match="use with_streaming_response"):
                    async for _ in stream.response.aiter_bytes():
                        pass

    anyio.run(main)


# Leaving
