"""Sizes of images from their first bytes."""

from __future__ import annotations

import struct

import pytest

from streamguard.files.image_size import image_size

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480)
JPEG = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc2\0\x0b\x08" + struct.pack(">HH", 480, 640)
FRAME = b"\x2c" + struct.pack("<HHHH", 0, 0, 640, 480)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + b"\0\0\0" + FRAME
VP8X = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")
VP8 = b"RIFF\0\0\0\0WEBPVP8 " + bytes(7) + b"\x9d\x01\x2a" + struct.pack("<HH", 640, 480)
VP8L = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + (639 | 479 << 14).to_bytes(4, "little")


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, VP8X, VP8, VP8L])
def test_every_format_says_its_size(data: bytes) -> None:
    """The four formats that the API takes."""
    assert image_size(data) == (640, 480)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        PNG[:20],
        PNG[:16] + bytes(8),
        JPEG[:-2],
        b"\xff\xd8\xff\xda\0\x04ab",
        GIF[:13],
        b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0" + FRAME,
        VP8X[:20],
    ],
)
def test_what_does_not_say_is_unknown(data: bytes) -> None:
    """Bytes that are cut, that are no image, and a frame that is larger than its canvas."""
    assert image_size(data) is None
