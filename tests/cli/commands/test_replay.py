"""`streamguard replay`: what it prints for people and for machines, its exit codes, and what it does not load."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from streamguard.cli import main
from streamguard.pricing.tokens import weigh
from streamguard.testing import wire
from tests.data import ROOT

GOOD = b"".join(wire.text_stream('{"kind": "unsound"}', 4))
DEAD = b"".join(wire.text_stream('{"kind": "unsafe", "n": 1}', 4))
ENUM = '{"type": "object", "properties": {"kind": {"enum": ["vulnerability", "unsound"]}}}'
WHY = 'enum: "unsa", expected "unsound" (at character 13, in /kind)'
AFTER = round(7 * (1 - weigh('{"kind": "unsafe') / weigh('{"kind": "unsafe", "n": 1}')))
"""Of seven output tokens, those of the text after the piece that holds the dead byte: shared out by weight."""
PLAIN = "version: 1\njson: {}\n"


@pytest.fixture
def sg(tmp_path, monkeypatch, capsys):
    """Runs the command line in a folder with recordings; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("good.sse", GOOD), ("dead.sse", DEAD)):
        Path(name).write_bytes(data)
    Path("p.yaml").write_text(PLAIN)
    Path("s.json").write_text(ENUM)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.main(["replay", *arguments])
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def test_json_is_one_object_a_recording(sg) -> None:
    """What identifies a verdict comes first and under these names; one line each, in the order given."""
    code, out, err = sg("-p", "p.yaml", "--schema", "s.json", "--json", "good.sse", "dead.sse")
    assert (code, err) == (3, "")
    good, dead = map(json.loads, out.splitlines())
    assert list(good)[:8] == ["file", "reason", "pointer", "offset", "char", "event", "tokens_after", "completed"]
    assert good == {
        "file": "good.sse",
        "reason": None,
        "pointer": None,
        "offset": None,
        "char": None,
        "event": 10,
        "tokens_after": 0,
        "completed": "whole",
        "tokens": 5,
        "keyword": None,
        "message": None,
        "observed": [],
        "hint": None,
        "marked": [],
    }
    assert dead == {
        "file": "dead.sse",
        "reason": "json.schema",
        "pointer": "/kind",
        "offset": 13,
        "char": 13,
        "event": 6,
        "tokens_after": AFTER,
        "completed": None,
        "tokens": 7,
        "keyword": "enum",
        "message": WHY,
        "observed": [],
        "hint": None,
        "marked": [],
    }


