"""Who asks for a job's rows: Message Batches first or not, this process, or worker processes."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio.abc

from streamguard.engine.runtime import Runtime
from streamguard.errors import JobError
from streamguard.jobs.asking import Asker, LocalAsker
from streamguard.jobs.batches.holds import BatchHolds
from streamguard.jobs.batches.judging import Judge
from streamguard.jobs.batches.lane import BatchLane, Order
from streamguard.jobs.batches.log import BatchLog
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.store.results import About
from streamguard.jobs.workers.frames import Begin
from streamguard.jobs.workers.listener import JobListener
from streamguard.jobs.workers.pool import WorkerPool
from streamguard.source import Source

AUTO = "auto"

MOST_WORKERS = 64


def workers_of(said: str | int | None) -> int:
    """Return how many worker processes are asked for; 1 for none, which makes the calls here.

    :param said: a number, or `auto`: the cores that this process may use, less one for the parent.
    :raises JobError: it is neither.
    """
    if said is None:
        return 1
    if said == AUTO:
        there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(MOST_WORKERS, max(1, there - 1))
    text = str(said)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS):
        raise JobError(f"--workers must be from 1 to {MOST_WORKERS}, or auto, got {said!r}")
    return int(text)


def local_asker(job: Job, client: Any, runtime: Runtime, about: About, max_event_bytes: int | None) -> Asker:
    """Return what makes the calls on this loop."""
    from streamguard.adapters.anthropic.source import messages

    bound: dict[str, Any] = {} if max_event_bytes is None else {"max_event_bytes": max_event_bytes}

    def source(params: Mapping[str, Any]) -> Source:
        return messages(client, **bound, **params)

    return LocalAsker(source, job.policy, runtime, about)


def worker_pool(
    job: Job, tally: Tally, runtime: Runtime, *, count: int, concurrency: int, view: bool, **options: Any
) -> WorkerPool:
    """Return the worker processes of a job, not yet started.

    :param options: `base_url`, `max_event_bytes`, `partials`.
    """
    listener = JobListener(job, tally, runtime)
    begin = Begin(spec=pickle.dumps(job.spec), job=job.name, question=job.question.digest, options=options, view=view)
    pool = WorkerPool(begin, listener, count=count, concurrency=concurrency, max_deaths=job.spec.rules.max_row_failures)
    listener.interrupt_call = pool.interrupt_call
    return pool


@asynccontextmanager
async def ended_with(pool: Asker) -> AsyncIterator[None]:
    """End worker processes with the block, if the calls are made by any."""
    try:
        yield
    finally:
        if isinstance(pool, WorkerPool):
            await pool.close()


async def begun(pool: Asker, tasks: anyio.abc.TaskGroup) -> None:
    """Start worker processes, if the calls are made by any.

    :raises JobError: they cannot be started.
    """
    if isinstance(pool, WorkerPool):
        await pool.begin(tasks)


STREAM: Final = "stream"
BATCH: Final = "batch"
LANES: Final = {STREAM: STREAM, BATCH: BATCH, "batch,stream": BATCH}
"""What may be said → the lane. What a batch leaves always goes to streams."""

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|)")


def lane_of(said: str) -> str:
    """Return the lane that is meant.

    :raises JobError: there is no such lane.
    """
    lane = LANES.get(said.replace(" ", ""))
    if lane is None:
        raise JobError(f"--lane must be stream, batch, or batch,stream, got {said!r}")
    return lane


def seconds_of(said: str | float | None, option: str) -> float | None:
    """Return a duration such as `90`, `30m` or `6h` in seconds.

    :param option: what it is called, for the message.
    :raises JobError: it is none, or is 0.
    """
    if said is None:
        return None
    found = _SECONDS.fullmatch(str(said).strip())
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2]]
    if not 0 < seconds <= 30 * 86_400:
        raise JobError(f"{option} must be a duration such as 90s, 30m or 6h, got {said!r}")
    return seconds


def batch_lane(
    job: Job,
    client: Any,
    lane: str,
    deadline: float | None,
    *,
    tally: Tally,
    runtime: Runtime,
    say: Callable[[str], None],
) -> BatchLane | None:
    """Return the batch lane of a run; `None` where no batch is wanted and none is under way.

    :param client: the SDK's, or what stands for it where nothing is to be sent.
    :param deadline: seconds until batches are canceled.
    """
    log = BatchLog(job.journal)
    if (lane != BATCH or not job.todo) and not log.open():
        return None
    from streamguard.adapters.anthropic.batches import MessageBatches

    return BatchLane(
        job,
        MessageBatches(client),
        Judge(job.policy, About(policy=job.spec.policy)),
        BatchHolds(job.policy, runtime.accounts, job.name),
        tally=tally,
        order=Order(deadline=deadline),
        say=say,
        log=log,
        submits=lane == BATCH,
    )
