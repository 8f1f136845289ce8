"""Recordings: found in files, folders and zips, with what is known of them; and what is none is refused with its place."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from streamguard.errors import JobError
from streamguard.replay import recording as module
from streamguard.replay.recording import Recording, recordings
from streamguard.testing import wire

DATA = b"".join(wire.text_stream('{"a": 1}', 4))
ABOUT = {"chunks": [[0.5, 100], [1.25, len(DATA) - 100]], "headers_s": 0.25, "request": {"model": "m"}, "other": 1}


def read_all(*names: str | Path) -> tuple[list[Recording], list[str]]:
    """The recordings, and every mistake as it is said."""
    found: list[Recording] = []
    try:
        for one in recordings(names):
            found.append(one)
    except JobError as error:
        return found, str(error).splitlines()
    return found, []


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return path


def test_a_file_of_any_name(tmp_path, monkeypatch) -> None:
    """A file is a recording whatever it is called; one called `.sse` may have its times beside it."""
    monkeypatch.chdir(tmp_path)
    Path("answer.txt").write_bytes(DATA)
    Path("timed.sse").write_bytes(DATA)
    Path("timed.json").write_text(json.dumps(ABOUT))
    found, said = read_all("answer.txt", "timed.sse")
    assert said == []
    assert found == [
        Recording(file="answer.txt", data=DATA),
        Recording(
            file="timed.sse", data=DATA, chunks=((0.5, 100), (1.25, len(DATA) - 100)), head=0.25, request={"model": "m"}
        ),
    ]
    assert list(found[0].reads()) == [(0.0, DATA)]
    assert list(found[1].reads()) == [(0.5, DATA[:100]), (1.25, DATA[100:])]


def test_folders_and_zips(tmp_path, monkeypatch) -> None:
    """Every `.sse` inside, and nothing else; a zip may have any name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/b.sse", "in/deep/a.sse", "in/notes.txt"):
        (tmp_path / name).write_bytes(DATA)
    zipped(tmp_path / "many.bin", a_sse=DATA, deep__b_sse=DATA, deep__b_json=json.dumps(ABOUT).encode(), c_txt=b"")
    found, said = read_all("in", "many.bin")
    assert said == []
    assert [one.file for one in found] == ["in/b.sse", "in/deep/a.sse", "many.bin/a.sse", "many.bin/deep/b.sse"]
    assert [one.head for one in found] == [None, None, None, 0.25]


def test_standard_input(monkeypatch) -> None:
    """`-` is one recording."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DATA)))
    assert read_all("-") == ([Recording(file="stdin", data=DATA)], [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf" + DATA,
        b": only a comment\n\n",
        b"data",
        b"event: message_start\ndata: {",
        DATA.replace(b"\n", b"\r\n"),
        b"id: 7\nretry: 5\n\n" + DATA,
    ],
)
def test_what_may_be_a_stream_is_taken(tmp_path, data) -> None:
    """Empty, cut, in any spelling: an answer that is not whole is the replay's business."""
    (tmp_path / "a").write_bytes(data)
    assert [one.data for one in read_all(tmp_path / "a")[0]] == [data]


NO_STREAM = [
    pytest.param(
        b'{"id": "msg_1", "data": 1}',
        "not an event stream: it is JSON, perhaps the answer to a request without stream: true",
        id="json",
    ),
    pytest.param(b"[1]", "not an event stream: it is JSON", id="json array"),
    pytest.param(
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "not an event stream: it begins with the response's head; leave that out (curl without -i)",
        id="head",
    ),
    pytest.param(b"<html>\n", "not an event stream: it is HTML or XML", id="html"),
    pytest.param(gzip.compress(DATA), "not an event stream: it is compressed; gunzip it first", id="gzip"),
    pytest.param(
        b"\x89PNG\r\n\x1a\n", "not an event stream: no line of it begins with data: or event:", id="something else"
    ),
]


@pytest.mark.parametrize(("data", "problem"), NO_STREAM)
def test_what_is_no_stream_is_refused(tmp_path, monkeypatch, data, problem) -> None:
    """With the file, and what it looks like; also inside of a zip."""
    monkeypatch.chdir(tmp_path)
    Path("a.sse").write_bytes(data)
    assert read_all("a.sse") == ([], [f"a.sse:1: {problem}"])
    zipped(tmp_path / "a.zip", a_sse=data)
    assert read_all("a.zip") == ([], [f"a.zip/a.sse:1: {problem}"])


