"""The event stream decoder: one meaning, whatever the split."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES, Decoder, EventTooLarge, Frame
from tests.data import path

SAMPLES = [
    "dropped_no_message_stop",
    "error_overloaded_midstream",
    "max_tokens_truncated",
    "text_json_answer",
    "thinking_text",
    "tool_use_fine_grained",
]


def reference(stream: bytes) -> list[Frame]:
    """The algorithm of the WHATWG text, word for word and byte by byte, for a whole stream."""
    stream = stream[3:] if stream.startswith(b"\xef\xbb\xbf") else stream
    lines, line, index = [], bytearray(), 0
    while index < len(stream):
        if stream[index] in b"\r\n":
            lines.append(bytes(line))
            line.clear()
            index += 2 if stream[index : index + 2] == b"\r\n" else 1
        else:
            line.append(stream[index])
            index += 1
    frames, event, buffer = [], b"", b""
    for line in lines:  # type: ignore[assignment]
        if not line:
            if buffer:
                frames.append((event, buffer.removesuffix(b"\n")))
            event, buffer = b"", b""
        elif line.startswith(b":"):
            continue
        else:
            field, value = (line[: line.index(b":")], line[line.index(b":") + 1 :]) if b":" in line else (line, b"")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"event":
                event = bytes(value)
            elif field == b"data":
                buffer += value + b"\n"
    return [(bytes(name), bytes(data)) for name, data in frames]


def decoded(stream: bytes, cuts: list[int] | None = None) -> list[Frame]:
    """All frames of a stream fed in pieces that end at `cuts`."""
    decoder = Decoder()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    return [frame for start, end in pairwise(edges) for frame in decoder.feed(stream[start:end])]


LINES = st.sampled_from(
    [
        b"event: ping",
        b"event:x",
        b"event",
        b"data: {}",
        b'data: {"a": 1}',
        b"data:two",
        b"data:  three",
        b"data",
        b"data: ",
        b"data:",
        b": comment",
        b":",
        b"id: 7",
        b"retry: 3000",
        b"nonsense: x",
        b" data: x",
        b"",
        b"",
        b"",
        "data: é\u2028\u0085😀".encode(),
        b"\xef\xbb\xbfdata: x",
        b"data: \x00\x0b\x0c\xff",
    ]
)
STREAMS = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef\xbb\xbf\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])), max_size=14),
    st.sampled_from([b"", b"data: open", b"event: open\ndata: open\n", b"\r"]),
).map(lambda parts: parts[0] + b"".join(line + end for line, end in parts[1]) + parts[2])


@settings(max_examples=300, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 400), max_size=8))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10])
@example(b"data: a\n\n\ndata: b\n\n", [9])
@example(b"data: a\r\r\n\n", [8, 9])
def test_any_split_gives_the_frames_of_the_standard(stream: bytes, cuts: list[int]) -> None:
    """Whole, byte by byte and split anywhere, a stream decodes as the standard's own algorithm says."""
    expected = reference(stream)
    assert decoded(stream) == expected
    assert decoded(stream, list(range(len(stream)))) == expected
    assert decoded(stream, cuts) == expected


PLAIN = b"event: a\ndata: 1\n\n"


@pytest.mark.parametrize(
    "other",
    [
        b"event: b\rdata: 2\r\r",
        b"event: b\r\ndata: 2\r\n\r\n",
        b"event: b\ndata: 2\r\n\n",
        b"event: b\rx\ndata: 2\n\n",
        b"event: b\ndata: \n\n",
        b"event: b\ndata:2\n\n",
        b"event: b\ndata: 2\ndata: 3\n\n",
        b"event: \ndata: 2\n\n",
        b"event: b\n\n",
        b": comment\n\n",
        b"\n",
        b"\r",
        b"event: b\ndata: 2\n",
        b"\xef\xbb\xbf",
    ],
)
@pytest.mark.parametrize("around", [(b"", b""), (PLAIN, b""), (b"", PLAIN), (PLAIN * 2, PLAIN * 2)])
def test_what_is_not_quite_plain_among_plain_events(other: bytes, around: tuple[bytes, bytes]) -> None:
    """Plain events are taken at once, and whatever stands between or around them is still what the standard has it."""
    stream = around[0] + other + around[1]
    assert decoded(stream) == decoded(stream, list(range(len(stream)))) == reference(stream)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_recorded_streams_decode_alike_under_every_line_end(name: str, end: bytes) -> None:
    """The samples give the same frames with LF, CR LF and CR, whole and in every pair of pieces around a line end."""
    plain = path("sse", f"{name}.sse").read_bytes()
    stream = plain.replace(b"\n", end)
    expected = reference(plain)
    assert decoded(stream) == expected
    assert decoded(stream, list(range(len(stream)))) == expected
    for cut in [index for index, byte in enumerate(stream[:2000]) if byte in b"\r\n"]:
        assert decoded(stream, [cut, cut + 1]) == expected


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_lines_that_are_no_fields_are_kept_apart(cut: int) -> None:
    """Some gateways write an error into the middle of a stream as it is; it makes no event, and its words are there."""
    decoder = Decoder()
    stream = b'event: ping\ndata: {}\n\n{"error": "gone"}\n\nid: 3\n\n: comment\n\n'
    frames = [frame for at in range(0, len(stream), cut) for frame in decoder.feed(stream[at : at + cut])]
    assert (frames, decoder.foreign) == ([(b"ping", b"{}")], b'{"error": "gone"}')


