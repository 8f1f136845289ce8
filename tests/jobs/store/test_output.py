"""The output file: a copy of the journal in whole lines, each id once, torn ends cut, one writer."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat

import pytest

from streamguard.errors import JobError
from streamguard.jobs.store.journal import open_journal
from streamguard.jobs.store.output import OutputError, open_output, writable


def result(custom_id: str, type_: str = "succeeded", **own) -> bytes:
    return (
        json.dumps({"custom_id": custom_id, "result": {"type": type_}, "streamguard": own}, separators=(",", ":"))
        + "\n"
    ).encode()


def strangers(output, journal=None) -> list[str]:
    return [head.custom_id for head, _ in output.strangers(journal)]


def journaled(path, *lines: bytes):
    """A journal of these lines, in their order."""
    journal = open_journal(str(path))
    for line in lines:
        key = json.loads(line)["custom_id"]
        journal.finish(key, line, type="succeeded", reason=None, fingerprint=None)
    return journal


def test_lines_are_there_at_once_and_private(tmp_path) -> None:
    """A line is in the file when `append` returns; the file is its owner's alone."""
    path = tmp_path / "out.jsonl"
    with open_output(str(path)) as output:
        output.append(result("a"))
        assert path.read_bytes() == result("a")
        output.append(result("b", "errored"))
        assert path.read_bytes() == result("a") + result("b", "errored")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


A, B, C = result("a"), result("bé", "errored"), result("c", fingerprint="f")


@pytest.mark.parametrize("wanted", [[A, B, C], [A, B], [A], [], [B, C], [A, C], [C, B, A]])
def test_a_kill_at_any_byte_is_mended(tmp_path, wanted) -> None:
    """Cut anywhere, the file says in the end exactly what it should, and goes on with a line of its own."""
    path, whole = tmp_path / "out.jsonl", A + B + C
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with open_output(str(path)) as output:
            output.mirror(wanted)
            assert path.read_bytes() == b"".join(wanted)
            output.append(result("z"))
        assert path.read_bytes() == b"".join(wanted) + result("z")
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_what_is_right_is_not_written_again(tmp_path, monkeypatch) -> None:
    """A tail that is missing is appended in place; a finished file is not touched."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(A + B[:5])
    before = path.stat().st_ino
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(bytes(data)) or write(fd, data))
    with open_output(str(path)) as output:
        output.mirror([A, B])
        assert written == [B]
        output.mirror([A, B])
    assert (written, path.stat().st_ino) == ([B], before)


def test_a_line_that_goes_leaves_by_a_new_file_under_the_same_lock(tmp_path) -> None:
    """It is put in the old one's place in one step, keeps the mode, and nobody gets the lock in between."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(A + B + C)
    path.chmod(0o644)
    with open_output(str(path)) as output:
        output.mirror([A, C])
        with pytest.raises(JobError, match="another job is writing to this file"):
            open_output(str(path))
        output.append(B)
        assert path.read_bytes() == A + C + B
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    open_output(str(path)).close()


def test_a_failed_rewrite_leaves_the_file_alone(tmp_path, monkeypatch) -> None:
    """If the new file cannot be put in place the old one stands, and no temporary file stays."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(A + B + C)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_output(str(path)) as output:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            output.mirror([B, C])
    assert path.read_bytes() == A + B + C
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_lines_that_the_journal_lacks_are_found(tmp_path) -> None:
    """A power cut can take the journal's last moments: what only the output has is given back, whole lines only."""
    path = tmp_path / "out.jsonl"
    with journaled(path, A, B) as journal:
        for content, missing, torn in [
            (A + B, [], 0),
            (B + A, [], 0),
            (A + C + B, ["c"], 0),
            (A + B + C, ["c"], 0),
            (A + B + C[:-1], ["c"], 0),
            (A + B + C[:-2], [], len(C) - 2),
            (A + b"\n" + B + b"\0" * 512, [], 512),
            (result("a", other=1) + B, [], 0),
        ]:
            path.write_bytes(content)
            with open_output(str(path)) as output:
                assert (strangers(output, journal), output.torn) == (missing, torn), content
            assert path.read_bytes() == content


