"""The output file of a job: one line per finished row, a copy of the journal, made as rows end.

In charge of bytes on disk and of the lock. Every line but the last is whole at every moment, and no id stands in it
twice. A torn last line, which is what a kill inside a write leaves, is cut on opening, and whatever the journal has and
the file has not is written again. A line that only the file has (a power cut may take the journal's last moments) goes
back into the journal. The file is locked: one job at a time.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from streamguard.errors import JobError, Problem, StreamguardError
from streamguard.jobs.input.rows import lines
from streamguard.jobs.store.journal import Journal, read_journal

_START = b'{"custom_id":'
"""What every line of ours starts with."""


class OutputError(StreamguardError):
    """The output cannot be written any more. What is missing in it is in the journal."""

    def __init__(self, name: str, error: OSError) -> None:
        why = error.strerror or str(error)
        super().__init__(f"{name}: cannot be written: {why}; nothing that was finished is lost, so run again to go on")


class Head(msgspec.Struct):
    """What is read of a line; the rest is skipped, unparsed."""

    class Result(msgspec.Struct):
        """Of a Message Batch's line."""

        type: str
        error: dict[str, Any] | None = None

    class Own(msgspec.Struct):
        """Ours."""

        fingerprint: str | None = None
        batch: str | None = None
        marked: list[dict[str, Any]] = []

    custom_id: str
    result: Result
    streamguard: Own = msgspec.field(default_factory=Own)

    @property
    def reason(self) -> str | None:
        """Why the row failed, if it did, or what its answer is marked with."""
        if self.result.type == "succeeded":
            return next((str(one.get("reason")) for one in self.streamguard.marked), None)
        error = (self.result.error or {}).get("error")
        return str(error.get("type")) if isinstance(error, dict) else None


decode_head = msgspec.json.Decoder(Head).decode


