"""`streamguard run`: an extraction job, from its checks to its exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.abc
import msgspec

from streamguard.callclock import backend_clock
from streamguard.commands.client import checked_url, make_client
from streamguard.commands.exits import Exit
from streamguard.errors import JobError
from streamguard.jobs.job import Job, JobSpec
from streamguard.jobs.progress import Progress, how, summary_text
from streamguard.jobs.runner import Runner
from streamguard.jobs.summary import Summary, Tally
from streamguard.runtime import Runtime
from streamguard.source import Source
from streamguard.terminal import put, silence

MOST_CONCURRENT = 1000
"""Connections that the SDK's pool has."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the job itself."""

    base_url: str | None = None
    concurrency: int = 8
    fail_on: str | None = None
    partials: bool = False
    as_json: bool = False
    quiet: bool = False


class Threshold(msgspec.Struct, frozen=True):
    """How many failed records are too many."""

    count: int | None = None
    percent: float | None = None

    def reached(self, failed: int, rows: int) -> bool:
        """Whether so many of so many are too many."""
        if not failed:
            return False
        if self.percent is not None:
            return failed * 100 >= self.percent * rows
        return failed >= (self.count or 1)


def threshold(text: str | None) -> Threshold:
    """`10`: from ten failed records on; `1%`: from one in a hundred; nothing: from the first.

    :raises JobError: it is neither.
    """
    if text is None:
        return Threshold(count=1)
    number = text.removesuffix("%").strip()
    try:
        if text.endswith("%") and 0 < float(number) <= 100:
            return Threshold(percent=float(number))
        if number == text.strip() and int(number) >= 1:
            return Threshold(count=int(number))
    except ValueError:
        pass
    raise JobError(f"--fail-on must be a number of records from 1 (10) or a share of them (1%), got {text!r}")


def main(spec: JobSpec, options: Options) -> int:
    """Check everything, then run the job.

    :raises ConfigError: a mistake that was found before anything was sent.
    """
    fail_on = threshold(options.fail_on)
    if not 1 <= options.concurrency <= MOST_CONCURRENT:
        raise JobError(f"--concurrency must be from 1 to {MOST_CONCURRENT}, got {options.concurrency}")
    base_url = checked_url(options.base_url)
    job = Job(spec)
    try:
        # With nothing left to do no key is needed, and the SDK not loaded.
        client = make_client(base_url) if job.todo else nullcontext()
        outcome = anyio.run(_run, job, client, options)
    finally:
        job.close()
    return _end(job, outcome, fail_on, options)


class _Ran(msgspec.Struct, frozen=True):
    summary: Summary
    signal: int | None


async def _run(job: Job, client: Any, options: Options) -> _Ran:
    from streamguard.adapters.anthropic import messages

    def source(params: Mapping[str, Any]) -> Source:
        return messages(client, **params)

    tally = Tally(len(job.input.entries), job.kept, backend_clock())
    runtime = Runtime(hooks=[tally.hook])
    runner = Runner(
        job, source, tally=tally, runtime=runtime, concurrency=options.concurrency, partials=options.partials
    )
    progress = Progress(tally, how(sys.stderr, quiet=options.quiet))
    signals = _Signals(runner, progress)
    for notice in job.notices:
        progress.say(notice)
    failure: Exception | None = None
    try:
        async with client, anyio.create_task_group() as background:
            await background.start(signals.run)
            background.start_soon(progress.run)
            try:
                await runner.run()
                if signals.first is None:
                    job.output.finish()
                else:
                    job.output.sync()
            except Exception as error:
                # Raised below: a task group would wrap it.
                failure = error
            background.cancel_scope.cancel()
    finally:
        progress.close()
    summary = tally.summary(runner.stopped)
    if failure is not None:
        if not options.quiet:
            put(sys.stderr, summary_text(summary) + "\n")
        raise failure
    return _Ran(summary, signals.first)


class _Signals:
    """SIGINT and SIGTERM: the first ends the job in order, the second at once."""

    def __init__(self, runner: Runner, progress: Progress) -> None:
        self.first: int | None = None
        self._runner = runner
        self._progress = progress

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listen until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                if self.first is not None:
                    # Every finished row was written whole, and the last may be torn; the next run sees to that.
                    self._progress.close()
                    os._exit(128 + number)
                self.first = int(number)
                name = signal.Signals(number).name
                self._progress.say(f"{name}: ending what runs; once more to leave at once")
                self._runner.interrupt(name)


def _end(job: Job, ran: _Ran, fail_on: Threshold, options: Options) -> int:
    summary = ran.summary
    code = _code(ran, fail_on)
    if options.as_json:
        said = {"input": job.spec.input, "output": job.spec.out, "policy": job.spec.policy, "exit_code": int(code)}
        # ASCII, as every line of ours: it holds texts of the provider's.
        text = json.dumps({**said, **msgspec.to_builtins(summary)}, indent=2)
        if not put(sys.stdout, text + "\n"):
            silence(sys.stdout)
    elif not options.quiet:
        put(sys.stderr, summary_text(summary) + "\n")
    return code


def _code(ran: _Ran, fail_on: Threshold) -> int:
    summary = ran.summary
    if ran.signal is not None:
        return 128 + ran.signal
    if summary.stopped is not None:
        return Exit.BUDGET if summary.stopped.kind == "budget" else Exit.INPUT
    return Exit.FAILED if fail_on.reached(summary.failures, summary.rows) else Exit.OK
