"""Row journals of every kind, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streamguard.batch.journal.contract import RowJournal
from streamguard.batch.journal.memory import MemoryJournal
from streamguard.batch.journal.sqlite import SqliteJournal
from tests.postgres import FAST, PostgresServer, binary
from tests.redis_servers import KEEPS, serving

KINDS = ("memory", "sqlite", "redis", "postgres")
_names = count()


class Case:
    """A journal that several owners open."""

    def __init__(self, kind: str, opened: Callable[[Case], RowJournal], advanced: Callable[[float], None]) -> None:
        self.kind = kind
        self.passed = 0.0
        self._open, self._advanced = opened, advanced
        self._opened: list[RowJournal] = []

    def open(self) -> RowJournal:
        """Open it once more."""
        self._opened.append(self._open(self))
        return self._opened[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass for the store."""
        self.passed += seconds
        self._advanced(seconds)

    def close(self) -> None:
        """Close all."""
        for journal in self._opened:
            journal.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real server that keeps what it is told."""
    with serving(tmp_path_factory.mktemp("redis"), KEEPS) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real server; what it is told need not survive it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: no client for PostgreSQL tests")
    if binary("postgres") is None:
        pytest.skip("PostgreSQL is not installed: no server for its tests")
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), **FAST)
    server.start()
    yield server
    server.stop()


def make_case(kind: str, tmp_path: Path, request: pytest.FixtureRequest, job: str = "job") -> Case:
    """A fresh journal of a kind."""
    if kind == "memory":
        holder: list[MemoryJournal] = []

        def memory(case: Case) -> RowJournal:
            if not holder:
                holder.append(MemoryJournal(clock=lambda: 1000.0 + case.passed))
            return holder[0]

        return Case(kind, memory, lambda seconds: None)
    if kind == "sqlite":
        path = tmp_path / f"rows-{next(_names)}.db"
        return Case(kind, lambda case: SqliteJournal(path, job, clock=lambda: 1000.0 + case.passed), lambda s: None)
    if kind == "redis":
        from redis import Redis

        from streamguard.batch.journal.redis import RedisJournal

        server, name = request.getfixturevalue("redis_server"), f"test-{next(_names)}"
        return Case(
            kind,
            lambda case: RedisJournal(Redis(port=server.port), job, name, skew=lambda: case.passed),
            lambda seconds: None,
        )
    import psycopg

    from streamguard.batch.journal.postgres import PostgresJournal

    postgres = request.getfixturevalue("postgres_server")
    mine = f"{job}-{next(_names)}"

    def advance(seconds: float) -> None:
        with psycopg.connect(postgres.address, autocommit=True) as db:
            db.execute("UPDATE sg_owners SET until = until - make_interval(secs => %s)", (seconds,))

    return Case(kind, lambda case: PostgresJournal(postgres.address, mine), advance)


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """A fresh journal of each kind."""
    made = make_case(request.param, tmp_path, request)
    yield made
    made.close()