def test_an_event_without_its_blank_line_is_no_event() -> None:
    """What is pending at the end of input is counted, and never given out."""
    decoder = Decoder()
    assert decoder.feed(b'event: message_stop\ndata: {"type":"message_stop"}\n') == []
    assert decoder.pending == 50
    assert decoder.feed(b"\n") == [(b"message_stop", b'{"type":"message_stop"}')]
    assert decoder.pending == 0


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("stream", "fits"),
    [
        pytest.param(b"data: " + b"x" * 94 + b"\n\n", True, id="line-of-the-limit"),
        pytest.param(b"data: " + b"x" * 95 + b"\n\n", False, id="line-one-more"),
        pytest.param(b"data: " + b"x" * 500, False, id="endless-line"),
        pytest.param(b": " + b"x" * 500, False, id="endless-comment"),
        pytest.param(b"data: 123456789\n" * 10 + b"data: 1\n\n", False, id="data-in-lines-one-more"),
        pytest.param(b"data: 123456789\n" * 10 + b"data: \n\n", True, id="data-in-lines-of-the-limit"),
        pytest.param(b"data\n" * 500, False, id="endless-empty-data"),
        pytest.param(b": keep-alive\n" * 200 + b"data: x\n\n", True, id="keep-alives-never-add-up"),
        pytest.param(b"event: x\n" * 200 + b"data: x\n\n", True, id="names-never-add-up"),
        pytest.param(b"data: x\n" + b": keep-alive\n" * 200 + b"\n", True, id="data-survives-keep-alives"),
        pytest.param(b"data: x\r\n" + b": keep-alive\r\n" * 200 + b"\r\n", True, id="with-cr-lf"),
    ],
)
def test_what_is_too_large_does_not_depend_on_the_split(stream: bytes, fits: bool, step: int) -> None:
    """An event or a line over the bound raises, with the frames before it; whatever fits does not, for any split."""
    stream = b"data: before\n\n" + stream
    decoder = Decoder(max_event_bytes=100)
    frames: list[Frame] = []
    error = None
    try:
        for start in range(0, len(stream), step):
            frames += decoder.feed(stream[start : start + step])
    except EventTooLarge as raised:
        error = raised
        frames += raised.frames
    if fits:
        assert (error, frames) == (None, reference(stream))
    else:
        assert frames == [(b"", b"before")]
        assert error is not None
        assert (error.limit, error.observed > 100) == (100, True)
        assert error.failed.reason == "transport.event_too_large"


def test_memory_is_bounded_whatever_the_pieces() -> None:
    """Keep-alives without a blank line for ever leave at most twice the bound pending."""
    decoder = Decoder(max_event_bytes=1000)
    for _ in range(5000):
        assert decoder.feed(b": keep-alive\nevent: x\n") == []
        assert decoder.pending <= 2000 + 22


def test_a_giant_event_costs_linear_time() -> None:
    """One event of the whole bound in small pieces costs at most three times as much per byte as a quarter of it."""

    def seconds(size: int) -> float:
        stream = b"event: x\ndata: " + b"x" * size + b"\n\n"
        best = float("inf")
        for _ in range(3):
            decoder = Decoder()
            began = time.process_time()
            frames = [frame for at in range(0, len(stream), 64) for frame in decoder.feed(stream[at : at + 64])]
            best = min(best, time.process_time() - began)
            assert [len(data) for _, data in frames] == [size]
        return best

    quarter, whole = seconds(MAX_EVENT_BYTES // 4), seconds(MAX_EVENT_BYTES - 100)
    assert whole < 3 * 4 * quarter + 0.01


@pytest.mark.parametrize(
    "line", [b"data: x\n", b": x\n", b"data\n", b"event: a\n", b"x: y\n", b"data: " + b"y" * 100 + b"\n"]
)
def test_an_event_that_never_ends_takes_little_memory(line: bytes) -> None:
    """Short lines without a blank one: what no event is made of is dropped, of the rest there is an end."""
    decoder, chunk = Decoder(1_048_576), (line * 20_000)[:16_384]
    tracemalloc.start()
    with contextlib.suppress(EventTooLarge):
        for _ in range(100):
            decoder.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
