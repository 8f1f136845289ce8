"""Read an image's width and height from its first bytes: PNG, JPEG, GIF and WebP. Pure.

A library would decode, or open files; a bound needs the one number that every decoder of the format takes for the
picture's size, and `None` where two decoders could differ.
"""

from __future__ import annotations

import struct
from typing import Final

_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers that begin a frame and give its size."""


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels, or `None` if the bytes do not say.

    :param data: the file, or its beginning: 64 KB are enough for nearly all.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
    elif data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return _gif(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    elif data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    else:
        return None
    return (width, height) if width and height else None


def _gif(data: bytes) -> tuple[int, int] | None:
    """The canvas. A frame that is larger is cut to it by some decoders and widens it in others, so none may be."""
    width, height = struct.unpack("<HH", data[6:10])
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    while at < len(data) and data[at] == 0x21:  # extensions
        at += 2
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
    if at + 9 > len(data) or data[at] != 0x2C:
        return None
    left, top, wide, high = struct.unpack("<HHHH", data[at + 1 : at + 9])
    fits = width and height and left + wide <= width and top + high <= height
    return (width, height) if fits else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20:21] == b"\x2f" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (width, height) if width and height else None
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xD8, 0xD9, 0xDA) or length < 2:
            return None
        at += 2 + length
    return None
