"""The SSE decoder against an independent parser that is written down step by step after the standard, on random input."""

from __future__ import annotations

import random

import pytest

from streamguard.adapters.sse.decoder import Decoder, EventTooLarge, Frame
from streamguard.testing import wire

INPUTS, BATCHES = 10_000, 10

PIECES = [
    *[b"data", b"event", b"id", b"retry", b"dat", b"Data", b"datas", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"],
    *[b":", b": ", b":  ", b" :", b"::", b" ", b"x", b"{}", b'{"type":"ping"}', b"\x00", b"\xff", b"\xe2\x80\xa8"],
    *[b"\x0b", b"\x0c", b"\x1c", b"\x85", "é".encode(), b"12", b"message_stop"],
]
LINES = [
    *[b"data: a", b"data:a", b"data", b"data:", b"data: ", b"data:  b", b"event: ping", b"event:", b"event", b"id: 7"],
    *[b"retry: 5", b": comment", b":", b"other: x", b"data: \xf0\x9f\x98\x80", b"event: x\x0by", b"data: a:b"],
    *wire.text_delta("ab").split(b"\n")[:2],
    *wire.ping().split(b"\n")[:2],
]
ENDS = [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\n", b"\n\r\n", b"\n\n\n"]


def standard(stream: bytes) -> list[Frame]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, a character and a rule at a time.

    On bytes: decoding UTF-8 is not the decoder's business, and no byte of a longer character is one of those that matter.
    """
    events: list[Frame] = []
    data, kind, line = b"", b"", b""
    if stream.startswith(b"\xef\xbb\xbf"):  # one leading byte order mark, if any
        stream = stream[3:]
    at = 0
    while at < len(stream):
        byte = stream[at : at + 1]
        at += 1
        if byte not in (b"\r", b"\n"):
            line += byte
            continue
        if byte == b"\r" and stream[at : at + 1] == b"\n":  # CR LF is one end of a line
            at += 1
        if line == b"":  # dispatch
            if data != b"":
                events.append((kind, data.removesuffix(b"\n")))
            data, kind = b"", b""
        elif line[:1] != b":":
            field, colon, value = line.partition(b":")
            if colon and value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                kind = value
        line = b""
    return events  # what is pending at the end is discarded


def random_stream(source: random.Random) -> bytes:
    """Lines and bits of lines that look like an event stream, mostly."""
    parts = [b"\xef\xbb\xbf"] if source.random() < 0.1 else []
    for _ in range(source.randrange(1, 25)):
        parts.append(
            source.choice(LINES) if source.random() < 0.7 else b"".join(source.choices(PIECES, k=source.randrange(4)))
        )
        if source.random() < 0.85:
            parts.append(source.choice(ENDS))
    if source.random() < 0.1:
        parts.append(source.randbytes(source.randrange(20)))
    return b"".join(parts)


def random_cuts(source: random.Random, stream: bytes) -> list[bytes]:
    """The stream in random pieces, empty ones among them."""
    if source.random() < 0.2:
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(source.randrange(len(stream) + 1) for _ in range(source.randrange(8)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_decoder_agrees_with_the_standard(batch: int) -> None:
    """Ten thousand random streams, whole and cut anywhere: the same events, names and data."""
    source = random.Random(batch)
    seen = 0
    for _ in range(INPUTS // BATCHES):
        stream = random_stream(source)
        expected = standard(stream)
        seen += len(expected)
        assert Decoder().feed(stream) == expected, stream
        pieces = random_cuts(source, stream)
        decoder = Decoder()
        assert [frame for piece in pieces for frame in decoder.feed(piece)] == expected, pieces
    assert seen > INPUTS // BATCHES  # the streams are not all noise


def largest(stream: bytes) -> int:
    """The longest line, or the longest data of an event if that is longer; unfinished ones included."""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    sizes = [len(line) for line in lines]
    data = -1
    for line in lines:
        if not line:
            data = -1
        elif line.partition(b":")[0] == b"data":
            data += len(line.partition(b":")[2].removeprefix(b" ")) + 1
        sizes.append(data)
    return max(sizes)


@pytest.mark.parametrize("limit", [0, 3, 10, 30])
def test_the_bound_is_kept_exactly(limit: int) -> None:
    """Too large is what is larger, at any cut; what was complete before still counts."""
    source = random.Random(limit)
    refused = 0
    for _ in range(1500):
        stream = random_stream(source)
        decoder = Decoder(limit)
        frames: list[Frame] = []
        try:
            for piece in random_cuts(source, stream):
                frames += decoder.feed(piece)
        except EventTooLarge as error:
            frames += error.frames
            refused += 1
            assert largest(stream) > limit, stream
            assert frames == standard(stream)[: len(frames)], stream
        else:
            assert frames == standard(stream)
            assert all(len(data) <= limit for _, data in frames)
    assert refused > 0
