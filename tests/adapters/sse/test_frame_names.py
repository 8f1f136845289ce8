"""Names of raw frames: added from the data, and nothing else is touched."""

from __future__ import annotations

import pytest

from streamguard.adapters.sse.frame_names import BOM, named

DATA = b'data: {"type": "message_stop"}'


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (DATA + b"\n\n", b"event: message_stop\n" + DATA + b"\n\n"),
        (DATA + b"\r\n\r\n", b"event: message_stop\n" + DATA + b"\r\n\r\n"),
        (BOM + DATA + b"\n\n", BOM + b"event: message_stop\n" + DATA + b"\n\n"),
        (b": hello\n" + DATA + b"\n\n", b"event: message_stop\n: hello\n" + DATA + b"\n\n"),
        (b"event:\n" + DATA + b"\n\n", b"event: message_stop\n" + DATA + b"\n\n"),
        (DATA + b"\nevent: \n\n", b"event: message_stop\n" + DATA + b"\n\n"),
        (b'data: {"type":\ndata: "ping"}\n\n', b'event: ping\ndata: {"type":\ndata: "ping"}\n\n'),
    ],
)
def test_a_nameless_frame_gets_its_type_as_its_name(frame: bytes, found: bytes) -> None:
    """Whatever its line ends, comments and data lines; an empty name is none."""
    assert named(frame) == found


@pytest.mark.parametrize(
    "frame",
    [
        b"event: ping\n" + DATA + b"\n\n",
        b"event:ping\n" + DATA + b"\n\n",
        DATA + b"\nevent: ping\n\n",
        b": comment\n\n",
        b"\n",
        b"data: [DONE]\n\n",
        b'data: {"type": 1}\n\n',
        b'data: {"type": "two\\nlines"}\n\n',
        b"data: \xff\n\n",
        b'data: ["type"]\n\n',
    ],
)
def test_every_other_frame_stays_as_it_is(frame: bytes) -> None:
    """A name that is there, data that is no object of ours, and types that are no plain word."""
    assert named(frame) == frame
