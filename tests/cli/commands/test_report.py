"""`streamguard report`: one file, or standard output."""

from __future__ import annotations

import stat

import pytest

from streamguard.cli import main
from streamguard.testing import answer, run_virtual
from tests.jobs.jobs import DEAD, GOOD, Provider, run_job, write_job


def ask(capfd, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main.main(["report", *arguments])
    said = capfd.readouterr()
    return caught.value.code or 0, said.out, said.err


def test_a_page_in_a_file(tmp_path, monkeypatch, capfd) -> None:
    """Whole or not at all, and its owner's alone; `-` writes the same to standard output."""
    monkeypatch.chdir(tmp_path)
    run_virtual(run_job, write_job(tmp_path, "a", "b"), Provider(a=[answer(GOOD)], b=[answer(DEAD)]))
    assert ask(capfd, "out.jsonl", "--html", "report.html") == (0, "", "report.html: written\n")
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "Failed rows: 1" in text
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o600
    code, out, _ = ask(capfd, "out.jsonl", "--html", "-")
    assert (code, out.count("<svg"), out.count("<svg")) == (0, text.count("<svg"), 7)


def test_where_it_cannot_go(tmp_path, monkeypatch, capfd) -> None:
    """No job, no folder: a line each, and exit code 2."""
    monkeypatch.chdir(tmp_path)
    assert ask(capfd, "out.jsonl", "--html", "r.html") == (
        2,
        "",
        "out.jsonl: no journal of a job stands beside it\n",
    )
    run_virtual(run_job, write_job(tmp_path, "a"), Provider(a=[answer(GOOD)]))
    code, _, err = ask(capfd, "out.jsonl", "--html", "no/r.html")
    assert (code, err) == (2, "no/r.html: cannot be written: No such file or directory\n")
