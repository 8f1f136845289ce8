"""Many aborted streams over one client and one server, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel

from streamguard import api
from streamguard.adapters.anthropic.source import messages
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError
from streamguard.policy.model import Policy
from streamguard.testing import ScriptedServer, faults
from tests.clients import plain_client
from tests.matrix.configs import PRICES

AT_ONCE = 20
KINDS = ("F41-number", "F37-comma", "F14-cut", "F24-api-error", "F13-chunked", "F38-inside", "F02-mid-stream")
"""What the provider does: dead documents, breaks, errors, silence (which is cancelled), in turn."""


class Left(NamedTuple):
    """What a soak leaves."""

    streams: int
    aborted: int
    violations: list[str]
    rss_growth: int
    """Bytes of resident memory, from after the first tenth to the end."""


async def soak(count: int, told: Callable[[int], None] = lambda _: None) -> Left:
    """Open `count` streams, so many at once; nearly all of them are aborted."""
    policy = Policy(json={"schema": faults.SCHEMA}, prices=PRICES)
    scripts = {name: faults.BY_ID[name].script() for name in KINDS}
    rng = random.Random(1)
    aborted = 0
    runtime = Runtime()
    numbers = iter(range(count))

    async def one(client: Any, number: int) -> None:
        nonlocal aborted
        name = KINDS[number % len(KINDS)]
        source = messages(client, extra_headers={"x-script": name}, **faults.request())
        with anyio.move_on_after(0.01 + 0.03 * rng.random() if name.startswith("F02") else None) as scope:
            try:
                if number % 3:
                    await api.run(source, policy=policy, runtime=runtime)
                else:
                    async with api.stream(source, policy=policy, deliver="live", runtime=runtime) as events:
                        async for _ in events:
                            if number % 5 == 0:
                                break
                            await anyio.lowlevel.checkpoint()
            except CallError:
                aborted += 1
        aborted += scope.cancelled_caught

    async def worker(client: Any) -> None:
        for number in numbers:
            await one(client, number)
            if number == count // 10:
                marks.append(_rss())
            if number % 1000 == 0:
                # What the server remembers of requests that are over is its own, and would hide what calls leave.
                server.exchanges[:] = [one for one in server.exchanges if one.open]
            if number and number % 10_000 == 0:
                told(number)

    before, marks = _now(), [0]
    async with ScriptedServer(scripts) as server, plain_client(server.url) as client:
        pool = client._client._transport._pool
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(worker, client)
        with anyio.move_on_after(2):
            while any(one.open for one in server.exchanges):  # noqa: ASYNC110  the server is as its users see it
                await anyio.sleep(0.01)
        gc.collect()
        grown = _rss() - marks[-1]
        violations = [f"request {one.number} is open" for one in server.exchanges if one.open]
        violations += [f"slot {one} is taken" for one in pool.connections if not (one.is_idle() or one.is_closed())]
        violations += [f"the runtime knows {name}" for name in runtime.calls]
    files, tasks_left = (now - then for now, then in zip(_now(), before, strict=True))
    violations += [f"{files} file descriptors more"] * (files > 0) + [f"{tasks_left} tasks more"] * (tasks_left > 0)
    return Left(count, aborted, violations, grown)


def _now() -> tuple[int, int]:
    """Open files and tasks."""
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
