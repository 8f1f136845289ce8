"""The three stores behind one fixture, each with a clock that tests move."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamguard.budgets.ledger import Store
from streamguard.budgets.stores.memory import MemoryStore
from streamguard.budgets.stores.sqlite import SqliteStore
from tests.redis_servers import KEEPS, serving

START = 1_795_230_000.0
"""2026-11-21T03:00:00 UTC, where the clocks of memory and SQLite begin."""

_names = itertools.count()


class Case:
    """One store, its clock, and how others open the same ledger."""

    def __init__(self, kind: str, make: Callable[[Callable[[], float]], Store]) -> None:
        self.kind = kind
        self.passed = 0.0
        self._make = make
        self._opened: list[Store] = []
        self.store = self.open()

    def open(self) -> Store:
        """Another store on the same ledger (memory: the same one, for nobody else can see it)."""
        if self.kind == "memory" and self._opened:
            return self._opened[0]
        self._opened.append(self._make(lambda: self.passed))
        return self._opened[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds

    def close(self) -> None:
        """Close all."""
        for store in self._opened:
            store.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real server that keeps what it is told."""
    with serving(tmp_path_factory.mktemp("redis"), KEEPS) as server:
        yield server


def make_case(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """A fresh ledger of a kind."""
    if kind == "memory":
        return Case(kind, lambda passed: MemoryStore(clock=lambda: START + passed()))
    if kind == "sqlite":
        path = tmp_path / f"{next(_names)}.db"
        return Case(kind, lambda passed: SqliteStore(path, clock=lambda: START + passed()))
    server = request.getfixturevalue("redis_server")
    from redis import Redis

    from streamguard.budgets.stores.redis import RedisStore

    name = f"test-{next(_names)}"

    def connect(passed: Callable[[], float]) -> Store:
        client = Redis(port=server.port, decode_responses=True)
        seconds, micros = client.time()
        # The clock of every case begins at START, wherever the server's is.
        return RedisStore(client, name, skew=lambda: START - (seconds + micros / 1e6) + passed())

    return Case(kind, connect)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """A fresh ledger of each kind."""
    made = make_case(request.param, tmp_path, request)
    yield made
    made.close()
