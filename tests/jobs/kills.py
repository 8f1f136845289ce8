"""Jobs that are killed and jobs whose disk fails, and what is left of them: `python -m tests.jobs.kills MODE …`.

A process of its own, with one thread, so that it may fork: a warm child runs a job of forty rows against a provider in
memory, in real time, and dies by kill -9 at a random moment, or at its N-th operation on a file or on the journal; or
that operation fails. Then what is on disk is looked at, and the job is run again, until it is through.

What is counted, over all jobs: rows without a result in the finished output (`lost`), rows with two lines (`doubled`),
lines that are no whole line where there must be one (`torn`), rows with another row's answer (`mixed`), and calls that
were issued again (`reissued`) beside the calls that were under way at the kills (`in_flight`).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.journal import read_journal
from streamguard.jobs.store.results import About
from streamguard.jobs.store.resume import Rules
from streamguard.testing import answer, pause, script
from tests.jobs.jobs import DEAD, write_job

ROWS = 40
CONCURRENCY = 6
SLOWEST = 0.02
"""Seconds that an answer may take."""
NEVER = 9
"""Each row of so many fails whenever it is asked."""


class Counts(msgspec.Struct):
    """What came of it all."""

    jobs: int = 0
    kills: int = 0
    faults: int = 0
    runs: int = 0
    operations: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    mixed: int = 0
    reissued: int = 0
    in_flight: int = 0
    most_reissued: int = 0
    """By one kill or fault."""


def order(folder: Path, *, retry_failed: bool) -> JobSpec:
    """A job of forty rows; what a row must answer is in its text."""
    rows = [f"{number}" for number in range(ROWS)]
    rules = Rules(retry_failed=retry_failed, max_row_failures=1000)
    return msgspec.structs.replace(write_job(folder, *rows), rules=rules)


def provider(params: Mapping[str, Any], dice: random.Random, most: float) -> Any:
    """The answer to a row, after a while: its number; every seventh row's first attempt is no good."""
    number = int(params["messages"][-1]["content"])
    good = [pause(dice.random() * most), *answer(json.dumps({"n": number}))]
    attempts = [answer(DEAD)] if number % NEVER == 0 else [answer(DEAD), good] if number % 7 == 0 else [good]
    return script(*attempts, request=params, messages=True)


async def run(spec: JobSpec, issued: Callable[[str], None], *, seed: int, most: float) -> None:
    """One run of the job, to its end.

    :param issued: told of every call that is made.
    :param most: seconds that an answer may take.
    """
    dice = random.Random(seed)
    job = Job.open(spec)
    try:
        tally = Tally(job.rows, job.kept, backend_clock())

        def source(params: Mapping[str, Any]) -> Any:
            issued(params["messages"][-1]["content"])
            return provider(params, dice, most)

        runtime = Runtime(hooks=[tally.hook])
        asker = LocalAsker(source, job.policy, runtime, About(policy=spec.policy))
        await Runner(job, asker, tally=tally, runtime=runtime, concurrency=CONCURRENCY).run()
    finally:
        job.close()


