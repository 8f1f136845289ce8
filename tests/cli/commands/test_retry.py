"""`streamguard retry`: some rows of a job again, as its last run asked them."""

from __future__ import annotations

import json

import pytest

from streamguard.cli import main
from streamguard.testing import answer
from tests.cli.commands.test_run import ARGUMENTS, GOOD, kinds, scripts_by_text, write


@pytest.fixture
def failed(tmp_path, monkeypatch, capfd):
    """A job of which two rows failed, for different reasons."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "good-1", "never-2", "empty-3")
    scripts = {"good": [answer(GOOD)], "never": [answer('{"m": 1}')], "empty": [answer("x")]}
    with scripts_by_text(**scripts).in_thread() as server, pytest.raises(SystemExit) as caught:
        main.main([*ARGUMENTS, "-q", "-j", "3", "--partials", "--base-url", server.url])
    assert caught.value.code == 3
    assert kinds(tmp_path) == {"r0": "succeeded", "r1": "json.schema", "r2": "json.preamble"}


def retry(capfd, server, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main.main(["retry", "out.jsonl", "--base-url", server.url, *arguments])
    said = capfd.readouterr()
    return caught.value.code or 0, said.out, said.err


def good_now():
    return scripts_by_text(good=[answer(GOOD)], never=[answer(GOOD)], empty=[answer(GOOD)])


@pytest.mark.parametrize(
    ("arguments", "asked", "left"),
    [
        (("--reason", "json.schema"), ["never-2"], {"r2": "json.preamble"}),
        (("--reason", "json.s*", "--reason", "json.p*"), ["empty-3", "never-2"], {}),
        ((), ["empty-3", "never-2"], {}),
        (("--id", "r2"), ["empty-3"], {"r1": "json.schema"}),
        (("--id", "r0"), ["good-1"], {"r1": "json.schema", "r2": "json.preamble"}),
        (("--reason", "timeout.*"), [], {"r1": "json.schema", "r2": "json.preamble"}),
    ],
)
def test_rows_by_reason_or_id(failed, tmp_path, capfd, arguments, asked, left) -> None:
    """What is named is asked again, as before, and nothing else; every row still stands once."""
    with good_now().in_thread() as server:
        code, _, err = retry(capfd, server, *arguments)
    assert sorted(exchange.body["messages"][0]["content"] for exchange in server.exchanges) == asked
    assert kinds(tmp_path) == dict(sorted({**dict.fromkeys(("r0", "r1", "r2"), "succeeded"), **left}.items()))
    assert code == 0
    assert f"left out  {3 - len(asked)}" in err or len(asked) == 3


def test_from_another_folder(failed, tmp_path, capfd, monkeypatch) -> None:
    """What the last run was told is relative to where it ran."""
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    with good_now().in_thread() as server, pytest.raises(SystemExit) as caught:
        main.main(["retry", "../out.jsonl", "--base-url", server.url, "-q"])
    assert (caught.value.code or 0, len(server.exchanges)) == (0, 2)


def test_a_look_before(failed, tmp_path, capfd) -> None:
    """`--dry-run` counts, and sends nothing."""
    with good_now().in_thread() as server:
        code, out, _ = retry(capfd, server, "--dry-run", "--reason", "json.*", "--json")
    found = json.loads(out)
    assert (code, found["todo"], found["left_out"], server.exchanges) == (0, 2, 1, [])


def test_what_cannot_be_asked_again(tmp_path, capfd, monkeypatch) -> None:
    """No job, a job that never ran, rows that came from a pipe."""
    monkeypatch.chdir(tmp_path)
    with good_now().in_thread() as server:
        assert retry(capfd, server) == (2, "", "out.jsonl: no journal of a job stands beside it\n")
        write(tmp_path, "good-1")

        class Stdin:
            buffer = (tmp_path / "in.jsonl").open("rb")

        monkeypatch.setattr("sys.stdin", Stdin())
        with Stdin.buffer, pytest.raises(SystemExit):
            main.main(
                ["run", "-", "-p", "p.yaml", "-o", "out.jsonl", "--template", "t.j2", "-q", "--base-url", server.url]
            )
        capfd.readouterr()
        assert retry(capfd, server) == (
            2,
            "",
            "out.jsonl: the input was standard input, which is gone: run the job again with it, and --retry-failed\n",
        )
