"""Programs that share a store share its breakers: one of them looks, and all of them know."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis import Redis

from streamguard.engine.pacing import shared_breaker
from streamguard.engine.pacing.shared_breaker import SharedBreaker
from streamguard.pace.outages import Told, take_look
from streamguard.pace.sharing import SharedState
from streamguard.pace.stores.base import PaceLost, PaceStore
from streamguard.pace.stores.memory import MemoryPaceStore
from streamguard.pace.stores.redis import RedisPaceStore
from streamguard.pace.stores.sqlite import SqlitePaceStore
from streamguard.retry.breaker import Breaker, BreakerSpec
from streamguard.retry.cooldown import Cooldown
from streamguard.testing.clock import BACKENDS, run_virtual
from tests.redis_servers import serving

SPEC = BreakerSpec()
ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)


class Program:
    """One program: its breaker, its cool-down, and how many of its attempts look."""

    def __init__(self, store: PaceStore) -> None:
        self.breaker = SharedBreaker(SPEC, store, "breaker/default//m")
        self.cooldown = Cooldown()
        self.breaker.state.alive = True

    async def ask(self) -> Any:
        """Ask for an attempt."""
        return await self.breaker.ask(anyio.current_time(), self.cooldown, lease=90.0)

    def fails(self, times: int = 5) -> None:
        """So many attempts without a sign of life."""
        for _ in range(times):
            self.breaker.failed("transport.connect", anyio.current_time())


def programs(count: int, store: PaceStore | None = None) -> list[Program]:
    """Programs with one store, in memory unless given."""
    store = store or MemoryPaceStore(anyio.current_time)
    return [Program(store) for _ in range(count)]


@ON_BOTH
def test_what_one_found_all_know(backend: Any) -> None:
    """One program finds the endpoint down; the others hold at their next look, and go on when it is back."""

    async def main() -> list[bool]:
        one, two, three = programs(3)
        one.fails()
        found = [(await each.ask()).given for each in (one, two, three)]
        await anyio.sleep(5.0)
        probe = await two.ask()
        assert probe.probe
        two.breaker.answered()
        await two.breaker.tell(anyio.current_time(), two.cooldown)
        return [*found, *[(await each.ask()).given for each in (one, two, three)]]

    assert run_virtual(main, backend=backend) == [False] * 3 + [True] * 3


def test_one_looks_over_all_programs() -> None:
    """Sixteen programs ask at the same moments: whoever looks is the only one, for an outage of two minutes."""

    async def main() -> tuple[int, int]:
        every = programs(16)
        every[0].fails()
        await every[0].ask()
        looks = most = 0
        for second in range(120):
            asked = [await each.ask() for each in every]
            probes = [(each, one.probe) for each, one in zip(every, asked, strict=True) if one.probe]
            most = max(most, len(probes))
            looks += len(probes)
            if second % 3 == 2:
                for each in every:
                    state = each.breaker.state
                    mine = [probe for other, probe in probes if other is each]
                    if mine:
                        each.breaker.failed("transport.connect", anyio.current_time(), probe=mine[0])
                        await each.breaker.tell(anyio.current_time(), each.cooldown)
                        assert state.probe == 0
            await anyio.sleep(1.0)
        return looks, most

    looks, most = run_virtual(main)
    assert most == 1
    assert 1 <= looks <= 9


def test_a_cool_down_is_passed_on() -> None:
    """A program that was refused tells the others at its next attempt; they send nothing for as long."""

    async def main() -> tuple[float, str]:
        one, two = programs(2)
        await two.ask()
        one.cooldown.refused("provider.rate_limited", sent=0.0, now=anyio.current_time(), wait=20.0)
        await one.ask()
        await anyio.sleep(2.0)
        await two.ask()
        return two.cooldown.left(anyio.current_time()), two.cooldown.reason

    left, reason = run_virtual(main)
    assert (left, reason) == (pytest.approx(18.0), "provider.rate_limited")


class Away:
    """A store that cannot be reached."""

    blocks = False

    def change(self, key: str, verb: Callable[[SharedState, float], Any]) -> Any:
        """Fail."""
        raise PaceLost("nobody there")

    step: Any = None

    def close(self) -> None:
        """Nothing."""


@ON_BOTH
def test_a_store_that_is_away_holds_nobody_up(backend: Any) -> None:
    """The program goes on with what it finds by itself, and asks the store again after five seconds."""

    async def main() -> list[tuple[bool, int]]:
        (one,) = programs(1, Away())
        answers = [await one.ask()]
        one.fails()
        answers.append(await one.ask())
        await anyio.sleep(5.0)
        answers.append(await one.ask())
        return [(answer.given, answer.probe) for answer in answers]

    assert run_virtual(main, backend=backend) == [(True, 0), (False, 0), (True, 1)]


def test_a_closed_breaker_is_looked_up_once_a_second() -> None:
    """A thousand attempts a second cost one step in the store."""
    store_steps: list[str] = []

    async def main() -> int:
        store = MemoryPaceStore(anyio.current_time)
        change = store.change

        def counted(key: str, verb: Any) -> Any:
            store_steps.append(key)
            return change(key, verb)

        store.change = counted  # type: ignore[method-assign]
        (one,) = programs(1, store)
        for _ in range(1000):
            assert (await one.ask()).given
            await anyio.sleep(0.01)
        return len(store_steps)

    assert run_virtual(main) in (10, 11)


def test_a_hanging_store_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody else keeps locked costs an attempt 30 ms at the most, then none for five seconds."""
    monkeypatch.setattr(shared_breaker, "LATE", 0.01)

    async def main() -> float:
        store = SqlitePaceStore(tmp_path / "pace.db")
        locked = sqlite3.connect(tmp_path / "pace.db", isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        (one,) = programs(1, store)
        assert (await one.ask()).given
        away = one.breaker._away_until
        locked.execute("ROLLBACK")
        locked.close()
        return away - anyio.current_time()

    assert 4.0 < anyio.run(main) <= 5.0


def moved(store: PaceStore, seed: int) -> list[Any]:
    """A random script of looks at a store, with at most one look that is owed."""
    dice, seen, probe = random.Random(seed), [], 0
    for _ in range(300):
        what = dice.choice(["ask", "ask", "opened", "answered", "failed", "left", "cool"])
        told = [] if what in ("ask", "cool") else [Told(what, "transport.connect", probe)]
        cooling = dice.random() * 5 if what == "cool" else 0.0
        asks = what == "ask"

        def verb(state: SharedState, now: float) -> Any:
            return take_look(state, SPEC, now, told=told, asks=asks, lease=20.0, cooling=cooling)  # noqa: B023

        look = store.change("k", verb)
        if look.passage is not None and look.passage.probe:
            probe = look.passage.probe
        seen.append((look.passage, look.state, look.now, look.cooling))
    return seen


class Ticking:
    """A clock that goes on at every look."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1.25
        return self.now


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real server, which may forget."""
    with serving(tmp_path_factory.mktemp("breakers"), {}) as server:
        yield server


@pytest.mark.parametrize("seed", range(3))
def test_stores_agree(tmp_path: Path, redis_server: Any, seed: int) -> None:
    """Memory, SQLite and Redis answer a script of random looks alike."""
    memory = moved(MemoryPaceStore(Ticking()), seed)
    assert any(passage is not None and passage.probe for passage, *_ in memory)
    sqlite = SqlitePaceStore(tmp_path / "pace.db", clock=Ticking())
    assert moved(sqlite, seed) == memory
    sqlite.close()
    redis = RedisPaceStore(Redis(port=redis_server.port), f"s{seed}", clock=Ticking())
    assert moved(redis, seed) == memory
    redis.close()


def test_a_look_of_the_dead_is_given_up() -> None:
    """A program that is killed while it looks keeps the others waiting for its lease, not for ever."""

    async def main() -> list[int]:
        one, two = programs(2)
        one.fails()
        await one.ask()
        await anyio.sleep(5.0)
        assert (await one.ask()).probe == 1
        numbers = []
        for _ in range(100):
            await anyio.sleep(1.0)
            numbers.append((await two.ask()).probe)
        return numbers

    numbers = run_virtual(main)
    assert (numbers.index(2), numbers.count(0)) == (89, 99)


def test_the_model_is_the_breaker() -> None:
    """What a store keeps is a breaker's state: the same calls give the same answers."""
    shared, plain = SharedState(), Breaker(SPEC)
    take_look(shared, SPEC, 10.0, told=[Told("opened", "transport.connect")], asks=False, lease=1.0)
    plain.open("transport.connect", 10.0, alive=True)
    assert shared.breaker == plain.state
