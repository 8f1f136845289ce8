"""Who makes a job's calls: this process, or worker processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.abc

from streamguard.engine.runtime import Runtime
from streamguard.errors import JobError
from streamguard.jobs.asking import Asker, LocalAsker
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
