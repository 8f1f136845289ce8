"""Sixteen processes, two of them killed, on a budget of $5: what was billed never exceeds it (invariant I5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data import ROOT

SEEDS = int(os.environ.get("STREAMGUARD_SCHEDULES", "4"))
"""Schedules per ledger; a release runs 200 (`python -m bench.ledgers --schedules 200`)."""

CAP = 5_000_000
MOST = 100_000
CAP_IN_STORMS = 6_000_000
"""Of `storm.py`."""


def crowd(address: str, folder: Path, *options: str, script: str = "crowd.py") -> list[dict[str, Any]]:
    """Run schedules in processes that never load the SDK."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "budgets" / "stores" / script), address, str(folder), *options],
        capture_output=True,
        text=True,
        timeout=18 * max(1, SEEDS // 4),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["failed"] for one in found] == [0] * len(found), done.stderr
    return found


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger that processes can share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'budget.db'}"
    server = request.getfixturevalue("redis_server")
    return f"redis://127.0.0.1:{server.port}/0?ledger={tmp_path.name}"


def test_i5_true_spend_never_exceeds_the_budget(address: str, tmp_path: Path) -> None:
    """Under concurrency and SIGKILL the provider's bill stays within the cap and within what the ledger says."""
    for one in crowd(address, tmp_path, "--kill", "2", "--seeds", *map(str, range(1, SEEDS + 1))):
        taken = one["settled"] + one["held"] + one["uncertain"]
        assert one["true"] <= taken <= CAP, one
        assert (one["killed"], one["repairs"], one["sdk"]) == (2, 0, False), one
        # The budget was used, and what is held is no more than the killed ones can have held.
        assert taken > CAP - MOST, one
        assert one["held"] <= 2 * MOST, one


def test_what_goes_wrong_beside_them_changes_nothing(address: str, tmp_path: Path) -> None:
    """Kills, stops beyond the lease, stores that hang, caps that are set and reconciled amounts: nothing is over."""
    options = ["--seeds", "5"]
    if address.startswith("redis"):
        redis = pytest.importorskip("redis")
        options += ["--server", str(redis.Redis.from_url(address.partition("?")[0]).info("server")["process_id"])]
    [one] = crowd(address, tmp_path, *options, script="storm.py")
    assert one["true"] <= min(CAP_IN_STORMS, one["taken"]), one
    assert (one["past"], one["repairs"], one["killed"]) == (0, 0, 2), one
    assert one["calls"] > 20, one


def test_checking_first_and_adding_later_overshoots(address: str, tmp_path: Path) -> None:
    """The same crowd with the common mistake spends more than the budget: the test above can fail."""
    found = crowd(address, tmp_path, "--mode", "check", "--kill", "2", "--seeds", "1", "2", "3")
    assert max(one["true"] for one in found) > CAP, found


def test_64_processes_hammering_never_find_the_ledger_locked(address: str, tmp_path: Path) -> None:
    """Every one of 2,560 calls gets through, and all are counted."""
    [one] = crowd(address, tmp_path, "--mode", "hammer", "--workers", "64")
    assert (one["calls"], one["settled"], one["held"], one["repairs"]) == (2560, 2560, 0, 0)