class Output:
    """An open output file. Made by `open_output`; close it, or use it as a context manager."""

    def __init__(self, path: Path, name: str, fd: int, *, created: bool = False) -> None:
        self.name = name
        """As the user wrote it."""
        self.created = created
        """Whether the file was made when it was opened."""
        self.torn = 0
        """Bytes of a torn last line that were cut."""
        self._path = path
        self._fd = fd
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and with it the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """Remove the file that was begun for nothing, while its lock is held."""
        with suppress(OSError):  # a file too many does no harm
            if self._fd >= 0 and os.fstat(self._fd).st_size == 0:
                self._path.unlink()

    def append(self, line: bytes) -> None:
        """Write one line, whole or not at all, and hand it to the operating system.

        :raises OutputError: the disk is full, or the like; what was written of the line is taken back.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with suppress(OSError):  # the next opening cuts it
                os.ftruncate(self._fd, self._size)
            raise OutputError(self.name, error) from error
        self._size += len(line)

    def sync(self) -> None:
        """Wait until what was written is on the disk. May take a while.

        :raises OutputError: it did not get there.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise OutputError(self.name, error) from error

    # Beside the journal

    def strangers(self, journal: Journal | None) -> Iterator[tuple[Head, bytes]]:
        """The whole lines that the journal does not know. A torn last line is cut.

        :raises JobError: something stands there that is no line of ours; the file is as it was.
        """
        if not self._path.exists():
            return
        problem: Problem | None = None
        mirrored = journal.lines() if journal is not None else iter(())
        with self._path.open("rb") as file:
            for line in lines(file):
                # In a file that nobody touched lines come in the journal's order, so this finds each with one step.
                if not line.too_long and any(known == line.raw for _, known in mirrored):
                    self._size = line.offset + len(line.raw)
                    continue
                mirrored = iter(())
                head = self._head(line.raw, whole=line.raw.endswith(b"\n") and not line.too_long)
                if isinstance(head, Problem):
                    problem = msgspec.structs.replace(head, line=line.number)
                    break
                if head is None:
                    continue
                self._size = line.offset + len(line.raw)
                if journal is None or journal.line(head.custom_id) is None:
                    yield head, line.raw if line.raw.endswith(b"\n") else line.raw + b"\n"
        if problem is not None:
            raise JobError(problem)

    def _head(self, raw: bytes, *, whole: bool) -> Head | Problem | None:
        """What a line says; nothing, if it is empty or torn; or why it is not ours."""
        if whole and not raw.strip():
            return None
        try:
            return decode_head(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as mistake:
            if not whole and (raw.startswith(_START[: len(raw)]) or not raw.strip(b"\0")):
                self.torn = len(raw)
                return None
            return Problem(
                file=self.name,
                problem=f"not a result line of a job, so nothing is added to this file; name another --out ({mistake})",
            )

    def mirror(self, wanted: Iterable[bytes]) -> None:
        """Make the file say exactly this, and go on after it.

        What it says already stays as it is; a tail that is missing or torn is written again in place; anything else is
        a new file in the old one's place, in one step.

        :raises OutputError: the disk is full, or the like. The next opening finds out what is missing.
        """
        same = 0
        stream = iter(wanted)
        missing: bytes | None = None
        with self._path.open("rb") as file:
            for line in stream:
                if file.read(len(line)) != line:
                    missing = line
                    break
                same += len(line)
            file.seek(same)
            rest = file.read(1) + file.readline()
        try:
            if missing is None or not rest.endswith(b"\n"):
                os.ftruncate(self._fd, same)
                self._size = same
            else:
                self._replace(same, missing, stream)
                return
        except OSError as error:
            raise OutputError(self.name, error) from error
        if missing is not None:
            self.append(missing)
        for line in stream:
            self.append(line)

    def _replace(self, same: int, missing: bytes, rest: Iterable[bytes]) -> None:
        """A new file: the first bytes of the old one, then these lines. The lock goes over without a gap."""
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        fd, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".tmp", dir=self._path.parent)
        try:
            with os.fdopen(os.dup(fd), "wb") as new, self._path.open("rb") as old:
                while same > 0 and (chunk := old.read(min(same, 1 << 20))):
                    new.write(chunk)
                    same -= len(chunk)
                new.write(missing)
                new.writelines(rest)
                new.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            _lock(fd)
            Path(name).replace(self._path)
        except BaseException:
            os.close(fd)
            Path(name).unlink(missing_ok=True)
            raise
        os.close(self._fd)
        # Appending is a property of the descriptor, and this one was not opened for it.
        _append_mode(fd)
        self._fd = fd
        self._size = os.fstat(fd).st_size
        sync_folder(self._path.parent)


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
        # The journal stands beside it, so the folder has to be writable, too.
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            return wrong("cannot be written: permission denied")
    except OSError as mistake:
        return wrong(f"cannot be written: {mistake.strerror or mistake}")
    return None


def open_output(name: str) -> Output:
    """Open a job's output for appending, or begin it; read by its owner only, since it holds what models said.

    :raises JobError: it cannot be written, or another job writes to it, which is named.
    """
    path = Path(name)
    try:
        fd, created = _opened(path)
    except OSError as mistake:
        raise JobError(Problem(file=name, problem=f"cannot be written: {mistake.strerror or mistake}")) from mistake
    output = Output(path, name, fd, created=created)
    try:
        # Another job may have put its finished file in this one's place before we had the lock.
        if not _lock(fd) or os.fstat(fd).st_ino != path.stat().st_ino:
            raise JobError(Problem(file=name, problem=f"another job is writing to this file{holder(name)}"))
    except BaseException:
        output.close()
        raise
    return output


def _opened(path: Path) -> tuple[int, bool]:
    """Return a descriptor of the file, and whether it was made now."""
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    with suppress(FileExistsError):
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    return os.open(path, flags | os.O_CREAT, 0o600), False


def holder(name: str) -> str:
    """Who writes to an output, as far as its journal says."""
    try:
        journal = read_journal(name)
    except JobError:
        return ""
    if journal is None:
        return ""
    with journal:
        running = [run for run in journal.runs() if run.ended is None]
    if not running:
        return ""
    since = datetime.fromtimestamp(running[-1].began, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f": process {running[-1].pid} on {running[-1].host}, since {since}"


def _lock(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, which has no such locks
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _append_mode(fd: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: there the descriptor stands at the end anyway, and nobody else writes
        os.lseek(fd, 0, os.SEEK_END)
        return
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def sync_folder(folder: Path) -> None:
    """Make a rename last. Some file systems cannot sync a folder; there it lasts when they say so."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
