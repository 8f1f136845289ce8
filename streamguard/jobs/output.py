"""The output file of a job: one line per finished row, appended whole, safe against kill -9 and running twice.

In charge of bytes on disk. While a job is unfinished the last line of an id counts; `finish()` leaves each id once. A
torn last line, which is what a kill inside a write leaves, is cut on opening. The file is locked: one job at a time.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from streamguard.errors import JobError, Problem, StreamguardError
from streamguard.jobs.rows import lines

_START = b'{"custom_id":'
"""What every line of ours starts with."""


class OutputError(StreamguardError):
    """The output cannot be written any more. Every line that is in it is whole."""

    def __init__(self, name: str, error: OSError) -> None:
        why = error.strerror or str(error)
        super().__init__(f"{name}: cannot be written: {why}; what is in it is whole, so run again to go on")


class Kept(msgspec.Struct, frozen=True):
    """The last line of an id."""

    line: int
    """1-based."""
    offset: int
    length: int
    type: str
    """Of the result: `succeeded`, `errored` or `canceled`."""
    fingerprint: str | None


class _Head(msgspec.Struct):
    class Result(msgspec.Struct):
        type: str

    class Own(msgspec.Struct):
        fingerprint: str | None = None

    custom_id: str
    result: Result
    streamguard: Own = msgspec.field(default_factory=Own)


_decode = msgspec.json.Decoder(_Head).decode
"""Reads what is needed of a line and skips the rest, unparsed."""


class Output:
    """An open output file. Made by `open_output`; close it, or use it as a context manager."""

    def __init__(self, path: Path, name: str, fd: int) -> None:
        self.name = name
        """As the user wrote it."""
        self.rows: dict[str, Kept] = {}
        """The last line of each id, in the file's order."""
        self.replaced = 0
        """Lines that stand in the file and do not count."""
        self.torn = 0
        """Bytes of a torn last line that were cut."""
        self._path = path
        self._fd = fd
        self._size = 0
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def append(self, line: bytes) -> None:
        """Write one line, whole or not at all, and hand it to the operating system.

        :raises OutputError: the disk is full, or the like; what was written of the line is taken back.
        """
        head = _decode(line)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with suppress(OSError):  # the next opening cuts it
                os.ftruncate(self._fd, self._size)
            raise OutputError(self.name, error) from error
        self._note(head, len(line))

    def sync(self) -> None:
        """Wait until what was written is on the disk. May take a while.

        :raises OutputError: it did not get there.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise OutputError(self.name, error) from error

    def finish(self) -> None:
        """Leave each id once, its last line, in order, and close. Atomic, by a new file in the old one's place.

        :raises OutputError: the new file could not be written; the old one is as it was.
        """
        self.sync()
        if not self.replaced:
            self.close()
            return
        try:
            self._replace()
        except OSError as error:
            raise OutputError(self.name, error) from error
        _sync_folder(self._path.parent)
        self.replaced = 0
        self.close()

    def _replace(self) -> None:
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        fd, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".tmp", dir=self._path.parent)
        try:
            with os.fdopen(fd, "wb") as new, self._path.open("rb") as old:
                for kept in sorted(self.rows.values(), key=lambda kept: kept.offset):
                    old.seek(kept.offset)
                    new.write(old.read(kept.length))
                new.flush()
                os.fchmod(new.fileno(), mode)
                os.fsync(new.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the file, and with it the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # Opening

    def read(self) -> Iterator[Problem]:
        """Take in what stands there, and cut a torn last line; what is wrong if it is not ours."""
        with self._path.open("rb") as file:
            for line in lines(file):
                problem = self._take(line.raw, line.number, too_long=line.too_long)
                if problem is not None:
                    yield problem
                    return

    def _take(self, raw: bytes, number: int, *, too_long: bool) -> Problem | None:
        whole = raw.endswith(b"\n") and not too_long
        if whole and not raw.strip():
            self._lines, self._size = self._lines + 1, self._size + len(raw)
            return None
        try:
            head = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as mistake:
            torn = not whole and (raw.startswith(_START[: len(raw)]) or not raw.strip(b"\0"))
            if torn and not too_long:
                self.torn = len(raw)
                os.ftruncate(self._fd, self._size)
                return None
            return Problem(
                file=self.name,
                line=number,
                problem=f"not a result line of a job, so nothing is added to this file; name another --out ({mistake})",
            )
        if not whole:  # complete, but for its line end
            os.write(self._fd, b"\n")
            raw += b"\n"
        self._note(head, len(raw))
        return None

    def _note(self, head: _Head, length: int) -> None:
        self._lines += 1
        self.replaced += head.custom_id in self.rows
        # Out and in again, so that the order is the file's.
        self.rows.pop(head.custom_id, None)
        self.rows[head.custom_id] = Kept(
            self._lines, self._size, length, head.result.type, head.streamguard.fingerprint
        )
        self._size += length


def writable(name: str) -> Problem | None:
    """Why a file of that name could not be written, as far as can be seen without touching it."""

    def wrong(what: str) -> Problem:
        return Problem(file=name, problem=what)

    path = Path(name)
    if "\0" in name:
        return wrong("no file can have such a name")
    try:
        if path.is_symlink():
            return wrong("is a symbolic link; name the file itself")
        if path.exists() and not path.is_file():
            return wrong(
                "is a folder" if path.is_dir() else "is no regular file; results are kept in one, to go on from"
            )
        if not path.parent.is_dir():
            return wrong(f"cannot be written: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            return wrong("cannot be written: permission denied")
    except OSError as mistake:
        return wrong(f"cannot be written: {mistake.strerror or mistake}")
    return None


def open_output(name: str) -> Output:
    """Open a job's output for appending, or begin it; read by its owner only, since it holds what models said.

    :raises JobError: it cannot be written, holds something else, or another job writes to it.
    """
    path = Path(name)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(path, flags, 0o600)
    except OSError as mistake:
        raise JobError(Problem(file=name, problem=f"cannot be written: {mistake.strerror or mistake}")) from mistake
    output = Output(path, name, fd)
    try:
        if not _lock(fd, path):
            raise JobError(Problem(file=name, problem="another job is writing to this file"))
        problems = list(output.read())
        if problems:
            raise JobError(problems)
    except BaseException:
        output.close()
        raise
    return output


def _lock(fd: int, path: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, which has no such locks
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    # Another job may have put its finished file in this one's place before we had the lock.
    return os.fstat(fd).st_ino == path.stat().st_ino


def _sync_folder(folder: Path) -> None:
    """Make a rename last. Some file systems cannot sync a folder; there it lasts when they say so."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
