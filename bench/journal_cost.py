"""What a row costs in each row journal: `python -m bench.journal_cost [--rows N]`. Real servers, one process and four.

A row is one `claim` and one `finish`, in groups of as many as come together under load: 1 (a quiet process) and 8.
Given are milliseconds of the two verbs, and of CPU in this process, each divided by the rows of a group; medians of
three runs. Servers keep what they are told: SQLite's log, `appendfsync everysec`, and PostgreSQL's `fsync`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from streamguard.batch.journal import open_journal
from streamguard.batch.journal.contract import Ask, Result
from tests.postgres import PostgresServer
from tests.redis_servers import KEEPS, start_server

LINE = b"x" * 600
"""A result line of the usual size."""


def rows(address: str, job: str, first: int, count: int, group: int) -> tuple[float, float]:
    """Claim and finish rows; returns seconds and seconds of CPU a row."""
    owner = f"{os.getpid()}"
    with closing(open_journal(address, job)) as journal:
        journal.claim([Ask("warm", "f")], f"{owner}-warm", 30.0)
        began, cpu = time.perf_counter(), time.process_time()
        for start in range(first, first + count, group):
            keys = [str(n) for n in range(start, start + group)]
            journal.claim([Ask(key, "f") for key in keys], owner, 30.0)
            journal.finish([Result(key, "f", LINE) for key in keys])
        return (time.perf_counter() - began) / count, (time.process_time() - cpu) / count


def measured(address: str, job: str, processes: int, count: int, group: int) -> tuple[float, float]:
    """The mean over processes that run at the same time."""
    said = [(address, job, number * count, count, group) for number in range(processes)]
    if processes == 1:
        return rows(*said[0])
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(rows, [(address, f"{job} warm", number, 1, 1) for number in range(processes)], chunksize=1)
        found = pool.starmap(rows, said, chunksize=1)
    return statistics.mean(one for one, _ in found), statistics.mean(one for _, one in found)


def journals(folder: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Each kind with its address."""
    yield "sqlite", f"sqlite:{folder}/rows"
    redis: Any = start_server(folder / "redis", KEEPS)
    stack.callback(redis.stop)
    yield "redis", f"redis://127.0.0.1:{redis.port}/0"
    postgres = PostgresServer(folder / "postgres")
    postgres.start()
    stack.callback(postgres.stop)
    yield "postgres", postgres.address


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400)
    count = parser.parse_args().rows
    print(f"{'':>10} {'processes':>9} {'rows at once':>12} {'ms a row':>9} {'ms of CPU':>9}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        Path(name).chmod(0o755)
        for kind, address in journals(Path(name), stack):
            for processes in (1, 4):
                for group in (1, 8):
                    runs = [measured(address, f"{processes} {group} {n}", processes, count, group) for n in range(3)]
                    took, cpu = (1000 * statistics.median(column) for column in zip(*runs, strict=True))
                    print(f"{kind:>10} {processes:>9} {group:>12} {took:>9.3f} {cpu:>9.3f}", flush=True)


if __name__ == "__main__":
    main()
