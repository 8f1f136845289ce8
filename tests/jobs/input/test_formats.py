"""Input files of every kind as JSON Lines, each row on the line where a person sees it."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest

from streamguard.errors import JobError
from streamguard.jobs.input import formats
from streamguard.jobs.input.formats import open_input, same_file


def read(path) -> list[tuple[int, dict]]:
    """The rows with their lines."""
    with open_input(str(path)) as file:
        return [(number, json.loads(line)) for number, line in enumerate(file, 1) if line.strip()]


def refused(path) -> list[str]:
    with pytest.raises(JobError) as caught:
        open_input(str(path))
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


ROWS = b'{"id": 1}\n\n{"id": 2}\n'


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in", "in.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_packed_or_not_by_the_first_bytes(tmp_path, name: str, packed: bool) -> None:
    """Whatever the name says: what begins like gzip is unpacked, what does not is not."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(ROWS) if packed else ROWS)
    assert read(path) == [(1, {"id": 1}), (3, {"id": 2})]


def test_packed_standard_input(monkeypatch) -> None:
    """A pipe may be packed, too; it is copied, for it is read twice."""

    class Stdin:
        buffer = io.BytesIO(gzip.compress(ROWS))

    monkeypatch.setattr("sys.stdin", Stdin())
    with open_input("-") as file:
        assert (file.read(), file.seek(0), file.read()) == (ROWS, 0, ROWS)


@pytest.mark.parametrize("cut", [3, 15, -1, -9])
def test_a_packed_file_that_is_not_whole(tmp_path, cut: int) -> None:
    """Is refused before a single row is asked."""
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(ROWS * 99)[:cut])
    (said,) = refused(path)
    assert said.startswith("in.jsonl.gz: no whole gzip file: ")


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_fills_no_disk(tmp_path, monkeypatch, layers: int) -> None:
    """A packed file comes to so many times its size; what is packed twice is unpacked once."""
    monkeypatch.setattr(formats, "SMALL_FILE", 1_000_000)
    path = tmp_path / "rows.jsonl.gz"
    data = gzip.compress(b" " * 30_000_000)
    path.write_bytes(data if layers == 1 else gzip.compress(data))
    if layers == 2:
        with open_input(str(path)) as file:
            assert file.read() == data
        return
    with pytest.raises(JobError, match="more than 200 times its size"):
        open_input(str(path))


def test_equal_rows_are_no_bomb(tmp_path, monkeypatch) -> None:
    """However often the same row stands in a file."""
    monkeypatch.setattr(formats, "SMALL_FILE", 1_000_000)
    path = tmp_path / "rows.jsonl.gz"
    rows = b"".join(b'{"id": %d, "text": "the same"}\n' % number for number in range(100_000))
    path.write_bytes(gzip.compress(rows))
    with open_input(str(path)) as file:
        assert file.read() == rows


def test_columns_are_the_fields(tmp_path) -> None:
    """Every cell is a text; quoted cells may have commas, quotes and line ends, and lines are counted on."""
    path = tmp_path / "in.csv"
    path.write_bytes('\ufeffid,text\r\na,"x, ""y"""\r\n\r\nb,"two\nlines"\r\nc,ä\r\n'.encode())
    assert read(path) == [
        (2, {"id": "a", "text": 'x, "y"'}),
        (4, {"id": "b", "text": "two\nlines"}),
        (6, {"id": "c", "text": "ä"}),
    ]


def test_tabs_and_packed_tables(tmp_path) -> None:
    """`.tsv` has tabs, and either may be packed."""
    (tmp_path / "in.tsv").write_text("id\ttext\n1\ta, b\n")
    (tmp_path / "in.CSV.gz").write_bytes(gzip.compress(b"id,text\n1,a\n"))
    assert read(tmp_path / "in.tsv") == [(2, {"id": "1", "text": "a, b"})]
    assert read(tmp_path / "in.CSV.gz") == [(2, {"id": "1", "text": "a"})]


def test_a_long_cell(tmp_path) -> None:
    """Documents are longer than the 128 KiB that the csv module takes by default, which stays as it was."""
    before = csv.field_size_limit()
    (tmp_path / "in.csv").write_text(f"id,text\n1,{'x' * 300_000}\n")
    assert len(read(tmp_path / "in.csv")[0][1]["text"]) == 300_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,text\n1\n2,b\n3,c,d\n", ["2: 1 cells, and the first line names 2 columns", "4: 3 cells, and the first line names 2 columns"]),
        (b"id,id\n1,2\n", ['1: two columns are called "id"']),
        (b"id,\n1,2\n", ["1: the first line must name every column"]),
        (b"id;text\n1;2\n", ["1: one column, called \"id;text\": cells are separated by commas here, not by ';'"]),
        (b'id,text\n1,"open\n', ["2: no CSV: unexpected end of data"]),
        (b'id,text\n1,"a"b\n', ["2: no CSV: ',' expected after '\"'"]),
        (b"id,text\n1,a\n2,\xff\n", ["3:3: not UTF-8"]),
    ],
)  # fmt: skip
def test_mistakes_of_a_table_name_their_line(tmp_path, content: bytes, said) -> None:
    """All that can be found, before any row is looked at."""
    (tmp_path / "in.csv").write_bytes(content)
    assert refused(tmp_path / "in.csv") == [f"in.csv:{one}" for one in said]


def test_an_empty_table_has_no_rows(tmp_path) -> None:
    """As an empty file of lines has none."""
    (tmp_path / "in.csv").write_text("")
    assert read(tmp_path / "in.csv") == []
    (tmp_path / "in.csv").write_text("id,text\n")
    assert read(tmp_path / "in.csv") == []


def test_names_of_one_file(tmp_path) -> None:
    """By whatever path; standard input is no file."""
    (tmp_path / "a").write_text("")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert same_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not same_file("-", str(tmp_path / "a"))
    assert not same_file(str(tmp_path / "a"), str(tmp_path / "none"))
