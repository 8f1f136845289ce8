"""Recorded streams in files: the bytes of an answer, and what is known about when they came.

In charge of finding recordings in files, folders and zips, and of refusing what is none. It does not know what a stream
says; `replay` does.

A recording is the body of an answer as it came, an SSE file of any name. What else is known stands in a JSON file
beside it (`NAME.json` for `NAME.sse`), every field of which may be left out:

* `chunks`: `[[seconds since the request, bytes], …]`, one pair for each read. With it the clocks can be replayed;
* `headers_s`: seconds since the request at which the response head had come;
* `request`: the body of the request, for policies that look at it (`schema: request`, prefills, `grounded`);
* `source_text`: what grounded values are held against, a text or an object of fields; else it is the request's.
"""

from __future__ import annotations

import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from streamguard.errors import JobError, Problem
from streamguard.terminal import standard_input

MOST_BYTES: Final = 64 * 1024 * 1024
"""The largest recording that is read: over a hundred times the longest answers there are."""

STDIN: Final = "-"


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded stream."""

    file: str
    """Where it is from, for people. Inside a zip: `ZIP/NAME`."""
    data: bytes
    chunks: tuple[tuple[float, int], ...] | None = None
    """Seconds since the request, and bytes, of each read; `None` if not recorded."""
    head: float | None = None
    """Seconds since the request at which the response head had come; `None` if not recorded."""
    request: Mapping[str, Any] | None = None
    """The body of the request; `None` if not recorded."""
    source_text: str | Mapping[str, Any] | None = None
    """What grounded values are held against; `None` if not recorded."""

    def reads(self) -> Iterator[tuple[float, bytes]]:
        """Return the bytes as they were read, with their times; all at second 0 if not recorded."""
        if self.chunks is None:
            yield 0.0, self.data
            return
        start = 0
        for seconds, size in self.chunks:
            yield seconds, self.data[start : start + size]
            start += size


def recordings(paths: Sequence[str | Path]) -> Iterator[Recording]:
    """Return the recordings in files (any name), folders and zips (every `.sse` inside), in the order given; `-` is
    standard input.

    Every one that can be read is given, whatever is wrong with the others.

    :param paths: files of any name, folders, zips; `-` is standard input.
    :returns: the recordings, in the order given.
    :raises JobError: after the last one, with everything that could not be read: a file that is not there or is no
        event stream, a broken zip, a folder or zip without recordings, a JSON file beside a recording that does not fit
        it, or more than 64 MiB.
    """
    problems: list[Problem] = []
    for path in paths:
        for read in _readers(str(path), problems):
            try:
                yield read()
            except JobError as error:
                problems += error.problems
    if problems:
        raise JobError(problems)


_Read = Callable[[], Recording]


def _readers(name: str, problems: list[Problem]) -> Iterator[_Read]:
    """A function for each recording under a name of the command line."""
    path = Path(name)
    try:
        if name == STDIN:
            given = standard_input()
            yield lambda: _recording("stdin", given.read(MOST_BYTES + 1))
        elif path.is_dir():
            inside = sorted(path.rglob("*.sse"))
            if not inside:
                problems.append(Problem(file=name, problem="no .sse file in this folder"))
            yield from (lambda one=one: _file(one) for one in inside)
        elif not path.is_file():
            problems.append(Problem(file=name, problem="not a file" if path.exists() else "no such file"))
        elif path.suffix.lower() == ".zip" or _begins_like_zip(path):
            yield from _zipped(path, problems)
        else:
            yield lambda: _file(path)
    except OSError as error:
        problems.append(Problem(file=name, problem=f"cannot be read: {error.strerror or error}"))


def _begins_like_zip(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def _file(path: Path) -> Recording:
    file = str(path)
    if not path.is_file():
        # A pipe in a folder would be waited for.
        raise _wrong(file, "not a file")
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        beside = path.with_suffix(".json")
        about = beside.read_bytes() if path.suffix == ".sse" and beside.is_file() else None
    except OSError as error:
        raise _wrong(file, f"cannot be read: {error.strerror or error}") from error
    return _recording(file, data, str(beside), about)


_ZIP_BREAKS: Final = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)
"""What reading a zip raises. An unknown compression is a NotImplementedError there."""


def _zipped(path: Path, problems: list[Problem]) -> Iterator[_Read]:
    file = str(path)
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_BREAKS as error:
        problems.append(Problem(file=file, problem=f"no zip that can be read: {error}"))
        return
    with archive:
        inside = {info.filename: info for info in archive.infolist()}
        names = [name for name in inside if PurePosixPath(name).suffix == ".sse"]
        if not names:
            problems.append(Problem(file=file, problem="no .sse file in this zip"))

        def member(name: str) -> bytes:
            if inside[name].flag_bits & 1:
                raise _wrong(f"{file}/{name}", "cannot be read from the zip: it is encrypted")
            try:
                # One byte more than is allowed, whatever size the zip claims: it may hold a thousand times its own.
                with archive.open(inside[name]) as opened:
                    return opened.read(MOST_BYTES + 1)
            except _ZIP_BREAKS as error:
                raise _wrong(f"{file}/{name}", f"cannot be read from the zip: {error}") from error

        for name in names:
            beside = name.removesuffix(".sse") + ".json"
            yield lambda name=name, beside=beside: _recording(  # type: ignore[misc]
                f"{file}/{name}", member(name), f"{file}/{beside}", member(beside) if beside in inside else None
            )


def _recording(file: str, data: bytes, beside: str = "", about: bytes | None = None) -> Recording:
    if len(data) > MOST_BYTES:
        raise _wrong(file, f"larger than {MOST_BYTES // 1024 // 1024} MiB")
    if (problem := _no_stream(data)) is not None:
        raise _wrong(file, problem, line=1)
    if about is None:
        return Recording(file=file, data=data)
    try:
        return _with_times(file, data, json.loads(about))
    except (ValueError, TypeError, RecursionError) as error:
        raise _wrong(beside, f"not what is known of a recording: {error}") from error


def _no_stream(data: bytes) -> str | None:
    """Why these bytes are no event stream; `None` if they may be one, perhaps an empty or a cut one."""
    if not data or any(_is_field(line) for line in data.removeprefix(b"\xef\xbb\xbf").splitlines()):
        return None
    start = data[:400].lstrip()
    looks = next((what for mark, what in _LOOKS if start.startswith(mark)), "no line of it begins with data: or event:")
    return f"not an event stream: {looks}"


_FIELDS: Final = (b"data", b"event")
_LOOKS: Final = (
    (b"HTTP/", "it begins with the response's head; leave that out (curl without -i)"),
    (b"{", "it is JSON, perhaps the answer to a request without stream: true"),
    (b"[", "it is JSON"),
    (b"<", "it is HTML or XML"),
    (b"\x1f\x8b", "it is compressed; gunzip it first"),
    (b"PK", "it is a zip by its first bytes, under another name"),
)
"""First bytes of what is taken for a recording by mistake, and what to say."""


def _is_field(line: bytes) -> bool:
    """Whether a line is one of an event stream: a comment, or a field that matters, perhaps cut."""
    name, colon, _ = line.partition(b":")
    if colon:
        return not name or name in _FIELDS
    return line in _FIELDS


def _with_times(file: str, data: bytes, about: Any) -> Recording:
    """:raises ValueError, TypeError: what stands beside the recording does not fit it."""
    if not isinstance(about, dict):
        raise TypeError("it must be a JSON object")
    chunks = about.get("chunks")
    if chunks is not None:
        if not isinstance(chunks, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in chunks):
            raise ValueError("chunks must be [[seconds, bytes], …]")
        chunks = tuple((_seconds(seconds, "chunks"), _size(size)) for seconds, size in chunks)
        if (sizes := sum(size for _, size in chunks)) != len(data):
            raise ValueError(f"its chunks are {sizes:,} bytes together, and the recording has {len(data):,}")
    head, request = about.get("headers_s"), about.get("request")
    source = about.get("source_text")
    if not isinstance(source, str | dict | None):
        raise TypeError("source_text must be a text, or an object of fields")
    return Recording(
        file=file,
        data=data,
        chunks=chunks,
        head=None if head is None else _seconds(head, "headers_s"),
        request=request if isinstance(request, dict) else None,
        source_text=source,
    )


def _seconds(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{field} must be in seconds from 0, not {value!r}")
    return float(value)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"chunks must be in bytes from 0, not {value!r}")
    return value


def _wrong(file: str, problem: str, line: int | None = None) -> JobError:
    return JobError(Problem(file=file, line=line, problem=problem))
