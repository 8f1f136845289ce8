"""Raw frames beside neutral events: whole streams byte for byte, holding back, restarts, keep-alives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic
import anyio
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard import GaveUp, JsonDocument, Policy, Retry, Rule, messages, stream
from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.errors import ConfigError
from streamguard.events import BlockStarted, Delta, Event, Other, Ping, Restarted
from streamguard.testing import script, wire
from tests.data import path

REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
MODES = ("committed", "live", "restarting")
SAMPLES = ("text_json_answer", "thinking_text", "tool_use_fine_grained", "max_tokens_truncated")
ODD = (
    wire.message_start()
    + b": a comment\n\n"
    + wire.block_start()
    + b'id: 7\nretry: 10\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,\ndata: "delta":'
    b'{"type":"text_delta","text":"a","shiny":1}}\n\n'
    + wire.frame("shiny_new", {"type": "shiny_new"})
    + wire.ping()
    + wire.text_delta("")
    + wire.text_delta("b")
    + wire.block_stop()
    + wire.message_delta()
    + wire.message_stop()
    + b": goodbye\n\n"
    + wire.ping()
)


async def passed_on(
    bodies: Sequence[bytes], policy: Policy, *, width: int = 300, log: FrameLog | None = None, **options: Any
) -> list[list[Any]]:
    """What goes out for each batch: the frames, and `Restarted` in its place; at the end the error or the rest."""
    log = log or FrameLog(keepalives="in order")
    attempt = iter(bodies)

    def content(request: Any) -> Any:
        body = next(attempt)

        async def pieces() -> Any:
            for at in range(0, len(body), width):
                yield body[at : at + width]

        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=pieces())

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(content))
    out: list[list[Any]] = []
    async with anthropic.AsyncAnthropic(api_key="x", http_client=http) as client:
        source = log.source(messages(client, **REQUEST))
        async with stream(source, policy=policy, **options) as events:
            try:
                while (batch := await events.batch()) is not None:
                    out.append([event for event in batch if type(event) is Restarted] + log.release(batch))
                out.append(log.rest())
            except GaveUp as error:
                out.append([error.reason])
    return out


def joined(out: list[list[Any]]) -> bytes:
    return b"".join(frame for batch in out for frame in batch)


ANY_STOP = Policy(completion={"accept": ["end_turn", "tool_use", "max_tokens"]})


@pytest.mark.parametrize("deliver", MODES)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [1, 7, 100_000])
def test_a_recorded_stream_goes_through_byte_for_byte(name: str, deliver: Any, width: int) -> None:
    """Whatever is held back meanwhile, what comes out in the end is what came in."""
    body = path("sse", f"{name}.sse").read_bytes()
    assert joined(anyio.run(lambda: passed_on([body], ANY_STOP, width=width, deliver=deliver))) == body


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("deliver", MODES)
@pytest.mark.parametrize("width", [1, 2, 3, 50, 100_000])
def test_what_has_no_word_of_ours_goes_through_too(newline: bytes, deliver: Any, width: int) -> None:
    """Comments, ids, unknown events and fields, several data lines, a byte order mark, and what follows the end."""
    body = b"\xef\xbb\xbf" + ODD.replace(b"\n", newline)
    assert joined(anyio.run(lambda: passed_on([body], Policy(), width=width, deliver=deliver))) == body


def test_keepalives_overtake_an_answer_that_is_held_back() -> None:
    """Under `committed` pings and comments keep the consumer's connection alive; the rest keeps its order."""
    out = anyio.run(lambda: passed_on([ODD], Policy(), log=FrameLog(), width=60))
    assert out[0] == [b": a comment\n\n", wire.ping()]
    rest = ODD.replace(b": a comment\n\n", b"").replace(wire.ping(), b"", 1)
    assert joined(out[1:]) == rest


