"""Jobs whose rows go to batches first, against a provider in memory, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamguard.budgets.reservation import Accounts
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.jobs.asking import LocalAsker
from streamguard.jobs.batches.holds import BatchHolds
from streamguard.jobs.batches.judging import Judge
from streamguard.jobs.batches.lane import BatchLane, Order
from streamguard.jobs.batches.log import BatchLog
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.progress.summary import Summary, Tally
from streamguard.jobs.runner import Runner
from streamguard.jobs.store.results import About
from streamguard.testing import run_virtual
from streamguard.testing.batches import BatchProvider, ScriptedDesk
from tests.jobs.jobs import Provider

EPOCH = 1_800_000_000.0
"""Unix seconds at the virtual time 0."""

MODEL = "claude-haiku-4-5"
INPUT, OUTPUT = 100, 20
"""Tokens of every answer: at $1 and $5 a million, $0.0002 by itself and $0.0001 in a batch."""

Result = Mapping[str, Any]


def message(text: str, stop_reason: str = "end_turn", **usage: Any) -> Result:
    """The result of a request that was answered."""
    counts = {"input_tokens": INPUT, "output_tokens": OUTPUT, "service_tier": "batch", **usage}
    content = [{"type": "text", "text": text}]
    about = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
    return {"type": "succeeded", "message": {**about, "content": content, "stop_reason": stop_reason, "usage": counts}}


def errored(kind: str = "invalid_request_error", text: str = "no") -> Result:
    """The result of a request that the provider refused."""
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": text}}}


EXPIRED: Result = {"type": "expired"}
CANCELED: Result = {"type": "canceled"}


def answers(**by_text: Result) -> Any:
    """What batches answer, by what the row's user says."""

    def answer(params: Mapping[str, Any], number: int) -> Result:
        text = params["messages"][-1]["content"]
        return by_text.get(text) or by_text["other"]

    return answer


class Ran(msgspec.Struct):
    """What a run came to."""

    runner: Any
    summary: Summary
    said: list[str]
    lane: BatchLane


async def run_lane(
    spec: JobSpec,
    batches: BatchProvider,
    calls: Provider,
    *,
    order: Order | None = None,
    submits: bool = True,
    desk: Any = None,
    interrupt_at: float | None = None,
) -> Ran:
    """One run of a job, from its checks to a finished output."""
    said: list[str] = []
    job = Job.open(spec)
    try:
        tally = Tally(job.rows, job.kept, backend_clock())
        runtime = Runtime(accounts=Accounts(), job=job.name, hooks=[tally.hook])
        about = About(policy=spec.policy)
        log = BatchLog(job.journal, clock=lambda: EPOCH + anyio.current_time())
        lane = BatchLane(
            job,
            desk or ScriptedDesk(batches),
            Judge(job.policy, about),
            BatchHolds(job.policy, runtime.accounts, job.name),
            tally=tally,
            order=order,
            say=said.append,
            log=log,
            submits=submits,
        )
        runner = Runner(
            job, LocalAsker(calls, job.policy, runtime, about), tally=tally, runtime=runtime, concurrency=4, lane=lane
        )
        try:
            async with anyio.create_task_group() as tasks:
                if interrupt_at is not None:

                    async def later() -> None:
                        await anyio.sleep(interrupt_at)
                        runner.interrupt("SIGINT")

                    tasks.start_soon(later)
                await runner.run()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await runtime.aclose()
    finally:
        job.close()
    assert tally.running == 0
    return Ran(runner, tally.summary(runner.stopped), said, lane)


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    """Every line of the output, by its id; each id stands once."""
    found: dict[str, dict[str, Any]] = {}
    for line in (folder / "out.jsonl").read_text().splitlines():
        value = json.loads(line)
        assert value["custom_id"] not in found
        found[value["custom_id"]] = value
    return found


def play(*args: Any, backend: Any = "asyncio", **options: Any) -> Ran:
    """`run_lane` in virtual time."""
    return run_virtual(partial(run_lane, *args, **options), backend=backend)
