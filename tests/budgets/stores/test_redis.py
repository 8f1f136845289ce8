"""The Redis ledger's server: which it refuses, how it notices that balances were lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamguard.budgets.ledger import LedgerError, LedgerLost, Repair
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import open_ledger
from tests.redis_servers import start_server

JOB = Scope(key="job|x", unit="micro_usd", cap=1000)

Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Servers of a test's own."""
    servers = []

    def starter(**config: str) -> Any:
        server = start_server(tmp_path / str(len(servers)), config)
        servers.append(server)
        return server

    yield starter
    for server in servers:
        if server.is_running():
            server.stop()


@pytest.fixture
def client(redis_server: Any) -> Iterator[Any]:
    """A plain client of the shared server."""
    from redis import Redis

    with Redis(port=redis_server.port, decode_responses=True) as made:
        yield made


def opened(server: Any, name: str) -> Any:
    """A store with one scope."""
    store = open_ledger(f"redis://127.0.0.1:{server.port}/0?ledger={name}").store
    store.configure([JOB])
    return store


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"appendonly": "yes", "maxmemory-policy": "allkeys-lru"}, "maxmemory-policy is 'allkeys-lru'"),
        ({"appendonly": "no", "maxmemory-policy": "noeviction"}, "no append-only file"),
    ],
)
def test_a_server_that_may_forget_is_refused(start: Start, config: dict[str, str], why: str) -> None:
    """Eviction and restarts without a log would give a spent budget out again."""
    with pytest.raises(LedgerError, match=why):
        opened(start(**config), "x")


def test_a_replica_is_refused(start: Start, redis_server: Any) -> None:
    """Only a primary's balances are the balances."""
    replica = start(appendonly="yes", replicaof=f"127.0.0.1 {redis_server.port}")
    with pytest.raises(LedgerError, match="not a primary"):
        opened(replica, "x")


def test_an_older_state_that_is_put_back_is_a_lost_ledger(redis_server: Any, client: Any) -> None:
    """A restored snapshot, or a replica that came up: who knows of later rows stops, who comes now cannot know."""
    from redis import Redis

    store = opened(redis_server, "put-back")
    assert store.reserve("a", {JOB.key: 1}, 60) is None
    with Redis(port=redis_server.port) as raw:
        old = {key: raw.dump(key) for key in client.scan_iter("{streamguard:put-back}:*")}
        assert store.reserve("b", {JOB.key: 1}, 60) is None
        for key, value in old.items():
            raw.restore(key, 0, value, replace=True)
    with pytest.raises(LedgerLost, match="an older state"):
        store.reserve("c", {JOB.key: 1}, 60)
    assert opened(redis_server, "put-back").reserve("c", {JOB.key: 1}, 60) is None


def test_a_flushed_server_is_a_lost_ledger(start: Start) -> None:
    """Whoever had the ledger open stops, even after another process began it anew."""
    from redis import Redis

    server = start(appendonly="yes")
    store = opened(server, "flushed")
    store.reserve("a", {JOB.key: 600}, 60)
    with Redis(port=server.port) as client:
        client.flushall()
    with pytest.raises(LedgerLost, match="no longer the ledger it was"):
        store.reserve("b", {JOB.key: 600}, 60)
    other = opened(server, "flushed")
    for act in (
        lambda: store.reserve("b", {JOB.key: 1}, 60),
        lambda: store.heartbeat("a", 60),
        lambda: store.settle("a", {JOB.key: Settlement(1)}),
        lambda: store.configure([JOB]),
    ):
        with pytest.raises(LedgerLost, match="no longer the ledger it was"):
            act()
    other.close()
    store.close()


def test_a_restarted_server_still_knows(start: Start) -> None:
    """Balances, holds and the epoch survive a restart; between, the ledger is lost and nothing is let through."""
    server = start(appendonly="yes", appendfsync="always")
    store = opened(server, "restart")
    assert list(store.caveats) == []
    store.reserve("a", {JOB.key: 600}, 60)
    port = server.port
    server.stop()
    with pytest.raises(LedgerLost, match=f"127.0.0.1:{port}/0 .ledger 'restart'"):
        store.reserve("b", {JOB.key: 1}, 60)
    server._desired_port = port
    server.start()
    assert store.settle("a", {JOB.key: Settlement(10, 5)})
    balance = store.balance(JOB.key)
    assert (balance.settled, balance.held, balance.uncertain) == (10, 0, 5)
    store.close()


