"""Jobs with worker processes that are killed, or whose parent is: `python -m tests.jobs.worker_kills parent|child`.

As `tests.jobs.kills`, with two workers. A warm process that forks stands in for the start of Python: it is handed each
worker's socket, and runs the real worker on it, with a provider in memory. Either the parent dies by kill -9 at its N-th
operation on a file or on the journal, and the job is run again once its workers have ended; or the first worker dies in
front of its N-th operation (a message read, a message sent, a call begun), and the run goes on without it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import msgspec

from streamguard.cli.commands.askers import begun, ended_with, worker_pool
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.jobs import worker
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.workers import pool as pool_module
from streamguard.jobs.workers.frames import Frames
from tests.jobs.kills import (
    CONCURRENCY,
    ROWS,
    SLOWEST,
    Counts,
    Log,
    Operations,
    dies,
    finished,
    in_child,
    look,
    order,
    provider,
    settle,
)

WORKERS = 2
MISSES = 3
"""Runs in a row that had no such operation any more, after which there is none."""
GONE = 5.0
"""Seconds in which workers must have ended after their parent's death."""


class Client:
    """Stands where a worker has its client."""

    base_url = "http://provider"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Nothing to close."""


class Forks:
    """Forks workers for one run: it stands between the parent and them.

    :param die_at: the operation in front of which the first worker dies; 0 for none.
    """

    def __init__(self, log: Log, die_at: int = 0) -> None:
        here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = in_child(lambda: self._serve(here, log, die_at))
        here.close()

    def start(self, fd: int) -> Any:
        """Stands in for `pool._started`."""
        socket.send_fds(self._there, [b"start"], [fd])
        return Forked(int(self._there.recv(64)))

    def children(self) -> list[int]:
        """The workers that live."""
        return list(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def stop(self) -> None:
        """End it, once its workers have ended."""
        until = time.monotonic() + GONE
        while self.children():
            assert time.monotonic() < until, "a worker outlives its parent"
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._there.close()

    def _serve(self, here: socket.socket, log: Log, die_at: int) -> None:
        self._there.close()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        first = True
        while True:
            message, fds, _, _ = socket.recv_fds(here, 64, 1)
            if not message:
                while True:  # until it is killed
                    time.sleep(60)
            at = die_at if first else 0
            pid = in_child(lambda: self._work(here, fds[0], log, at))  # noqa: B023
            os.close(fds[0])
            here.send(str(pid).encode())
            first = False

    def _work(self, here: socket.socket, fd: int, log: Log, die_at: int) -> None:
        here.close()
        dice, count = random.Random(os.getpid()), 0

        def step() -> None:
            nonlocal count
            count += 1
            if count == die_at:
                (log.path.parent / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        def messages(client: Any, **params: Any) -> Any:
            step()
            log.add(params["messages"][-1]["content"])
            return provider(params, dice, SLOWEST)

        send, receive = Frames.send, Frames.receive

        def sending(self: Frames, message: Any) -> None:
            step()
            send(self, message)

        async def receiving(self: Frames) -> Any:
            found = await receive(self)
            step()
            return found

        Frames.send, Frames.receive = sending, receiving  # type: ignore[method-assign]
        worker.messages, worker.make_client = messages, lambda url: Client()  # type: ignore[assignment]
        worker.main(fd)


class Forked(subprocess.Popen[bytes]):
    """A process that is another one's child."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or GONE)
        while Path(f"/proc/{self.pid}").exists():
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("worker", timeout or GONE)
            time.sleep(0.001)
        self.returncode = 0
        return 0

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)

    def __del__(self, *_: object) -> None:
        """Nobody's child."""


async def run(spec: JobSpec) -> None:
    """One run of the job with workers, to its end."""
    job = Job.open(spec)
    try:
        tally = Tally(job.rows, job.kept, backend_clock())
        runtime = Runtime(hooks=[tally.hook])
        options: Mapping[str, Any] = {"base_url": None, "max_event_bytes": None, "partials": False}
        pool = worker_pool(job, tally, runtime, count=WORKERS, concurrency=CONCURRENCY, view=False, **options)
        async with ended_with(pool), anyio.create_task_group() as background:
            await begun(pool, background)
            await Runner(job, pool, tally=tally, runtime=runtime, concurrency=CONCURRENCY).run()
            background.cancel_scope.cancel()
    finally:
        job.close()


@contextmanager
def folder_with_log() -> Iterator[tuple[Path, Log]]:
    """A job's place."""
    with tempfile.TemporaryDirectory() as name:
        log = Log(Path(name))
        yield Path(name), log
        log.close()


def one_run(spec: JobSpec, log: Log, *, parent: int = 0, child: int = 0) -> bool:
    """Run the job once in a process of its own; returns whether that one was killed.

    :param parent: the parent's operation in front of which it dies.
    :param child: the same of the first worker.
    """
    forks = Forks(log, child)

    def work() -> None:
        pool_module._started = forks.start
        operations = Operations(parent, dies, log.fd)
        with operations.watched():
            anyio.run(run, spec)

    _, status = os.waitpid(in_child(work), 0)
    forks.stop()
    assert os.WIFSIGNALED(status) or status == 0, "a run failed"
    return os.WIFSIGNALED(status)


def kill_parent(at: int, counts: Counts) -> bool:
    """Kill the parent at its N-th operation, and run the job again; returns whether there was such an operation."""
    with folder_with_log() as (folder, log):
        spec = order(folder, retry_failed=False)
        hit = one_run(spec, log, parent=at)
        look(folder, counts)
        flying = log.names.total() - len(finished(folder) & set(log.names))
        if hit:
            assert not one_run(spec, log)
            counts.runs += 1
        _count(folder, log, counts, hit, flying)
        return hit


def kill_child(at: int, counts: Counts) -> bool:
    """Kill the first worker at its N-th operation; returns whether there was such an operation."""
    with folder_with_log() as (folder, log):
        spec = order(folder, retry_failed=False)
        assert not one_run(spec, log, child=at)
        hit = (folder / "died").exists()
        _count(folder, log, counts, hit, CONCURRENCY // WORKERS)
        return hit


def _count(folder: Path, log: Log, counts: Counts, hit: bool, flying: int) -> None:
    settle(folder, counts)
    again = log.names.total() - ROWS
    counts.runs += 1
    counts.jobs += 1
    counts.kills += hit
    counts.reissued += again
    counts.in_flight += flying if hit else 0
    counts.most_reissued = max(counts.most_reissued, again)


def main(argv: list[str] | None = None) -> None:
    """Run one mode and print the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.jobs.worker_kills")
    parser.add_argument("mode", choices=["parent", "child"])
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args(argv)
    kill: Callable[[int, Counts], bool] = kill_parent if given.mode == "parent" else kill_child
    counts, began, at, missed = Counts(), time.monotonic(), given.first, 0
    while missed < MISSES:  # how many rows the first worker gets differs from run to run
        hit = kill(at, counts)
        missed = 0 if hit else missed + 1
        counts.operations = at if hit else counts.operations
        at += given.every
    seconds = round(time.monotonic() - began, 1)
    sys.stdout.write(json.dumps({**msgspec.to_builtins(counts), "concurrency": CONCURRENCY, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
