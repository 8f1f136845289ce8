"""`streamguard explain`: what it prints for people and for machines, its exit codes, and what it refuses."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamguard.cli import main

SCHEMA = '{"type": "object", "properties": {"kind": {"enum": ["vulnerability", "unsound"]}, "n": {"maximum": 9}}}'


@pytest.fixture
def sg(tmp_path, monkeypatch, capsys):
    """Runs the command line in a folder with a schema; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    Path("s.json").write_text(SCHEMA)

    def run(*arguments: str, text: bytes | None = None) -> tuple[int, str, str]:
        if text is not None:
            Path("x.json").write_bytes(text)
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
        with pytest.raises(SystemExit) as caught:
            main.main(["explain", *arguments])
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def test_a_dead_text(sg) -> None:
    """The text up to the dead byte with a caret, the pointer, the keyword, and what was expected; exit code 3."""
    assert sg("--schema", "s.json", "x.json", text=b'{"kind": "unsafe", "n": 1}') == (
        3,
        (
            "x.json:1:14: dead at byte 13\n"
            '  1 | {"kind": "unsa\n'
            '    |              ^ enum: "unsa", expected "unsound"\n'
            "  at        /kind\n"
            "  keyword   enum (/properties/kind/enum in the schema)\n"
            '  expected  "unsound"\n'
        ),
        "",
    )


def test_json(sg) -> None:
    """One object, with every place in characters, bytes, line and column."""
    code, out, err = sg("--schema", "s.json", "--json", "-", text='{"é": 0,\n"kind": 1}'.encode())
    assert (code, err) == (3, "")
    assert json.loads(out) == {
        "file": "standard input",
        "status": "dead",
        "char": 17,
        "offset": 18,
        "line": 2,
        "column": 9,
        "pointer": "/kind",
        "keyword": "enum",
        "schema_pointer": "/properties/kind/enum",
        "message": 'enum: a value of type number, expected one of "vulnerability", "unsound"',
        "expected": ['"vulnerability"', '"unsound"'],
        "open": [],
        "inside": None,
    }


def test_valid_and_incomplete(sg) -> None:
    """A valid text is code 0; one that may become valid says what is open, and is code 3."""
    assert sg("--schema", "s.json", "-", text=b'{"kind": "unsound"}\n') == (0, "standard input: valid, 20 bytes\n", "")
    code, out, _ = sg("--schema", "s.json", "--json", "-", text=b'{"kind": "')
    told = json.loads(out)
    assert (code, told["status"], told["expected"], told["inside"], told["open"]) == (
        3,
        "incomplete",
        ['"unsound"', '"vulnerability"'],
        "a string",
        [{"pointer": "", "kind": "object", "missing": []}],
    )


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        ((), b'{"a": 1, "a": 2}', 3),
        (("--allow-duplicates",), b'{"a": 1, "a": 2}', 0),
        (("--schema", "s.json"), b'{"n": 10e-1}', 0),
        (("--schema", "s.json", "--plain-numbers"), b'{"n": 10', 3),
        ((), b'["\xc3', 3),
    ],
)
def test_options(sg, arguments: tuple[str, ...], text: bytes, code: int) -> None:
    """The options of a policy's json section; a character cut in two by the end is no mistake."""
    assert sg(*arguments, "-", text=text)[0] == code


def test_formats(sg) -> None:
    """Formats decide where asked to."""
    Path("f.json").write_text('{"format": "date"}')
    assert sg("--schema", "f.json", "-", text=b'"2024-13-01"')[0] == 0
    assert sg("--schema", "f.json", "--assert-formats", "-", text=b'"2024-13-01"')[0] == 3


@pytest.mark.parametrize(
    ("arguments", "schema", "text", "said"),
    [
        (("none.json",), None, None, "none.json: cannot be read: No such file or directory\n"),
        (("--schema", "none.json", "x.json"), None, b"1", "none.json: no such file\n"),
        (("--schema", "s.json", "x.json"), "{", b"1", "s.json:1:2: not JSON: expecting property name enclosed in"),
        (("--schema", "s.json", "x.json"), '{"maxItems": -1}', b"1", "s.json: /maxItems: -1 is not an integer, 0 or"),
        (("x.json",), None, b'{"a":\n"\xff"}', "x.json:2:2: not UTF-8: byte 7 is 0xff\n"),
    ],
)
def test_what_cannot_be_read(sg, arguments, schema: str | None, text: bytes | None, said: str) -> None:
    """A sentence with the place, exit code 2, and nothing on standard output."""
    if schema is not None:
        Path("s.json").write_text(schema)
    code, out, err = sg(*arguments, text=text)
    assert (code, out) == (2, "")
    assert err.startswith(said)
