"""The worker processes from the parent's side, with small processes that only speak the frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from streamguard.errors import JobError
from streamguard.jobs.asking import Ended
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.input.plan import Entry
from streamguard.jobs.store.resume import POISON
from streamguard.jobs.workers import pool as pool_module
from streamguard.jobs.workers.frames import Begin, Happened
from streamguard.jobs.workers.pool import STARTS, WorkerPool
from streamguard.retry.breaker import BreakerView

SPEAKER = """
import os, socket, sys, threading, time, msgspec
line = socket.socket(fileno=int(sys.argv[1]))
lock, data = threading.Lock(), b""
def say(**message):
    body = msgspec.msgpack.encode(message)
    with lock:
        line.sendall(len(body).to_bytes(4, "big") + body)
def answer(ask):
    if ask["key"] == "poison":
        os._exit(9)
    time.sleep(float(os.environ.get("SPEAKER_TAKES", "0.01")))
    say(type="Answered", number=ask["number"], ended={
        "line": b"%d %s" % (os.getpid(), ask["key"].encode()), "type": "succeeded", "completed": "whole"})
while True:
    while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4], "big")):
        message, data = msgspec.msgpack.decode(data[4 : 4 + size]), data[4 + size :]
        if message["type"] == "Begin":
            how = message["job"]
            if how == "dies":
                os._exit(7)
            if how == "breaks":
                say(type="Broke", kind="job", message="no credentials")
            say(type="Ready", endpoint="http://here")
            say(type="Happened", attempts=1, retries={"json.schema": 2}, first_tokens=[0.5], cooling=3.0)
        elif message["type"] == "Ask":
            threading.Thread(target=answer, args=(message,), daemon=True).start()
    more = line.recv(65536)
    if not more:
        break
    data += more