class Operations:
    """Counts what is done to files and to the journal, and lets the N-th go wrong.

    :param at: which one, from 1; 0 for none.
    :param wrong: what then happens instead; afterwards everything works again.
    """

    FILES = ("write", "fsync", "ftruncate", "replace", "unlink", "open", "fchmod")

    def __init__(self, at: int, wrong: Callable[[str], None], ignored: int = -1) -> None:
        self.count = 0
        self.names: list[str] = []
        self._at = at
        self._wrong = wrong
        self._ignored = ignored

    def step(self, name: str) -> None:
        """One more."""
        self.count += 1
        self.names.append(name)
        if self.count == self._at:
            self._wrong(name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open."""
        real = {name: getattr(os, name) for name in self.FILES}
        connect = sqlite3.connect
        operations = self

        def wrapped(name: str, function: Any) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                if not (args and args[0] == operations._ignored):
                    operations.step(name)
                return function(*args, **options)

            return call

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                operations.step(sql.split(None, 2)[0].lower())
                return super().execute(sql, *args)

        def connected(database: Any, *args: Any, **options: Any) -> Any:
            if database == "":  # the plan's own, which nobody needs again
                return connect(database, *args, **options)
            operations.step("connect")
            return connect(database, *args, factory=Connection, **options)

        for name, function in real.items():
            setattr(os, name, wrapped(name, function))
        sqlite3.connect = connected
        try:
            yield
        finally:
            sqlite3.connect = connect
            for name, function in real.items():
                setattr(os, name, function)


def fails(name: str) -> None:
    """The operation fails, as on a full disk."""
    if name in Operations.FILES:
        raise OSError(errno.ENOSPC, "No space left on device")
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def dies(name: str) -> None:
    """The process is killed in front of the operation."""
    os.kill(os.getpid(), signal.SIGKILL)


class Log:
    """The calls that were issued, in a file that survives every kill."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "issued"
        self.fd = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def add(self, name: str, write: Callable[[int, bytes], int] = os.write) -> None:
        """One more."""
        write(self.fd, f"{name}\n".encode())

    @property
    def names(self) -> Counter[str]:
        """How often each row was asked."""
        return Counter(self.path.read_text().split())

    def close(self) -> None:
        """No more."""
        os.close(self.fd)


def in_child(body: Callable[[], None]) -> int:
    """Fork and do it there; returns the process."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        body()
        code = 0
    finally:
        os._exit(code)


def finished(folder: Path) -> set[str]:
    """The rows that the journal has a result of; a call that was aborted has none."""
    journal = read_journal(str(folder / "out.jsonl"))
    if journal is None:
        return set()
    with journal:
        keys = [str(number) for number in range(ROWS)]
        return {key for key, known in journal.known(keys).items() if known.type != "canceled"}


def look(folder: Path, counts: Counts) -> None:
    """At an output in the middle of a job: every line but the last is whole, and no row stands there twice."""
    path = folder / "out.jsonl"
    raw = path.read_bytes() if path.exists() else b""
    seen: Counter[str] = Counter()
    for line in raw.split(b"\n")[:-1]:
        try:
            seen[json.loads(line)["custom_id"]] += 1
        except ValueError:
            counts.torn += 1
    counts.doubled += sum(count > 1 for count in seen.values())


def settle(folder: Path, counts: Counts) -> None:
    """At the output of a finished job: every row once, whole, with its own answer, as the journal has it."""
    raw = (folder / "out.jsonl").read_bytes()
    counts.torn += not raw.endswith(b"\n")
    seen: Counter[str] = Counter()
    for line in raw.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            counts.torn += 1
            continue
        key, output = row["custom_id"], row["streamguard"]["output"]
        seen[key] += 1
        expected = None if int(key) % NEVER == 0 else {"n": int(key)}
        counts.mixed += output != expected
    counts.lost += sum(str(number) not in seen for number in range(ROWS))
    counts.doubled += sum(count > 1 for count in seen.values())
    journal = read_journal(str(folder / "out.jsonl"))
    assert journal is not None
    with journal:
        journaled = b"".join(line for _, line in journal.lines())
    counts.torn += journaled != raw


def seconds_of_a_run() -> float:
    """How long a job takes that nobody kills, its start included. And everything that children need is loaded now."""
    with tempfile.TemporaryDirectory() as name:
        anyio.run(lambda: run(order(Path(name), retry_failed=False), lambda row: None, seed=0, most=0.0))
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        spec = order(Path(name), retry_failed=False)
        os.waitpid(in_child(lambda: anyio.run(lambda: run(spec, lambda row: None, seed=0, most=SLOWEST))), 0)
        return time.monotonic() - began


def killed_at_random(kills: int, seed: int, counts: Counts) -> None:
    """Jobs that are killed again and again until so many kills have been survived."""
    dice, takes = random.Random(seed), seconds_of_a_run()
    while counts.kills < kills:
        with tempfile.TemporaryDirectory() as name:
            killed_job(Path(name), kills, dice, takes, counts)


def killed_job(folder: Path, kills: int, dice: random.Random, takes: float, counts: Counts) -> None:
    """One job, until it is through."""
    log = Log(folder)
    # With failures asked again rows leave the output's middle at each start, so it is rewritten, too.
    spec = order(folder, retry_failed=dice.random() < 0.5)
    through = False
    while not through:
        before, run_seed = log.names, dice.randrange(2**32)
        pid = in_child(lambda: anyio.run(lambda: run(spec, log.add, seed=run_seed, most=SLOWEST)))  # noqa: B023
        if counts.kills < kills:
            time.sleep(dice.random() * takes)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        counts.runs += 1
        look(folder, counts)
        if os.WIFSIGNALED(status):
            counts.kills += 1
            # Of what this run asked, what it has no result of was under way.
            flying = sum(((log.names - before) - Counter(results_of_last_run(folder))).values())
            counts.in_flight += flying
            counts.most_reissued = max(counts.most_reissued, flying)
        else:
            assert os.waitstatus_to_exitcode(status) == 0, "a run failed"
            through = True
    settle(folder, counts)
    asked = {key: count for key, count in log.names.items() if int(key) % NEVER or not spec.rules.retry_failed}
    counts.reissued += sum(asked.values()) - len(asked)
    counts.jobs += 1
    log.close()


def results_of_last_run(folder: Path) -> list[str]:
    """The rows that the last run has written a result of."""
    journal = read_journal(str(folder / "out.jsonl"))
    if journal is None:
        return []
    with journal:
        runs = journal.runs()
        before = {key for key, _ in journal.lines(before=runs[-1].number)} if runs else set()
        return [key for key, _ in journal.lines() if key not in before] if runs else []


def one_fault(at: int, wrong: Callable[[str], None], counts: Counts, *, forked: bool) -> bool:
    """A job whose N-th operation goes wrong, and then one that goes on; returns whether there was such an operation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = Log(folder)
        spec = order(folder, retry_failed=False)
        write = os.write
        operations = Operations(at, wrong, log.fd)

        def first() -> None:
            with operations.watched():
                anyio.run(lambda: run(spec, lambda row: log.add(row, write), seed=at, most=0.0))

        if forked:
            _, status = os.waitpid(in_child(first), 0)
            hit = os.WIFSIGNALED(status)
        else:
            hit = False
            try:
                first()
            except Exception as error:
                if not _expected(error):
                    raise
                hit = True
        counts.runs += 1
        look(folder, counts)
        if hit:
            counts.faults += not forked
            counts.kills += forked
        flying = sum(log.names.values()) - len(finished(folder) & set(log.names))
        anyio.run(lambda: run(spec, lambda row: log.add(row), seed=at, most=0.0))
        counts.runs += 1
        settle(folder, counts)
        again = sum(log.names.values()) - ROWS
        counts.reissued += again
        counts.in_flight += flying
        counts.most_reissued = max(counts.most_reissued, again)
        counts.jobs += 1
        counts.operations = max(counts.operations, at if hit else 0)
        log.close()
        return hit


def _expected(error: BaseException) -> bool:
    """Whether a fault of the disk came out as one: typed, or as the operating system has it."""
    from streamguard.errors import StreamguardError

    if isinstance(error, BaseExceptionGroup):
        return all(_expected(one) for one in error.exceptions)
    return isinstance(error, StreamguardError | OSError)


def faults_at(which: Iterator[int], wrong: Callable[[str], None], counts: Counts, *, forked: bool) -> None:
    """The fault at each of these operations, until there is no such operation."""
    for at in which:
        if not one_fault(at, wrong, counts, forked=forked):
            return


def main(argv: list[str] | None = None) -> None:
    """Run one mode and print the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.jobs.kills")
    parser.add_argument("mode", choices=["random", "dies", "fails"])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    counts = Counts()
    began = time.monotonic()
    if given.mode == "random":
        killed_at_random(given.kills, given.seed, counts)
    else:
        which = iter(range(given.first, 1_000_000, given.every))
        faults_at(which, dies if given.mode == "dies" else fails, counts, forked=given.mode == "dies")
    seconds = round(time.monotonic() - began, 1)
    sys.stdout.write(json.dumps({**msgspec.to_builtins(counts), "concurrency": CONCURRENCY, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
