"""What a killed process held stays taken, and with a budget that just suffices the rows finish all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from streamguard.batch import Stopped
from streamguard.budgets.ledger import Balance
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.engine.dispatch import ATTEMPT_LEASE
from tests.batch.batches import POLICY, Provider, extractor, provider, rows
from tests.data import ROOT
from tests.jobs.jobs import batch_line, results, write_job

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc"),
]

ROWS = 24
CALLS = 4
"""Calls of one process at a time."""

VICTIM = """
import sys
from tests.batch.batches import extractor, rows
with extractor(sys.argv[1], sys.argv[2], journal=sys.argv[3], job="j", concurrency=4, lease=1.0) as extract:
    list(extract.rows(rows(*["slow 7"] * 24)))
"""


def budgeted(tokens: int, path: Path) -> str:
    """The policy with a budget that all processes share."""
    return f"{POLICY}budgets: [{{name: all, tokens: {tokens}, ledger: 'sqlite:{path}'}}]\n"


def balance(path: Path) -> Balance:
    """What the ledger says."""
    with closing(open_ledger(f"sqlite:{path}").store) as store:
        return store.balance(store.scopes()[0].key)


def expire_leases(path: Path) -> None:
    """Let the leases of what is held end now; the last row waits for nothing else."""
    with closing(SqliteStore(path, clock=lambda: time.time() + 2 * ATTEMPT_LEASE)) as store:
        assert store.sweep()


def until(happened: Callable[[], bool]) -> None:
    """Wait for something in another process."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def killed_extractor(server: Provider, folder: Path) -> Iterator[None]:
    """An extractor in a process of its own that is killed with all of its calls under way."""
    said = [server.base_url, budgeted(1_000_000, folder / "ledger"), f"sqlite:{folder / 'rows'}"]
    process = subprocess.Popen([sys.executable, "-c", VICTIM, *said], cwd=ROOT)
    until(lambda: server.asked.total() == CALLS)
    process.kill()
    process.wait()
    yield


def cost_of_a_row(server: Provider, folder: Path) -> int:
    """What the ledger counts for a row."""
    with extractor(server.base_url, budgeted(1_000_000, folder / "probe")) as extract:
        list(extract.rows(rows("slow 7")))
    server.asked.clear()
    return balance(folder / "probe").settled


@pytest.mark.parametrize(("short", "finished"), [(0, True), (1, False)], ids=["suffices", "lacks one token"])
def test_an_extractor_finishes_with_what_a_dead_one_left(short: int, finished: bool, tmp_path: Path) -> None:
    """The dead calls' holds stay taken; the others get what is left, one after the other if need be."""
    with provider() as server:
        server.slow = 0.0
        cost = cost_of_a_row(server, tmp_path)
        server.slow = 60.0
        with killed_extractor(server, tmp_path):
            server.slow = 0.02
        dead = balance(tmp_path / "ledger")
        assert dead.settled == dead.uncertain == 0
        hold = dead.held // CALLS
        # The last row needs room for the most that it can cost, beside what all others have cost.
        cap = dead.held + (ROWS - 1) * cost + hold - short
        options = {"journal": f"sqlite:{tmp_path / 'rows'}", "job": "j", "concurrency": CALLS, "lease": 1.0}
        found = []
        ends = nullcontext() if finished else pytest.raises(Stopped, match="has 1196 tokens left")
        with extractor(server.base_url, budgeted(cap, tmp_path / "ledger"), **options) as extract, ends:
            for row in extract.rows(rows(*["slow 7"] * ROWS)):
                found.append(row["output"])
                if len(found) == ROWS - short:
                    expire_leases(tmp_path / "ledger")
        assert len(found) == (ROWS if finished else ROWS - 1)
        assert None not in found
        assert server.asked.total() == CALLS + len(found)
        left = balance(tmp_path / "ledger")
        assert left.taken == dead.held + len(found) * cost <= cap


def test_workers_finish_with_what_a_killed_one_held(tmp_path: Path) -> None:
    """`--workers`: the same, with a process that is killed in the middle of the job."""
    with provider() as server:
        server.slow = 0.0
        cost = cost_of_a_row(server, tmp_path)
        server.slow = 60.0
        with killed_extractor(server, tmp_path):
            hold = balance(tmp_path / "ledger").held // CALLS
        server.asked.clear()
        server.slow = 0.2
        cap = CALLS * hold + (ROWS - 1) * cost + hold
        policy = budgeted(cap, tmp_path / "budget")
        write_job(tmp_path, *(batch_line(str(n), "slow 7") for n in range(ROWS)), policy=policy)
        said = ["--policy", str(tmp_path / "policy.yaml"), "--out", str(tmp_path / "out.jsonl")]
        command = [sys.executable, "-m", "streamguard", "run", str(tmp_path / "in.jsonl"), *said, "--workers", "2"]
        command += ["-j", str(2 * CALLS), "--base-url", server.base_url]
        process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        until(lambda: server.asked.total() >= ROWS // 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, said_ = process.communicate()
        assert process.returncode == 0, said_
        assert results(tmp_path) == {str(n): "succeeded" for n in range(ROWS)}
        left = balance(tmp_path / "budget")
        again = server.asked.total() - ROWS
        assert 1 <= again <= CALLS
        assert left.taken == ROWS * cost + again * hold <= cap