CHUNKS = "not what is known of a recording: chunks must be"
BAD_ABOUT = [
    ("{", "not what is known of a recording: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("[]", "not what is known of a recording: it must be a JSON object"),
    ('{"chunks": 3}', f"{CHUNKS} [[seconds, bytes], …]"),
    ('{"chunks": [[1, 2, 3]]}', f"{CHUNKS} [[seconds, bytes], …]"),
    ('{"chunks": [[-1, 2]]}', "not what is known of a recording: chunks must be in seconds from 0, not -1"),
    ('{"chunks": [[NaN, 2]]}', "not what is known of a recording: chunks must be in seconds from 0, not nan"),
    ('{"chunks": [["1", 2]]}', "not what is known of a recording: chunks must be in seconds from 0, not '1'"),
    ('{"chunks": [[1, 2.5]]}', "not what is known of a recording: chunks must be in bytes from 0, not 2.5"),
    ('{"headers_s": true}', "not what is known of a recording: headers_s must be in seconds from 0, not True"),
    (
        '{"chunks": [[1, 7]]}',
        f"not what is known of a recording: its chunks are 7 bytes together, and the recording has {len(DATA):,}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("about", "problem"), BAD_ABOUT)
def test_what_stands_beside_must_fit(tmp_path, monkeypatch, about, problem) -> None:
    """Times that do not belong to the recording are a mistake of their file, and not left out without a word."""
    monkeypatch.chdir(tmp_path)
    Path("a.sse").write_bytes(DATA)
    Path("a.json").write_text(about)
    assert read_all("a.sse") == ([], [f"a.json: {problem}"])


def test_every_mistake_is_told_and_the_rest_is_read(tmp_path, monkeypatch) -> None:
    """Missing files, empty folders and zips, broken zips: all are named, and none keeps the others from being read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Path("good.sse").write_bytes(DATA)
    zipped(tmp_path / "none.zip", a_txt=b"")
    Path("text.zip").write_bytes(b"no zip")
    whole = zipped(tmp_path / "torn.zip", a_sse=DATA).read_bytes()
    Path("torn.zip").write_bytes(whole[: len(whole) // 2])
    found, said = read_all("missing.sse", "empty", "none.zip", "text.zip", "torn.zip", "bad\0name", "good.sse")
    assert [one.file for one in found] == ["good.sse"]
    assert said == [
        "missing.sse: no such file",
        "empty: no .sse file in this folder",
        "none.zip: no .sse file in this zip",
        "text.zip: no zip that can be read: File is not a zip file",
        "torn.zip: no zip that can be read: File is not a zip file",
        "bad\0name: no such file",
    ]


def test_a_broken_member_of_a_zip(tmp_path, monkeypatch) -> None:
    """A member whose bytes do not match its checksum, or that is encrypted, is named; the others are read."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("z.zip", "w") as archive:
        for name in ("bad.sse", "secret.sse", "good.sse"):
            archive.writestr(name, DATA)
    raw = bytearray(Path("z.zip").read_bytes())
    raw[raw.index(DATA)] ^= 1
    # The flag of encryption stands in the local header and in the central directory.
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[_second(raw, sign) + at] |= 1
    Path("z.zip").write_bytes(raw)
    found, said = read_all("z.zip")
    assert [one.file for one in found] == ["z.zip/good.sse"]
    assert said == [
        "z.zip/bad.sse: cannot be read from the zip: Bad CRC-32 for file 'bad.sse'",
        "z.zip/secret.sse: cannot be read from the zip: it is encrypted",
    ]


def _second(raw: bytearray, sign: bytes) -> int:
    return raw.index(sign, raw.index(sign) + 1)


def test_too_large(tmp_path, monkeypatch) -> None:
    """More than the most bytes are not read: neither from a file nor from a zip that hides a thousand times its size."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "MOST_BYTES", 2 * 1024 * 1024)
    large = DATA + b":" + b" " * (2 * 1024 * 1024)
    Path("a.sse").write_bytes(large)
    assert zipped(tmp_path / "a.zip", a_sse=large).stat().st_size < 10_000
    assert read_all("a.sse", "a.zip") == ([], ["a.sse: larger than 2 MiB", "a.zip/a.sse: larger than 2 MiB"])


def test_a_zip_bomb_does_not_go_off(tmp_path, monkeypatch) -> None:
    """Two hundred megabytes in two hundred kilobytes: named as too large, in the memory that a recording may take."""
    monkeypatch.chdir(tmp_path)
    zipped(tmp_path / "bomb.zip", a_sse=b"data: " + bytes(200_000_000))
    tracemalloc.start()
    found, said = read_all("bomb.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found, len(said)) == ([], 1)
    assert "larger than" in said[0]
    assert peak < 200_000_000


def test_paths_of_a_zip_lead_nowhere(tmp_path, monkeypatch) -> None:
    """Names that climb out of the zip are names: nothing is written, nothing beside the zip is read."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    (tmp_path / "evil.json").write_text(json.dumps({"request": {"model": "beside"}}))
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in ("../evil.sse", "/abs.sse", "C:\\\\x.sse"):
            archive.writestr(name, DATA)
    before = sorted(tmp_path.rglob("*"))
    found, said = read_all("a.zip")
    assert said == []
    assert len(found) == 3
    assert sorted(tmp_path.rglob("*")) == before
