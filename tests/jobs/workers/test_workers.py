"""`streamguard run --workers`, with real processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamguard.cli.commands.askers import workers_of
from streamguard.errors import JobError
from streamguard.jobs.store.journal import read_journal
from tests.batch.batches import Provider, provider
from tests.jobs.jobs import batch_line, results, write_job

pytestmark = pytest.mark.timeout(180)

ROWS = 40


def start(folder: Path, server: Provider, *options: str) -> subprocess.Popen[str]:
    """Run the job of a folder with two workers."""
    said = ["--policy", str(folder / "policy.yaml"), "--out", str(folder / "out.jsonl"), "--base-url", server.base_url]
    command = [sys.executable, "-m", "streamguard", "run", str(folder / "in.jsonl"), *said, "--workers", "2", "-j", "8"]
    return subprocess.Popen([*command, *options], text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(server: Provider, asked: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many rows were asked."""
    while server.asked.total() < asked:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_job(tmp_path, *(batch_line(str(n), f"row {n}") for n in range(ROWS)))
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
def test_a_killed_worker_costs_what_it_had_under_way(folder: Path) -> None:
    """No row is lost or doubled, and only calls of the killed process are asked again."""
    with provider(delay=0.3) as server:
        process = start(folder, server)
        until(server, 12, process)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert results(folder) == {str(n): "succeeded" for n in range(ROWS)}
        again = server.asked.total() - ROWS
    assert 1 <= again <= 4
    journal = read_journal(str(folder / "out.jsonl"))
    assert journal is not None
    with journal:
        assert [(run.how, run.asked) for run in journal.runs()] == [("finished", ROWS)]
        assert journal.runs()[0].lost >= again
        assert (journal.in_flight(), journal.crashes()) == ([], {})


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
def test_workers_end_with_their_parent_and_the_next_run_goes_on(folder: Path) -> None:
    """After `kill -9` of the parent nobody goes on asking; what was under way is asked again."""
    with provider(delay=0.3) as server:
        process = start(folder, server)
        until(server, 12, process)
        left = children(process.pid)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{child}").exists() for child in left):
            assert time.monotonic() < deadline, "a worker outlives its parent"
            time.sleep(0.05)
        process = start(folder, server)
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert results(folder) == {str(n): "succeeded" for n in range(ROWS)}
        assert len(results(folder)) == ROWS
        assert server.asked.total() - ROWS <= 16  # once under way at the kill, or sent and not yet noted


def test_a_signal_drains_the_workers(folder: Path) -> None:
    """What runs ends and is kept, and no row begins any more."""
    with provider(delay=0.5) as server:
        process = start(folder, server)
        until(server, 10, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
        assert process.returncode == 128 + signal.SIGTERM, said
        found = results(folder)
        assert set(found.values()) == {"succeeded"}
        assert 8 <= len(found) < ROWS
        assert server.asked.total() == len(found)


def test_refused_credentials_are_said_before_anything_is_sent(folder: Path) -> None:
    """A mistake of the order is one sentence, no traceback."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    command = [sys.executable, "-m", "streamguard", "run", str(folder / "in.jsonl"), "--workers", "2"]
    said = ["--policy", str(folder / "policy.yaml"), "--out", str(folder / "o"), "--base-url", "https://example.com"]
    done = subprocess.run([*command, *said], text=True, capture_output=True, env=variables, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "no credentials" in done.stderr


@pytest.mark.parametrize(("said", "count"), [(None, 1), ("1", 1), (3, 3), ("64", 64)])
def test_the_number_of_workers(said: str | int | None, count: int) -> None:
    """A number, or as many as there are cores, less one."""
    assert workers_of(said) == count
    assert 1 <= workers_of("auto") <= 64


@pytest.mark.parametrize("said", ["0", "65", "two", "-1", "", "1.5", "²"])
def test_other_numbers_are_refused(said: str) -> None:
    """In words."""
    with pytest.raises(JobError, match="--workers must be from 1 to 64, or auto"):
        workers_of(said)


def test_lines_are_those_of_one_process(folder: Path) -> None:
    """The same fields, whoever asked."""
    with provider() as server:
        process = start(folder, server)
        _, said = process.communicate()
        assert process.returncode == 0, said
    for line in (folder / "out.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["streamguard"]["output"] == {"n": int(row["custom_id"])}
        assert row["result"]["message"]["content"][0]["text"] == f'{{"n": {row["custom_id"]}}}'


def test_answers_are_held_against_the_fields_of_their_rows(tmp_path: Path) -> None:
    """A row goes to its worker with the fields that its answer must stand in."""
    policy = (
        "version: 1\ntimeouts: {total: 60}\njson: {grounded: [{at: /n, as: number, in: row.doc}]}\n"
        "retry: {attempts: 1}\n"
    )
    data = [{"id": str(n), "text": f"row {n}", "doc": f"it says {n if n % 2 else 99}"} for n in range(6)]
    write_job(tmp_path, *data, policy=policy)
    (tmp_path / "t.j2").write_text("{{ text }}")
    with provider() as server:
        asked = ("--template", str(tmp_path / "t.j2"), "--model", "m", "--max-tokens", "50")
        process = start(tmp_path, server, *asked)
        _, said = process.communicate()
    assert process.returncode == 3, said
    assert results(tmp_path) == {str(n): "succeeded" if n % 2 else "json.ungrounded" for n in range(6)}