def test_tool_input_waits_for_the_end_of_its_block_and_so_does_what_follows() -> None:
    """Under `live` the tool's frames come with the end of its block, not before."""
    head = [wire.message_start(), wire.block_start(0, "tool_use", id="t", name="t", input={})]
    head.append(wire.input_json_delta(""))
    inner = [wire.input_json_delta('{"a":'), wire.ping(), wire.input_json_delta("1}"), wire.block_stop()]
    tail = [wire.message_delta(stop_reason="tool_use"), wire.message_stop()]
    body = b"".join(head + inner + tail)
    out = anyio.run(lambda: passed_on([body], ANY_STOP, width=90, deliver="live"))
    assert [batch for batch in out if batch] == [[*head, *inner], *([frame] for frame in tail)]


def test_a_thrown_away_attempt_leaves_no_frame_behind() -> None:
    """Committed, nothing of the first attempt goes out; restarting, its frames stand before the seam."""
    policy = Policy(json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["json.*"])]))
    bad, good = b"".join(wire.text_stream('{"a" 1}')), b"".join(wire.text_stream('{"a": 1}'))
    assert joined(anyio.run(lambda: passed_on([bad, good], policy))) == good
    out = anyio.run(lambda: passed_on([bad, good], policy, width=1, deliver="restarting"))
    seam = next(at for at, batch in enumerate(out) if any(type(item) is Restarted for item in batch))
    assert bad.startswith(joined(out[:seam]))
    assert joined([out[seam][1:], *out[seam + 1 :]]) == good


def test_what_the_guards_did_not_pass_stays_in() -> None:
    """An answer cut when its document closed: the frames after the cut are not part of it."""
    frames = [wire.message_start(), wire.block_start(), wire.text_delta("{}"), wire.text_delta(" and so on")]
    body = b"".join([*frames, wire.block_stop(), wire.message_delta(), wire.message_stop()])
    out = anyio.run(lambda: passed_on([body], Policy(json=JsonDocument(trailing="cut"))))
    assert joined(out) == b"".join(frames[:3])


def test_a_source_without_bytes_is_refused() -> None:
    """A source of neutral events has no frames to keep."""

    async def main() -> None:
        source = FrameLog().source(script([Delta(0, "text", "a")]))
        async with stream(source, policy=Policy()) as events:
            await events.batch()

    with pytest.raises((ConfigError, GaveUp), match="shows no bytes"):
        anyio.run(main)


def test_events_of_others_are_read_over() -> None:
    """Released events that are not of this log change nothing, equal ones included."""
    log = FrameLog()
    body = wire.message_start() + wire.block_start() + wire.text_delta("a")
    taken = log.take(body, lambda data: Translator().translate(Decoder().feed(data)))
    assert log.release([Delta(0, "text", "a"), Ping()]) == []
    assert b"".join(log.release(taken)) == body


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                wire.text_delta("a"),
                wire.text_delta(""),
                wire.ping(),
                b": c\n\n",
                b"\n",
                b"\r\n",
                b"\r",
                b"data\n\n",
                wire.frame("new", {"type": "new"}),
                wire.block_start().replace(b"\n", b"\r\n"),
                wire.text_delta("b").replace(b"\n", b"\r"),
            ]
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_any_cut_gives_the_decoders_events_and_every_byte(frames: list[bytes], widths: list[int]) -> None:
    """The events are those of the decoder alone, and what was released and what is left are all bytes, in order."""
    body = b"".join(frames)
    decoder, translator, log = Decoder(), Translator(), FrameLog(keepalives="in order")
    events: list[Event] = []
    out: list[bytes] = []
    at = 0
    for turn in range(len(body)):
        width = widths[turn % len(widths)]
        taken = log.take(body[at : at + width], lambda data: translator.translate(decoder.feed(data)))
        events += taken
        out += log.release(taken)
        at += width
    assert events == Translator().translate(Decoder().feed(body))
    assert b"".join(out) + b"".join(log._open) == body
    assert {type(event) for event in events} <= {Delta, Ping, Other, BlockStarted}
