"""The output file: whole lines, each id once in the end, torn ends cut, one writer."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from streamguard.errors import JobError
from streamguard.jobs.output import OutputError, open_output, writable


def result(custom_id: str, type_: str = "succeeded", **own) -> bytes:
    return (
        json.dumps({"custom_id": custom_id, "result": {"type": type_}, "streamguard": own}, separators=(",", ":"))
        + "\n"
    ).encode()


def test_lines_are_there_at_once_and_private(tmp_path) -> None:
    """A line is in the file when `append` returns; the file is its owner's alone."""
    path = tmp_path / "out.jsonl"
    with open_output(str(path)) as output:
        output.append(result("a"))
        assert path.read_bytes() == result("a")
        output.append(result("b", "errored"))
        assert {key: (kept.line, kept.type) for key, kept in output.rows.items()} == {
            "a": (1, "succeeded"),
            "b": (2, "errored"),
        }
        output.finish()
    assert path.read_bytes() == result("a") + result("b", "errored")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_finished_file_has_each_id_once(tmp_path) -> None:
    """The last line of an id counts; the others go, in one step, and the file keeps its mode."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(result("a", "errored") + result("b") + result("c", "canceled"))
    path.chmod(0o644)
    with open_output(str(path)) as output:
        output.append(result("c", fingerprint="f"))
        output.append(result("a"))
        assert output.rows["c"].fingerprint == "f"
        output.finish()
    assert path.read_bytes() == result("b") + result("c", fingerprint="f") + result("a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_failed_rewrite_leaves_the_file_alone(tmp_path, monkeypatch) -> None:
    """If the new file cannot be put in place the old one stands, and no temporary file stays."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(result("a", "errored") + result("a"))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_output(str(path)) as output:
        output.sync()
        monkeypatch.setattr(output, "sync", lambda: None)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            output.finish()
    assert path.read_bytes() == result("a", "errored") + result("a")
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_kill_at_any_byte_loses_at_most_the_last_line(tmp_path) -> None:
    """Cut anywhere, the file opens, keeps every whole line, and goes on with a line of its own."""
    whole = result("a") + result("bé", "errored") + result("c", fingerprint="f")
    ends = [0, len(result("a")), len(result("a") + result("bé", "errored")), len(whole)]
    path = tmp_path / "out.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with open_output(str(path)) as output:
            # A line that lacks only its end is complete.
            complete = max(end for end in ends if end <= size + 1)
            assert path.read_bytes() == whole[:complete]
            assert output.torn == max(0, size - complete)
            output.append(result("z"))
        assert path.read_bytes() == whole[:complete] + result("z")


def test_what_a_power_cut_leaves_is_cut(tmp_path) -> None:
    """Some file systems leave zeros where a write had not arrived."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(result("a") + b"\0" * 512)
    with open_output(str(path)) as output:
        assert (list(output.rows), output.torn) == (["a"], 512)
    assert path.read_bytes() == result("a")


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
    with pytest.raises(JobError) as caught:
        open_output(str(path))
    assert str(caught.value).startswith(
        f"{path}:1: not a result line of a job, so nothing is added to this file; name another --out ("
    )
    assert path.read_bytes() == foreign


def test_one_job_at_a_time(tmp_path) -> None:
    """A second opening is refused while the first is open."""
    path = str(tmp_path / "out.jsonl")
    with open_output(path), pytest.raises(JobError, match="another job is writing to this file"):
        open_output(path)
    open_output(path).close()


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
