"""What may be shown on a terminal: text of models, files and providers with every control character spelled out.

It knows no layout and no colours; it makes sure that nobody else's text can bring its own.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

_UNSHOWABLE = re.compile(
    # Controls (C0, DEL, C1), invisible and direction-changing characters, line separators, lone surrogates.
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: object) -> str:
    """One line of text that moves no cursor, rings no bell and reads in the order in which it stands."""
    return _UNSHOWABLE.sub(_spelled, str(text))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r", 27: "\\e"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def put(stream: TextIO, text: str) -> bool:
    """Write to somebody who may have left; whether it got there."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        return False
    return True


def silence(stream: TextIO) -> None:
    """Lead a broken stream nowhere, so that what is still in its buffer breaks nothing when the process ends."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # no file, as under test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