def test_the_table(sg) -> None:
    """A line for each recording, the sums below; the folder that all names share is left out."""
    code, out, err = sg("-p", "p.yaml", "--schema", "s.json", ".")
    assert (code, err) == (3, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["recording", "verdict", "at", "byte", "≈", "tokens", "after", "why"]
    assert lines[2][:4] == ["dead.sse", "json.schema", "13", str(AFTER)]
    assert lines[-5] == ["good.sse", "whole", "0"]
    assert out.endswith(
        "\n\n2 recordings: 1 stand (whole 1), 1 end (json.schema 1)\n"
        f"≈ {AFTER} of 12 output tokens ({AFTER / 12:.0%}) came after the reason to end\n"
        "what to do: streamguard reason json.schema\n"
    )


def test_what_a_model_says_cannot_move_the_terminal(sg, tmp_path) -> None:
    """Control characters of an answer, and of a file's name, are spelled out."""
    name = "a\x1b[31m.sse"
    Path(name).write_bytes(b"".join(wire.text_stream('{"\x1b[2J": 1}', 4)))
    for arguments in ((), ("--json",)):
        code, out, _ = sg("-p", "p.yaml", *arguments, name)
        assert code == 3
        assert "\x1b" not in out


@pytest.mark.parametrize(
    ("fail_on", "code"), [((), 3), (("--fail-on", "2"), 0), (("--fail-on", "50%"), 3), (("--fail-on", "51%"), 0)]
)
def test_how_many_are_too_many(sg, fail_on, code) -> None:
    """By default one recording that would be ended; else as many as `--fail-on` says."""
    assert sg("-p", "p.yaml", "--schema", "s.json", "good.sse", "dead.sse", *fail_on)[0] == code


def test_all_stand(sg) -> None:
    """0 if every recording stands; a zip is a file like any other."""
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("good.sse", GOOD)
    code, out, _ = sg("-p", "p.yaml", "z.zip")
    assert code == 0
    assert out.splitlines()[-1] == "1 recording: 1 stand (whole 1), 0 end"


def test_observed_trips_are_summed_up(sg) -> None:
    """A policy that only observes ends nothing, claims nothing, and says what it saw."""
    Path("p.yaml").write_text("version: 1\nmode: observe\njson: {}\n")
    code, out, _ = sg("-p", "p.yaml", "--schema", "s.json", "good.sse", "dead.sse")
    assert code == 0
    assert "not claimed" in out
    assert out.endswith(
        "2 recordings: 2 stand (whole 1, not claimed 1), 0 end\nobserved only: json.schema 1\nwhat to do: streamguard reason json.schema\n"
    )


BAD = [
    pytest.param(("-p", "none.yaml", "good.sse"), ["none.yaml: no such file"], id="no policy"),
    pytest.param(("-p", "p.yaml", "--schema", "none.json", "good.sse"), ["none.json: no such file"], id="no schema"),
    pytest.param(("-p", "p.yaml", "--schema", "e.json", "good.sse"), ["e.json: no document can satisfy this schema"],
                 id="unsatisfiable"),
    pytest.param(("-p", "r.yaml", "good.sse"), [
        "good.sse: /json/schema: schema: request, but the source's request is unknown; give the schema itself"
    ], id="needs a request"),
    pytest.param(("-p", "p.yaml", "none.sse", "t.txt"), [
        "none.sse: no such file", "t.txt:1: not an event stream: no line of it begins with data: or event:"
    ], id="no recordings"),
    pytest.param(("-p", "p.yaml", "--fail-on", "many", "good.sse"), [
        "--fail-on must be a number of records from 1 (10) or a share of them (1%), got 'many'"
    ], id="fail-on"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_input(sg, arguments, said) -> None:
    """Exit code 2, every mistake with its file, nothing on standard output."""
    Path("e.json").write_text('{"enum": []}')
    Path("r.yaml").write_text("version: 1\njson: {schema: request}\n")
    Path("t.txt").write_text("hello\n")
    assert sg(*arguments) == (2, "", "\n".join(said) + "\n")


def test_a_mistake_does_not_hide_the_rest(sg) -> None:
    """What can be read is judged and shown; the exit code is that of the mistake."""
    code, out, err = sg("-p", "p.yaml", "--json", "none.sse", "good.sse")
    assert (code, err) == (2, "none.sse: no such file\n")
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["good.sse"]


def test_asynchronous_guards_are_named(sg, tmp_path, monkeypatch) -> None:
    """A person is told which guards of the policy were not asked."""
    Path("own.py").write_text(
        "from streamguard import guard\n@guard(reason='own.x')\nasync def looks_up(view):\n    return 'never'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("p.yaml").write_text("version: 1\nguards: [own:looks_up]\n")
    assert sg("-p", "p.yaml", "good.sse")[0] == 2
    code, _, err = sg("-p", "p.yaml", "--allow-imports", "good.sse")
    assert (code, err) == (0, "not asked, since they are asynchronous: looks_up\n")


def test_neither_sdk_nor_sockets_are_loaded(tmp_path) -> None:
    """Offline, and without the second that the SDK takes to import."""
    (tmp_path / "a.sse").write_bytes(GOOD)
    code = (
        "import sys\nfrom streamguard.cli import main\n"
        "try:\n    main.main(['replay', '-p', 'streamguard:extraction', '--json', sys.argv[1]])\n"
        "except SystemExit as end:\n    print(end.code, *sorted({'anthropic', 'httpx2', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.sse")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert json.loads(done.stdout.splitlines()[0])["completed"] == "whole"
