"""The name of an event in a raw SSE frame: added where a server left it out.

Clients of the Messages API drop a frame without an `event:` line, though its data says what it is. In charge of that
line only; every other byte of a frame stays.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

BOM: Final = b"\xef\xbb\xbf"
"""A byte order mark, with which a stream may begin."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class _Typed(msgspec.Struct):
    type: str


_decode = msgspec.json.Decoder(_Typed).decode


def named(frame: bytes) -> bytes:
    """Return a frame with its event's name: the `type` of its data, where the frame has none.

    :param frame: one frame as received, up to and with its blank line.
    """
    if frame[:7] == b"event: " and frame[7:8] not in (b"\r", b"\n"):
        return frame
    mark = BOM if frame.startswith(BOM) else b""
    lines = frame.removeprefix(mark).splitlines(keepends=True)
    data, nameless = [], []
    for line in lines:
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        if field == b"event":
            if value.strip():
                return frame
            continue
        nameless.append(line)
        if field == b"data":
            data.append(value.removeprefix(b" "))
    if not data:
        return frame
    try:
        kind = _decode(b"\n".join(data)).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        return frame
    if not _NAME.fullmatch(kind):
        return frame
    return mark + b"event: " + kind.encode("ascii") + b"\n" + b"".join(nameless)
