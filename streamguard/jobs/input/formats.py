"""Input files as JSON Lines that can be read twice, whatever they are: plain, gzip, CSV, a pipe, standard input.

In charge of bytes and containers. What it gives is a seekable file of JSON Lines in which every row stands on the line
number that a person sees in the original, so that mistakes name places that exist. It does not know rows or ids.

A CSV file has its column names in the first line; every cell is a text. What cannot be read twice, or is no JSON Lines,
is copied to a temporary file first.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import stat
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from streamguard.errors import JobError, Problem
from streamguard.jobs.input.rows import MAX_LINE_BYTES
from streamguard.jobs.problems import Problems
from streamguard.terminal import standard_input

STDIN = "-"
"""The name of standard input."""

_GZIP = b"\x1f\x8b"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CHUNK = 1024 * 1024
MOST_TIMES = 200
"""The size of an unpacked file in that of the packed one: rows of equal texts come to fifty, zeros to a thousand."""

SMALL_FILE = 256 * 1024 * 1024
"""Bytes that every packed file may come to."""

_FIELD_LIMIT = threading.Lock()
"""The csv module's limit belongs to the whole process, so it is raised by one reader at a time and put back."""


class _TooLargeError(Exception):
    """A packed file that is a bomb."""


def open_input(name: str) -> BinaryIO:
    """A file of JSON Lines to read twice; `-` is standard input.

    :raises JobError: it cannot be read, or is not what its name says.
    """
    if name == STDIN:
        try:
            given = standard_input()
        except OSError as mistake:
            raise JobError(Problem(file="stdin", problem=f"cannot be read: {mistake.strerror}")) from None
        return _rows_of(_copied(given), "stdin")
    try:
        file = Path(name).open("rb")  # noqa: SIM115  the caller's
    except OSError as mistake:
        raise JobError(Problem(file=name, problem=f"cannot be read: {mistake.strerror or mistake}")) from mistake
    except ValueError as mistake:
        raise JobError(Problem(file=name, problem="no file can have such a name")) from mistake
    try:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            # Some of them have no end.
            raise JobError(Problem(file=name, problem="is a device, no file"))
        if not file.seekable() or not Path(name).is_file():
            with file:
                return _rows_of(_copied(file), name)
        return _rows_of(file, name)
    except OSError as mistake:
        file.close()
        raise JobError(Problem(file=name, problem=f"cannot be read: {mistake.strerror or mistake}")) from mistake
    except BaseException:
        file.close()
        raise


def shown_name(name: str) -> str:
    """What mistakes call an input."""
    return "stdin" if name == STDIN else name


def same_file(one: str, other: str) -> bool:
    """Whether two names are of one file that exists."""
    try:
        return one != STDIN and Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def _rows_of(file: BinaryIO, name: str) -> BinaryIO:
    """The file without its containers: unpacked if packed, and JSON Lines if CSV."""
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    if packed:
        with file:
            file = _unpacked(file, name)
    delimiter = _DELIMITERS.get(Path(name.lower().removesuffix(".gz")).suffix)
    if delimiter is None:
        return file
    with file:
        return _json_lines(file, name, delimiter)


def _copied(stream: Any, most: int | None = None) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller's
    try:
        while piece := stream.read(_CHUNK):
            copy.write(piece)
            if most is not None and copy.tell() > most:
                raise _TooLargeError
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
    packed = file.seek(0, os.SEEK_END)
    file.seek(0)
    most = max(MOST_TIMES * packed, SMALL_FILE)
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            return _copied(stream, most)
    except _TooLargeError:
        problem = (
            f"it unpacks to more than {MOST_TIMES} times its size, and to more than {most:,} bytes: no rows do that"
        )
        raise JobError(Problem(file=name, problem=problem)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as mistake:
        why = "it ends too early" if isinstance(mistake, EOFError) else str(mistake)
        raise JobError(Problem(file=name, problem=f"no whole gzip file: {why}")) from mistake


def _json_lines(file: BinaryIO, name: str, delimiter: str) -> BinaryIO:
    """One line of JSON a record, on the line where the record begins; between them empty lines.

    :raises JobError: mistakes of the file as CSV, the first ones of all.
    """
    problems = Problems()
    out = tempfile.TemporaryFile()  # noqa: SIM115  the caller's
    try:
        line = 0
        for number, text in _records(file, name, delimiter, problems):
            out.write(b"\n" * (number - 1 - line) + text + b"\n")
            line = number
        problems.raise_any()
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _records(file: BinaryIO, name: str, delimiter: str, problems: Problems) -> Iterator[tuple[int, bytes]]:
    """Each record's first line and the record as a JSON object."""
    columns: list[str] | None = None
    with _long_fields():
        reader = csv.reader(_decoded(file), delimiter=delimiter, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as mistake:
                problems.add(Problem(file=name, line=number, problem=f"no CSV: {mistake}"))
                return
            except UnicodeDecodeError as mistake:
                before = mistake.object[: mistake.start].decode("utf-8")
                problems.add(Problem(file=name, line=reader.line_num + 1, column=len(before) + 1, problem="not UTF-8"))
                return
            if cells is None:
                return
            if columns is None:
                columns = cells
                if (wrong := _wrong_columns(columns, delimiter)) is not None:
                    problems.add(Problem(file=name, line=number, problem=wrong))
                    return
            elif cells and len(cells) != len(columns):
                what = f"{len(cells)} cells, and the first line names {len(columns)} columns"
                problems.add(Problem(file=name, line=number, problem=what))
            elif cells:
                yield number, json.dumps(dict(zip(columns, cells, strict=True))).encode("ascii")


def _wrong_columns(columns: list[str], delimiter: str) -> str | None:
    if not all(columns):
        return "the first line must name every column" if columns else "empty: the first line names the columns"
    if len(set(columns)) < len(columns):
        twice = next(name for index, name in enumerate(columns) if name in columns[:index])
        return f"two columns are called {json.dumps(twice, ensure_ascii=False)}"
    if len(columns) == 1 and (other := next((sign for sign in ";\t|," if sign in columns[0]), None)) is not None:
        kind = "commas" if delimiter == "," else "tabs"
        return f"one column, called {json.dumps(columns[0])}: cells are separated by {kind} here, not by {other!r}"
    return None


def _decoded(file: Iterable[bytes]) -> Iterator[str]:
    """The lines as text. Line by line, so that a mistake's line is known."""
    for index, raw in enumerate(file):
        text = raw.decode("utf-8")
        yield text.removeprefix("\ufeff") if index == 0 else text


@contextmanager
def _long_fields() -> Iterator[None]:
    with _FIELD_LIMIT:
        before = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)
