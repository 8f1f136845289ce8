"""What bodies take of memory: counted before they are parsed, and held to what there is for all."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.http.limits import Limits
from streamguard.http.refusals import Refused
from streamguard.proxy.body import asked, measure
from streamguard.proxy.config import Client
from streamguard.proxy.memory import COPIES, MAX_DEPTH, SLICE, VALUE_BYTES, Memory, Pace, counted
from streamguard.testing import stall, wire
from tests.proxy.running import KEY, REQUEST, Running, until, with_proxy


def values_of(value: Any) -> int:
    """Values and names of a parsed text."""
    if isinstance(value, dict):
        return 1 + sum(1 + values_of(item) for item in value.values())
    return 1 + sum(values_of(item) for item in value) if isinstance(value, list) else 1


texts = st.text(st.sampled_from('[]{},:"\\ aé'), max_size=8)
json_values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


@given(value=json_values, indent=st.sampled_from([None, 1]), ascii_=st.booleans())
def test_no_text_has_more_values_than_were_counted(value: Any, indent: int | None, ascii_: bool) -> None:
    """An upper bound, and no more than the values and the empty containers of the text."""
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()
    count = counted(raw, 10_000)
    assert values_of(value) <= count <= 2 * values_of(value)


@given(raw=st.binary(max_size=60) | st.text('[]{},:"\\', max_size=60).map(str.encode))
def test_what_is_no_json_is_counted_too(raw: bytes) -> None:
    """Whatever the bytes: a number, and an end."""
    assert counted(raw, 1000) >= 1


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1.5,", b'"ab",', b'{"a":1},', b"[[]],", b"1,", b'"\\"",', b"\n,"])
def test_many_values_are_refused_before_they_are_parsed(filler: bytes) -> None:
    """Whatever they are; in the memory of the text alone."""
    raw = b'{"model":"m","messages":[' + filler * (3_000_000 // len(filler)) + b"1]}"
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        counted(raw, 250_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.name == "too_many_values"
    assert peak < 100_000


@pytest.mark.parametrize("text", [b"a", b"\\n", b'\\"', b"\\\\", b"[],{}:", "é".encode(), b"\\u00e9"])
def test_a_long_text_is_one_value(text: bytes) -> None:
    """Commas and brackets of somebody's prose count for nothing, however the slices fall."""
    for size in (SLICE - 1, SLICE, SLICE + 1, 3 * SLICE):
        raw = b'{"a":"' + text * (size // len(text)) + b'"}'
        assert counted(raw, 5) == 3


@pytest.mark.parametrize("brackets", [b"[", b'{"a":', b'[{"a":'])
def test_depth_has_a_limit(brackets: bytes) -> None:
    """Deep values are refused, many beside each other are not."""
    with pytest.raises(Refused, match="nested deeper") as caught:
        counted(brackets * (MAX_DEPTH + 1), 10_000)
    assert caught.value.name == "bad_json"
    assert counted(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 1000) > MAX_DEPTH
    assert counted(b"[[],[],[]," * 50 + b"1" + b"]" * 50, 1000) > 200


def test_clients_share_what_there_is() -> None:
    """One takes three quarters at the most; what a request took comes back when it ends."""
    memory = Memory(800, shared=True)
    with memory.hold("ada") as first:
        first.body(600 // COPIES)
        with memory.hold("ada") as second, pytest.raises(Refused) as caught:
            second.body(1)
        assert caught.value.name == "no_memory"
        with memory.hold("bob") as third:
            third.body(160 // COPIES)
            with pytest.raises(Refused):
                third.values(160 // COPIES, 100 // VALUE_BYTES + 1)
        first.body(30 // COPIES)
        assert memory.held == 30
    assert memory.held == 0


def test_alone_a_client_takes_all() -> None:
    """Where there is one, nothing is kept for others."""
    with Memory(900, shared=False).hold("local") as hold:
        hold.body(900 // COPIES)


class NoHold:
    """Room for everything."""

    def values(self, size: int, values: int) -> None:
        self.said = (size, values)


def test_a_large_body_takes_no_more_than_four_times_its_bytes() -> None:
    """Counted, parsed and measured: the text, its characters, its values."""

    async def main() -> int:
        text = json.dumps(REQUEST | {"messages": [{"role": "user", "content": "x, y: [z] \\ " * 400_000}]})
        raw = text.encode()
        del text
        tracemalloc.start()
        await measure(await asked(raw, Limits(), NoHold()))  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak // (len(raw) // 100)

    assert anyio.run(main) + 100 <= 400


TOKEN = {"ada": "ada-token-0123456789", "bob": "bob-token-0123456789"}
TWO = {
    "key": KEY,
    "tokens": TOKEN,
    "clients": [Client(name=name, token_env=f"STREAMGUARD_{name.upper()}") for name in TOKEN],
}


async def post(running: Running, client: str, content: bytes, **headers: str) -> Any:
    url = f"{running.url}/v1/messages"
    common = {"x-api-key": TOKEN[client], "content-type": "application/json"}
    return await running.http.post(url, content=content, headers=common | headers)


@pytest.mark.parametrize("filler", [b"[],", b"{},", b'"\xc4\x80b",', b"1.5,"])
def test_a_small_body_of_many_values_holds_nobody_up(filler: bytes) -> None:
    """Thirty megabytes in thirty kilobytes: refused by name, in a thread, while others are answered."""
    body = b'{"model":"m","max_tokens":5,"messages":[' + filler * ((20 << 20) // len(filler)) + b"1]}"
    small = gzip.compress(body, 9)

    async def test(running: Running) -> None:
        answer = await post(running, "ada", small, **{"content-encoding": "gzip"})
        assert (answer.status_code, answer.headers["x-streamguard-refused"]) == (400, "too_many_values")
        assert running.upstream.exchanges == []
        assert running.proxy._memory.held == 0

    with_proxy([wire.text_stream("fine")], test, **TWO)


def test_one_client_does_not_use_up_what_is_there_for_all() -> None:
    """Bodies and requests: the one that takes too much is told to come back, the other is served."""

    async def test(running: Running) -> None:
        large = json.dumps(REQUEST | {"stream": True, "system": "x" * 500_000}).encode()
        plain = json.dumps(REQUEST | {"stream": True}).encode()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(post, running, "ada", large)
            await until(lambda: len(running.upstream.exchanges) == 2)
            answer = await post(running, "ada", large)
            assert (answer.status_code, answer.headers["x-streamguard-refused"]) == (503, "no_memory")
            assert (answer.headers["retry-after"], "x-should-retry" in answer.headers) == ("1", False)
            tasks.start_soon(post, running, "ada", plain)
            await until(lambda: len(running.upstream.exchanges) == 3)
            answer = await post(running, "ada", plain)
            assert (answer.status_code, answer.headers["x-streamguard-refused"]) == (429, "too_many_requests")
            tasks.start_soon(post, running, "bob", plain)
            await until(lambda: len(running.upstream.exchanges) == 4)
            tasks.cancel_scope.cancel()
        await until(lambda: running.proxy._memory.held == 0)
        assert not +running.proxy._under_way

    silent = [wire.message_start(), wire.block_start(), stall()]
    limits = Limits(memory_bytes=3_300_000, requests_per_client=3)
    with_proxy([silent], test, limits=limits, **TWO)


def test_counting_leaves_others_their_turn() -> None:
    """No step of it holds the interpreter: another thread counts on beside it."""
    raw = b'{"a":"' + b'\\"' * 8_000_000 + b'"}'
    turns, over = 0, threading.Event()

    def other() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=other)
    thread.start()
    assert counted(raw, 100) == 3
    over.set()
    thread.join()
    assert turns > 10


def test_requests_beyond_a_clients_pace_wait_for_their_turn() -> None:
    """A second's worth at once, then evenly; what was not used is kept for a second."""
    pace = Pace(10)
    assert [round(pace.wait(100.0), 3) for _ in range(13)] == [0.0] * 10 + [0.1, 0.2, 0.3]
    assert [round(pace.wait(100.3), 3) for _ in range(2)] == [0.1, 0.2]
    assert [round(pace.wait(500.0), 3) for _ in range(11)] == [0.0] * 10 + [0.1]


def test_a_client_that_asks_without_end_is_paced_and_the_other_is_not() -> None:
    """The one waits, the other is answered at once."""

    async def test(running: Running) -> None:
        plain = json.dumps(REQUEST | {"stream": True}).encode()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(post, running, "ada", plain)
        assert 0.3 < anyio.current_time() - began < 5
        began = anyio.current_time()
        assert (await post(running, "bob", plain)).status_code == 200
        assert anyio.current_time() - began < 0.3

    with_proxy([wire.text_stream("fine")], test, limits=Limits(requests_per_second=3), **TWO)