def test_forgotten_scripts_are_sent_again(redis_server: Any, client: Any) -> None:
    """A server may drop its script cache at any time."""
    store = opened(redis_server, "scripts")
    client.script_flush()
    assert store.reserve("a", {JOB.key: 1}, 60) is None
    client.script_flush()
    assert store.settle("a", {JOB.key: Settlement(1)})
    store.close()


def test_a_ledger_of_nothing_loses_its_counters(redis_server: Any, client: Any) -> None:
    """Where every sum is zero, a ledger whose counters are gone is repaired, and goes on."""
    store = opened(redis_server, "nothing")
    store.reserve("a", {JOB.key: 5}, 60)
    store.settle("a", {JOB.key: Settlement(0)})
    client.delete("{streamguard:nothing}:counters")
    assert store.reserve("b", {JOB.key: 7}, 60) is None
    assert store.balance(JOB.key).held == 7
    store.close()


def test_rebuilding_repairs_the_counters(redis_server: Any, client: Any) -> None:
    """Counters that were tampered with are summed up again, with rows folded away and rows still in the log."""
    store = opened(redis_server, "repair")
    for index in range(600):
        store.reserve(f"h{index}", {JOB.key: 1}, 60)
        store.settle(f"h{index}", {JOB.key: Settlement(1)})
    store.reserve("open", {JOB.key: 50}, 60)
    assert 0 < client.llen("{streamguard:repair}:log") < 1000
    assert store.rebuild() == []
    client.hset("{streamguard:repair}:counters", f"{JOB.key}||s", 3)
    client.hdel("{streamguard:repair}:counters", f"{JOB.key}||h")
    assert store.rebuild() == [Repair(scope=JOB.key, window="", was=(3, 0, 0), now=(600, 50, 0))]
    assert store.rebuild() == []
    store.close()


def test_keys_live_together_and_what_is_finished_leaves_none(redis_server: Any, client: Any) -> None:
    """All keys have one hash tag, and finished holds leave nothing but counts."""
    store = opened(redis_server, "tidy")
    for index in range(20):
        store.reserve(f"h{index}", {JOB.key: 1}, 60)
        store.settle(f"h{index}", {JOB.key: Settlement(1)})
    assert sorted(client.keys("*streamguard:tidy*")) == [
        "{streamguard:tidy}:" + key for key in ("counters", "epoch", "log", "scopes", "turn")
    ]
    store.close()


def test_other_formats_are_refused(redis_server: Any, client: Any) -> None:
    """A ledger of a later version is not written to by this one."""
    client.set("{streamguard:later}:epoch", "2:abc")
    with pytest.raises(LedgerError, match="another format"):
        opened(redis_server, "later")


def test_ledgers_on_one_server_are_apart(redis_server: Any) -> None:
    """Two names, two balances."""
    one, two = opened(redis_server, "one"), opened(redis_server, "two")
    one.reserve("a", {JOB.key: 600}, 60)
    assert two.balance(JOB.key).held == 0
    one.close()
    two.close()


def test_no_server_and_no_secret() -> None:
    """Where nobody listens the ledger is lost, and the password in its address is not in the error."""
    with pytest.raises(LedgerLost, match=r"redis://127\.0\.0\.1:1/0") as caught:
        open_ledger("redis://user:hunter2@127.0.0.1:1/0?ledger=x")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(LedgerError, match="redis://h"):
        open_ledger("redis://h:99999999/0")


def test_caveats_name_what_the_promise_rests_on(redis_server: Any) -> None:
    """A server that syncs once a second says so."""
    store = opened(redis_server, "caveats")
    assert ["appendfsync is everysec" in caveat for caveat in store.caveats] == [True]
    store.close()