@pytest.mark.parametrize(
    "foreign",
    [
        b"my notes\n",
        b"my notes",
        b'{"custom_id": "a", "params": {}}\n',
        b'{"id": 1, "text": "a row of data without an end',
        b"[1]\n",
        result("a")[:-2] + b"\n" + result("b"),
    ],
)
def test_other_peoples_files_are_not_touched(tmp_path, foreign: bytes) -> None:
    """A file that is not a job's output is refused, and stays as it is to the byte."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(foreign)
    with open_output(str(path)) as output, pytest.raises(JobError) as caught:
        strangers(output)
    assert str(caught.value).startswith(
        f"{path}:1: not a result line of a job, so nothing is added to this file; name another --out ("
    )
    assert path.read_bytes() == foreign


def test_one_job_at_a_time_and_which(tmp_path) -> None:
    """A second opening is refused while the first is open; with a journal the refusal names who has it."""
    path = tmp_path / "out.jsonl"
    with open_output(str(path)):
        with pytest.raises(JobError) as caught:
            open_output(str(path))
        assert str(caught.value) == f"{path}: another job is writing to this file"
        with open_journal(str(path), clock=lambda: 1_800_000_000.0) as journal:
            journal.start(10, 5)
            with pytest.raises(JobError) as caught:
                open_output(str(path))
    assert str(caught.value) == (
        f"{path}: another job is writing to this file: process {os.getpid()} on {socket.gethostname()}, "
        "since 2027-01-15 08:00:00 UTC"
    )
    open_output(str(path)).close()


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch) -> None:
    """What was written of a line that did not fit is taken back, so the next one stands alone."""
    path = tmp_path / "out.jsonl"
    with open_output(str(path)) as output:
        output.append(result("a"))
        write, calls = os.write, []

        def full(fd: int, data) -> int:
            calls.append(len(data))
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, bytes(data)[:5])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left"):
            output.append(result("b"))
        monkeypatch.setattr(os, "write", write)
        assert len(calls) == 2
        assert path.read_bytes() == result("a")
        output.append(result("c"))
    assert path.read_bytes() == result("a") + result("c")


def test_short_writes_are_continued(tmp_path, monkeypatch) -> None:
    """The operating system may take a part of a line at a time."""
    path, write = tmp_path / "out.jsonl", os.write
    with open_output(str(path)) as output:
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
        output.append(result("a" * 50))
    assert path.read_bytes() == result("a" * 50)


def test_where_results_cannot_go(tmp_path) -> None:
    """Each is known without touching anything."""
    (tmp_path / "real.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    said = {
        str(tmp_path / "link.jsonl"): "is a symbolic link; name the file itself",
        str(tmp_path / "dangling.jsonl"): "is a symbolic link; name the file itself",
        str(tmp_path / "pipe"): "is no regular file; results are kept in one, to go on from",
        str(tmp_path): "is a folder",
        str(tmp_path / "no" / "out.jsonl"): f"cannot be written: there is no folder {tmp_path / 'no'}",
        "/dev/null": "is no regular file; results are kept in one, to go on from",
        "a\0b": "no file can have such a name",
    }
    found = {name: writable(name) for name in said}
    assert {name: problem and problem.problem for name, problem in found.items()} == said
    assert writable(str(tmp_path / "new.jsonl")) is None
    assert not (tmp_path / "new.jsonl").exists()


def test_a_link_put_there_later_is_not_followed(tmp_path) -> None:
    """Opening does not follow a link either, so nobody can swap one in between check and use."""
    target = tmp_path / "target"
    target.write_text("keep")
    (tmp_path / "out.jsonl").symlink_to(target)
    with pytest.raises(JobError, match="cannot be written"):
        open_output(str(tmp_path / "out.jsonl"))
    assert target.read_text() == "keep"