"""


@pytest.fixture(autouse=True)
def speakers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Start small processes instead; returns those that were started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(fd: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", SPEAKER, str(fd)], pass_fds=[fd]))
        return started[-1]

    monkeypatch.setattr(pool_module, "_started", start)
    return started


class Listener:
    """Counts."""

    paused: str | None = None

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.told: list[Happened] = []

    def happened(self, happened: Happened) -> None:
        self.told.append(happened)

    def died(self, key: str) -> int:
        self.deaths[key] += 1
        return self.deaths[key]

    def seen(self, process: int, calls: Any, records: Any) -> None:
        assert (calls, records) == ((), ())


def row(key: str, turn: int = 0) -> RowRequest:
    return RowRequest(Entry(key, 1, 0, 0, 0, "f"), {"model": "m"}, turn)


def run(
    body: Callable[[WorkerPool, Listener], Coroutine[Any, Any, Any]],
    *,
    how: str = "works",
    count: int = 2,
    concurrency: int = 4,
) -> Any:
    """Run a body with a pool that has begun."""

    async def main() -> Any:
        listener = Listener()
        begin = Begin(b"", how, "", {})
        pool = WorkerPool(begin, listener, count=count, concurrency=concurrency, max_deaths=3)
        failed: Exception | None = None
        result: Any = None
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    await pool.begin(tasks)
                    result = await body(pool, listener)
                except JobError as error:
                    failed = error
                tasks.cancel_scope.cancel()
        finally:
            await pool.close()
        if failed is not None:
            raise failed
        return result

    return anyio.run(main)


async def all_of(pool: WorkerPool, keys: list[str], *, at_once: int, most: list[int] | None = None) -> dict[str, Ended]:
    """Ask for rows, so many at a time."""
    found: dict[str, Ended] = {}
    left = iter(keys)

    async def work() -> None:
        for key in left:
            found[key] = await pool.ask(row(key))
            if most is not None:
                most.append(sum(len(child.rows) for child in pool._children))

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(work)
    return found


def down(seconds: float, next_look: float, **more: bool) -> Happened:
    """What a process says whose endpoint is down."""
    said = {"model": "m", "base_url": None, "reason": "transport.connect", "seconds": seconds, **more}
    return Happened(down=[BreakerView(next_look=next_look, **said)])  # type: ignore[arg-type]


def test_what_is_down_for_every_process_is_down(speakers) -> None:
    """The parent holds rows once no process has its endpoint up; before that they go where it is, then where somebody
    may look first."""

    async def body(pool: WorkerPool, listener: Listener) -> list[Any]:
        while any(child.frames is None for child in pool._children):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        first, second = pool._children
        frames = [child.frames for child in (first, second) if child.frames is not None]
        now, seen = anyio.current_time(), [pool.down(anyio.current_time())]
        pool._take(first, frames[0], down(40.0, 7.0))
        seen.append(pool.down(now))
        assert min((first, second), key=lambda child: child.wait("m")) is second
        pool._take(second, frames[1], down(20.0, 3.0))
        seen.append(pool.down(now))
        assert min((first, second), key=lambda child: child.wait("m")) is second
        pool._take(second, frames[1], Happened())
        seen.append(pool.down(now))
        return seen

    none, one, both, again = run(body)
    assert (none, one, again) == ({}, {}, {})
    assert list(both) == ["m"]
    assert both["m"].seconds == pytest.approx(40.0, abs=1.0)
    assert both["m"].next_look == pytest.approx(3.0, abs=1.0)


def test_rows_are_shared_out(speakers) -> None:
    """Every row is answered once, by both processes, and never more at a time than ordered."""
    most: list[int] = []

    async def body(pool: WorkerPool, listener: Listener) -> dict[str, Ended]:
        found = await all_of(pool, [str(n) for n in range(60)], at_once=8, most=most)
        assert (pool.endpoint, pool.cooling(0.0)) == ("http://here", 3.0)
        assert listener.told[0].retries == {"json.schema": 2}
        return found

    found = run(body)
    assert {key: one.line.split()[1].decode() for key, one in found.items()} == {str(n): str(n) for n in range(60)}
    assert len({one.line.split()[0] for one in found.values()}) == 2
    assert max(most) <= 4
    assert [one.wait() for one in speakers] == [0, 0]


def test_rows_of_a_dead_process_go_to_others(speakers, monkeypatch) -> None:
    """Every row that was under way is asked again, its death counted, and the process is started again."""
    monkeypatch.setenv("SPEAKER_TAKES", "0.2")

    async def body(pool: WorkerPool, listener: Listener) -> tuple[dict[str, Ended], Counter[str]]:
        async def kill() -> None:
            while sum(len(child.rows) for child in pool._children) < 4:
                await pool._change()
            os.kill(speakers[0].pid, signal.SIGKILL)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            found = await all_of(pool, [str(n) for n in range(12)], at_once=4)
        return found, listener.deaths

    found, deaths = run(body)
    assert len(found) == 12
    assert all(one.type == "succeeded" for one in found.values())
    assert list(deaths.values()) == [1] * len(deaths)
    assert 1 <= len(deaths) <= 2
    assert len(speakers) == 3


def test_a_row_that_kills_its_process_is_given_up_alone(speakers) -> None:
    """The third death is its last, and from the second on nobody else dies with it."""

    async def body(pool: WorkerPool, listener: Listener) -> tuple[dict[str, Ended], Counter[str]]:
        keys = [*map(str, range(10)), "poison", *map(str, range(10, 40))]
        return await all_of(pool, keys, at_once=4), listener.deaths

    found, deaths = run(body)
    assert found["poison"].reason == POISON
    assert deaths["poison"] == 3
    assert {one.type for key, one in found.items() if key != "poison"} == {"succeeded"}
    assert max((count for key, count in deaths.items() if key != "poison"), default=0) <= 2


def test_a_suspect_from_an_earlier_run_is_alone_from_the_beginning() -> None:
    """Its turn says how many processes died of it."""

    async def body(pool: WorkerPool, listener: Listener) -> tuple[dict[str, Ended], Counter[str]]:
        listener.deaths["poison"] = 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.ask, row("poison", 2))
            found = await all_of(pool, [str(n) for n in range(30)], at_once=3)
        return found, listener.deaths

    found, deaths = run(body)
    assert len(found) == 30
    assert deaths == {"poison": 3}


@pytest.mark.parametrize(
    ("how", "said"),
    [("breaks", "no credentials"), ("dies", f"died {STARTS + 1} times without finishing a row, .* exit code 7")],
)
def test_processes_that_cannot_work_end_the_job(how: str, said: str) -> None:
    """With what they said, or how they ended."""

    async def body(pool: WorkerPool, listener: Listener) -> Ended:
        return await pool.ask(row("a"))

    with pytest.raises(JobError, match=said):
        run(body, how=how, count=1)


def test_after_a_stop_no_row_is_asked() -> None:
    """What runs ends; what waits for a process is as if it had never begun."""

    async def body(pool: WorkerPool, listener: Listener) -> Ended:
        pool.withdraw("signal")
        return await pool.ask(row("a"))

    assert run(body) == Ended(line=b"", type="canceled", unsent=True, message="signal")
