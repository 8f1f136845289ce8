"""AWS event streams: every split gives the same frames as botocore's decoder, and every flipped bit is noticed."""

from __future__ import annotations

import json
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.adapters.aws import event_stream
from streamguard.adapters.aws.event_stream import BrokenFrame, EventStreamDecoder, MessageEnds
from streamguard.adapters.sse.decoder import DecodingStopped, EventTooLarge, Frame
from streamguard.testing import wire
from tests.adapters.aws.frames import chunk, error, exception, message, of_sse
from tests.data import path

STREAM = of_sse(wire.text_stream("Grüße, and a tool's answer", chunk=5))
TYPED = {":message-type": "event", ":event-type": "chunk"}


def decoded(data: bytes, width: int | None = None, **options: int) -> tuple[list[Frame], str | None]:
    """All frames of a stream, fed in pieces, and how it ended early, if it did."""
    decoder = EventStreamDecoder(**options)
    frames: list[Frame] = []
    for at in range(0, len(data), width or max(1, len(data))):
        try:
            frames += decoder.feed(data[at : at + (width or len(data))])
        except DecodingStopped as stopped:
            return frames + stopped.frames, stopped.failed.reason
    return frames, "pending" if decoder.pending else None


@pytest.mark.parametrize("width", [1, 2, 3, 7, 11, 64, 1000, None])
def test_any_split_gives_the_same_frames(width: int | None) -> None:
    """Byte by byte and all at once."""
    whole = decoded(b"".join(STREAM))
    assert decoded(b"".join(STREAM), width) == whole
    assert (len(whole[0]), whole[1]) == (len(STREAM), None)
    assert json.loads(whole[0][0][1])["type"] == "message_start"


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=4),
            st.binary(max_size=60),
        ),
        max_size=4,
    ),
    st.integers(1, 50),
)
def test_messages_are_read_as_botocore_reads_them(messages: list[tuple[dict[str, str], bytes]], width: int) -> None:
    """Headers and payloads of any kind, in any pieces."""
    oracle = pytest.importorskip(
        "botocore.eventstream", reason="botocore is the oracle; it comes with the extra `bedrock`"
    )
    headers = [{**given, **TYPED} for given, _ in messages]
    data = b"".join(message(given, payload) for given, (_, payload) in zip(headers, messages, strict=True))
    buffer = oracle.EventStreamBuffer()
    theirs = []
    seen: list[tuple[dict[str, str], bytes]] = []

    class Seeing(EventStreamDecoder):
        def _message(self, head: bytes, payload: bytes, frames: list[Frame]) -> None:
            seen.append((event_stream._headers(head, frames), payload))

    decoder = Seeing()
    for at in range(0, len(data), width):
        buffer.add_data(data[at : at + width])
        theirs += [(one.headers, one.payload) for one in buffer]
        decoder.feed(data[at : at + width])
    assert seen == theirs


def test_every_flipped_bit_is_noticed() -> None:
    """The frame with the flipped bit is never handed out; those before it are."""
    first, second = STREAM[:2]
    clean = decoded(first + second)[0]
    for at in range(len(second) * 8):
        broken = bytearray(second)
        broken[at // 8] ^= 1 << at % 8
        frames, ended = decoded(first + bytes(broken) + b"".join(STREAM[2:]))
        assert frames == clean[:1]
        assert ended in ("transport.decode", "transport.event_too_large")


def test_every_cut_leaves_bytes_pending() -> None:
    """A stream that ends inside a message is told apart from one that ends between two."""
    data = b"".join(STREAM[:2])
    for at in range(1, len(data)):
        frames, ended = decoded(data[:at])
        assert (len(frames), ended) == (int(at >= len(STREAM[0])), None if at == len(STREAM[0]) else "pending")


@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        (exception("throttlingException", message="Slow down"), "rate_limit_error", "Slow down (throttlingException)"),
        (exception("modelStreamErrorException", message="x", originalStatusCode=529, originalMessage="busy"), "overloaded_error", "x: busy (modelStreamErrorException)"),
        (exception("modelStreamErrorException", message="x", originalStatusCode=429), "rate_limit_error", "x (modelStreamErrorException)"),
        (exception("modelStreamErrorException", message="x"), "api_error", "x (modelStreamErrorException)"),
        (exception("modelTimeoutException", message="t"), "timeout_error", "t (modelTimeoutException)"),
        (exception("validationException", message="v"), "invalid_request_error", "v (validationException)"),
        (exception("internalServerException", message="i"), "api_error", "i (internalServerException)"),
        (exception("serviceUnavailableException", message="s"), "overloaded_error", "s (serviceUnavailableException)"),
        (exception("somethingNewException"), "api_error", "no message (somethingNewException)"),
        (message({":message-type": "exception", ":exception-type": "e"}, b"plain words"), "api_error", "plain words (e)"),
        (error("InternalError", "it broke"), "api_error", "it broke (InternalError)"),
    ],
)  # fmt: skip
def test_exceptions_become_errors_of_the_provider(frame: bytes, kind: str, words: str) -> None:
    """By their names, or by the status that the model answered with; their words stay."""
    ((name, data),), ended = decoded(frame)
    assert (name, json.loads(data), ended) == (
        b"error",
        {"type": "error", "error": {"type": kind, "message": words}},
        None,
    )


@pytest.mark.parametrize(
    "frame",
    [
        message({":message-type": "event", ":event-type": "later"}, b"?"),
        message({**TYPED}, b'{"p": "abc"}'),
        message({":message-type": "later"}, b""),
        message({}, b""),
    ],
)
def test_what_a_later_version_may_send_is_passed_over(frame: bytes) -> None:
    """Events, messages and chunks of other kinds."""
    assert decoded(frame + STREAM[0]) == decoded(STREAM[0])


@pytest.mark.parametrize("payload", [b"[]", b'{"bytes": "no base64!"}', b'{"bytes": 1}', b"\xff"])
def test_a_chunk_that_is_none_is_broken(payload: bytes) -> None:
    """Its checksums are right, and there is no event in it."""
    with pytest.raises(BrokenFrame, match="no JSON with base64"):
        EventStreamDecoder().feed(message(TYPED, payload))


def test_events_are_bounded() -> None:
    """Before their bytes have come where the length says so, and by their own size."""
    with pytest.raises(EventTooLarge, match="max_event_bytes"):
        EventStreamDecoder(1024).feed(chunk(b"x" * 200_000)[:20])
    with pytest.raises(EventTooLarge, match="at most 1024"):
        EventStreamDecoder(1024).feed(chunk(b"x" * 1100))


@pytest.mark.parametrize("width", [1, 5, 1000])
def test_ends_are_found_by_lengths_alone(width: int) -> None:
    """Whatever the pieces, the raw messages can be told apart."""
    ends, data = MessageEnds(), b"".join(STREAM)
    found, rest = [], b""
    for at in range(0, len(data), width):
        piece, last = data[at : at + width], 0
        for end in ends(piece):
            found.append(rest + piece[last:end])
            rest, last = b"", end
        rest += piece[last:]
    assert (found, rest) == (STREAM, b"")


def test_recorded_streams_end_as_they_should() -> None:
    """Streams of all kinds: how each is told."""
    expected = {"bad_crc": "transport.decode", "bad_prelude": "transport.decode", "cut_in_frame": "pending"}
    with ZipFile(path("servers", "bedrock.zip")) as archive:
        found = {name.partition(".")[0]: decoded(archive.read(name), 100)[1] for name in archive.namelist()}
    assert found == {name: expected.get(name) for name in found}
