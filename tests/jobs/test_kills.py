"""Killed at any moment, with any disk fault: nothing lost, nothing doubled, nothing torn, nothing asked needlessly.

All of it (every operation, three hundred kills) is `make matrix`; here is a part of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import ROOT

CLEAN = {"lost": 0, "doubled": 0, "torn": 0, "mixed": 0}


def kills(module: str, *arguments: str) -> dict[str, int]:
    """What a process of its own counted: it forks, which a process with threads should not."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(counts: dict[str, int]) -> None:
    """I7: every row once; and what is asked again was under way when it happened, so it is no more than ran at once."""
    assert {name: counts[name] for name in CLEAN} == CLEAN
    assert counts["reissued"] <= counts["in_flight"]
    assert counts["most_reissued"] <= counts["concurrency"]


def test_kill_9_at_random_moments() -> None:
    """Fifteen kills, at moments spread over whole runs: their start, their middle, their end."""
    counts = kills("tests.jobs.kills", "random", "--kills", "15", "--seed", "3")
    assert counts["kills"] == 15
    check(counts)


@pytest.mark.parametrize("mode", ["fails", "dies"])
def test_a_fault_at_the_nth_operation(mode: str) -> None:
    """Every 29th operation on a file or on the journal fails, or is the last one before a kill -9."""
    counts = kills("tests.jobs.kills", mode, "--every", "29", "--first", "5")
    assert counts["faults"] + counts["kills"] >= 10
    check(counts)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("victim", "first", "every", "most"), [("parent", 20, 120, 6), ("child", 9, 33, 3)])
def test_a_kill_of_a_worker_or_of_its_parent(victim: str, first: int, every: int, most: int) -> None:
    """With two workers: some operations of the parent, and some of the first worker, are the last ones before a kill."""
    counts = kills("tests.jobs.worker_kills", victim, "--every", str(every), "--first", str(first))
    assert counts["kills"] >= 2
    assert {name: counts[name] for name in CLEAN} == CLEAN
    assert counts["most_reissued"] <= most
