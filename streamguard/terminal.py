"""What may be shown on a terminal: text of models, files and providers with every control character spelled out.

It knows no layout and no colours; it makes sure that nobody else's text can bring its own.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from typing import BinaryIO, TextIO

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


PLAIN = str.maketrans({"≈": "~", "≥": ">=", "≤": "<=", "…": "...", "·": "-", "→": "->", "─": "-"})
"""What stands for our own signs where they cannot be shown."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that a stream's encoding does not have; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end].translate(PLAIN)
    return missing.encode("ascii", "backslashreplace").decode("ascii"), error.end


def ready() -> None:
    """Make the process's own streams fit to be written to, whatever they are.

    A descriptor that is closed would be given to the next file that is opened, which a message would then overwrite: it
    is opened on the null device. A character that a stream's encoding does not have is spelled out.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    codecs.register_error("streamguard.plain", _plain)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="streamguard.plain")


def standard_input() -> BinaryIO:
    """Return the process's standard input, in bytes.

    :raises OSError: it was closed when the process began, which is not the same as empty.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer


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
