"""Recorded answers through every door: the same verdict at each, however the bytes are cut."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import zlib
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard import Policy
from streamguard.testing import wire
from tests import doors, servers
from tests.matrix import recordings, targets

SAMPLE, SEED = 24, 20261201
"""Recordings that go through all doors here; `python -m bench.recorded_doors` takes all of them."""

UNCOUNTED = {"variants/usage_missing", "variants/usage_null_everywhere"}
"""The SDK's accumulator needs counts, so streams of events have zeros where a server gave none."""


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, bytes]]:
    return random.Random(SEED).sample(doors.recorded(), SAMPLE)


@pytest.mark.parametrize("place", range(SAMPLE))
def test_every_door_says_the_same(sample: list[tuple[str, bytes]], place: int) -> None:
    """`run`, `stream`, threads, the middleware on both clients, and the proxy: one reader behind all of them."""
    name, raw = sample[place]
    found = anyio.run(lambda: doors.verdicts(raw, Policy(), seed=place))
    told = {door: verdict._replace(usage=None) if name in UNCOUNTED else verdict for door, verdict in found.items()}
    assert told == dict.fromkeys(doors.DOORS, told["run"]), name


@pytest.mark.skipif(not recordings.streams(), reason="no recordings: set STREAMGUARD_DATA to the shared test data")
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.integers(0, max(0, len(recordings.streams()) - 1)), st.lists(st.integers(0, 6000), max_size=12))
def test_any_split_of_a_recording_reads_alike(place: int, cuts: list[int]) -> None:
    """Events, failure and message do not depend on where a read of the socket ends."""
    body = recordings.streams()[place]
    at = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in itertools.pairwise(at)]
    headers = {"content-type": "text/event-stream"}
    whole, cut = (targets.answered(headers, parts) for parts in ([body], pieces))
    assert targets.untimed(whole) == targets.untimed(cut)


ODD: dict[str, Any] = {
    "text": b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":null}}',
    "text left out": b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}',
}


@pytest.mark.parametrize("name", ODD)
def test_an_empty_piece_breaks_no_door(name: str) -> None:
    """The SDK's accumulator adds a text and `None`: no `TypeError` of its comes out of a guarded stream."""
    body = servers.head(
        b'data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m",'
        b'"content":[],"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
        b"data: " + ODD[name] + b"\n\n"
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n'
        b'data: {"type":"message_stop"}\n\n'
    )
    found = anyio.run(lambda: doors.verdicts(body, Policy()))
    assert set(map(str, found.values())) == {str(doors.Verdict("accepted", [("text", "Hi")], "end_turn", (3, 2)))}


GOOD = b"".join(wire.text_stream("Hi", usage={"input_tokens": 3, "output_tokens": 2}))
WHOLE = json.dumps(wire.assemble(GOOD)).encode()


def raw_deflate(data: bytes) -> bytes:
    """Without zlib's frame, as some servers send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
@pytest.mark.parametrize(
    ("kind", "body"), [("text/plain", GOOD), ("application/json", WHOLE), ("text/event-stream", GOOD)]
)
def test_a_label_and_a_coding_may_both_be_odd(pack: Any, kind: str, body: bytes) -> None:
    """A stream under another label, or a whole message, compressed: the same answer at every door."""
    coding, packed = ("gzip" if pack is gzip.compress else "deflate"), pack(body)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\n"
    raw = head.encode() + b"content-length: %d\r\n\r\n" % len(packed) + packed
    found = anyio.run(lambda: doors.verdicts(raw, Policy(), seed=len(packed)))
    assert found == dict.fromkeys(doors.DOORS, doors.Verdict("accepted", [("text", "Hi")], "end_turn", (3, 2)))


@pytest.mark.parametrize(("status", "ended"), [(201, "accepted"), (302, "provider.unknown"), (418, None)])
def test_a_status_means_the_same_at_every_door(status: int, ended: str | None) -> None:
    """Any of success is one; a redirect that nobody follows is no answer, whatever stands in it."""
    head = b"HTTP/1.1 %d X\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % (status, len(GOOD))
    found = anyio.run(lambda: doors.verdicts(head + GOOD, Policy()))
    assert {verdict.ended for verdict in found.values()} == {ended or "provider.invalid_request"}
