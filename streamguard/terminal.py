"""What may be shown on a terminal: text of models, files and providers with every control character spelled out.

In charge of two things: nobody else's text brings a layout or colours of its own, and our lines fit a terminal's width
without breaking a word. It knows nothing of what is shown.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
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


NARROWEST = 20
"""Columns that wrapped text gets at least, however narrow a terminal says it is."""


def columns(stream: TextIO) -> int | None:
    """Return how many columns a line on this stream has.

    :returns: what `COLUMNS` says, else the terminal's width; `None` for a file or a pipe, where lines stay whole.
    """
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def fitted(text: str, hang: int, width: int | None) -> str:
    """Break a line between its words. A word that is longer than a line, such as a path or an address, stays whole.

    :param hang: the column at which the lines after the first begin.
    :param width: see `columns`; `None` breaks nothing.
    """
    if width is None or len(text) * 2 <= width:
        return text
    lines = packed(text[hang:].split(" "), max(NARROWEST, width - hang), " ")
    return text[:hang] + ("\n" + " " * hang).join(lines)


def aligned(rows: Iterable[tuple[str, str]], width: int | None = None) -> str:
    """Return names and values as two columns, a row a line or, where a value is longer, an indented block.

    :param width: see `columns`.
    """
    shown = [(name, printable(value)) for name, value in rows]
    names = max(len(name) for name, _ in shown)
    return "\n".join(fitted(f"{name:>{names}}  {value}", names + 2, width) for name, value in shown)


def packed(parts: Sequence[str], width: int, between: str = " · ") -> Iterator[str]:
    """Yield lines of as many parts as fit each, none of them broken."""
    from rich.cells import cell_len

    line = ""
    for part in parts:
        if line and cell_len(line + between + part) > width:
            yield line
            line = part
        else:
            line = line + between + part if line else part
    if line:
        yield line


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


def print_result(text: str) -> None:
    """Write what a command was asked for to standard output. A reader who has left is no failure; a full disk is.

    :raises OSError: it could not be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF):
            raise


def silence(stream: TextIO) -> None:
    """Lead a broken stream nowhere, so that what is still in its buffer breaks nothing when the process ends."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # no file, as under test
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
