"""What a browser is told: patches that add up to the board, texts that add up to the answer, silence in between."""

from __future__ import annotations

import copy
import json
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import JsonDocument, Policy, Retry, Rule, Runtime
from streamguard.relay.frames import KEEP_ALIVE
from streamguard.testing import answer, pause, script, stall, status
from streamguard.view.board import Board
from streamguard.view.feed import EVERY, SILENCE, Feed, merge_patch


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


LEAVES = st.none() | st.integers(0, 3) | st.sampled_from(["", "a"]) | st.lists(st.integers(0, 2), max_size=2)
STATES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | LEAVES, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(states=st.lists(STATES, min_size=1, max_size=4))
def test_patches_add_up(states: list[dict[str, Any]]) -> None:
    """A reader that applies every patch has the latest state, but for what is absent; nothing changed is no patch."""
    seen: Any = {}
    before: dict[str, Any] = {}
    for state in states:
        kept = copy.deepcopy(state)
        seen = merged(seen, merge_patch(before, state))
        assert without_nulls(seen) == without_nulls(state)
        assert merge_patch(state, copy.deepcopy(state)) == {}
        before = state
        assert state == kept


class Reader:
    """The page's half."""

    def __init__(self) -> None:
        self.state: Any = {}
        self.texts: dict[int, str] = {}
        self.attempt: int | None = None
        self.frames: list[str] = []

    def take(self, frame: bytes) -> None:
        if frame == KEEP_ALIVE:
            self.frames.append("comment")
            return
        event, data = frame.decode().removesuffix("\n\n").split("\n")
        self.frames.append(event.removeprefix("event: "))
        told = json.loads(data.removeprefix("data: "))
        self.state = merged(self.state, told["patch"])
        for text in told["texts"]:
            if text["attempt"] != self.attempt:
                self.attempt, self.texts = text["attempt"], {}
            self.texts[text["index"]] = self.texts.get(text["index"], "") + text["text"]


@pytest.fixture
def followed(run_virtual):
    """Run a call, and read the feed of it meanwhile until `done(reader)`."""

    def follow(source: Any, policy: Policy, done: Any, *, detail: bool = True) -> Reader:
        async def main() -> Reader:
            runtime, reader, closing = Runtime(), Reader(), anyio.Event()
            board = Board(runtime)

            async def call() -> None:
                with pytest.raises(streamguard.CallError):
                    await streamguard.run(source, policy=policy, runtime=runtime)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.sleep(0.01)
                [name] = runtime.calls
                async with Feed(board, name if detail else None, closing) as feed:
                    async for frame in feed:
                        reader.take(frame)
                        if done(reader):
                            break
                tasks.cancel_scope.cancel()
            return reader

        return run_virtual(main)

    return follow


def test_a_call_as_it_streams(followed) -> None:
    """State first, then what changes; the running attempt's text comes as it grows and starts anew with the next."""
    slow = [part for event in answer("Hello there", thinking="hm")[:-3] for part in (event, pause(1))]
    policy = Policy(timeouts=streamguard.Timeouts(progress=5), retry=Retry(attempts=2, rules=[Rule(when=["*"])]))
    lengths: list[int] = []

    def done(reader: Reader) -> bool:
        lengths.append(len(reader.texts.get(1, "")))
        return "2" in reader.state.get("detail", {}).get("attempts", {})

    reader = followed(script([*slow, stall()]), policy, done)
    assert reader.frames[0] == "state"
    assert set(reader.frames[1:]) == {"patch"}
    assert reader.texts == {0: "hm", 1: "Hello there"}
    assert len(set(lengths)) > 3
    attempts = reader.state["detail"]["attempts"]
    assert [attempts[key]["ended"]["reason"] for key in ("1", "2")] == ["timeout.progress"] * 2
    assert [block["text"] for block in attempts["1"]["blocks"]] == ["hm", "Hello there"]
    assert "now" not in reader.state["detail"]
    assert reader.state["running"] == {}


def test_an_overview_has_no_texts(followed) -> None:
    """Without a chosen call no texts are told but the ends of them."""
    reader = followed(script([*answer("x" * 1000)[:-3], stall()]), Policy(), lambda r: len(r.frames) > 2, detail=False)
    assert reader.texts == {}
    assert "detail" not in reader.state
    assert len(json.dumps(reader.state)) < 2000


def test_silence(followed) -> None:
    """While nothing changes nothing goes out, but a comment now and then."""
    reader = followed(
        script([stall()]),
        Policy(timeouts=streamguard.Timeouts(first_token=None, connect=None, total=99)),
        lambda r: len(r.frames) > 3,
    )
    assert reader.frames == ["state", "comment", "comment", "comment"]
    assert SILENCE >= 10 * EVERY


def test_half_a_pair_and_markup(followed) -> None:
    """Whatever a model says is one line of JSON."""
    reader = followed(
        script([*answer("\ud83d</script>\n\nevent: x\u2028", chunk=99)[:-3], stall()]), Policy(), lambda r: r.texts
    )
    assert reader.texts == {0: "\ud83d</script>\n\nevent: x\u2028"}


def test_closing(run_virtual) -> None:
    """When the view goes, what browsers have open ends at once."""

    async def main() -> None:
        closing = anyio.Event()
        frames = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async with Feed(Board(Runtime()), None, closing) as feed:
                    async for frame in feed:
                        frames.append(frame)

            tasks.start_soon(read)
            await anyio.sleep(3)
            closing.set()
        assert anyio.current_time() == pytest.approx(3, abs=0.01)
        assert len(frames) == 1

    run_virtual(main)


def test_a_dead_byte(followed) -> None:
    """The page gets the mark with the attempt's text."""
    reader = followed(
        script([pause(1), status(200), *answer('{"a" 1}')]),
        Policy(json=JsonDocument()),
        lambda r: r.state.get("finished"),
    )
    [row] = reader.state["finished"].values()
    assert row["reason"] == "json.malformed"
