"""What a Redis server may forget, by its own account."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.files.redis_server import caveats, forgetful

FIT: dict[str, Any] = {
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "role": "master",
    "connected_slaves": 0,
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "maxmemory-policy is 'allkeys-lru', which may lose; set it to noeviction",
        ),
        ({"maxmemory_policy": None}, "maxmemory-policy is None, which may lose; set it to noeviction"),
        ({"aof_enabled": 0}, "no append-only file, so a restart forgets all; set appendonly yes"),
        ({"role": "slave"}, "a slave, not a primary; give the primary's address"),
    ],
)
def test_a_forgetful_server_is_refused(changed: dict[str, Any], said: str | None) -> None:
    """The first thing that is wrong is named, with what to set; what a server does not say counts as wrong."""
    assert forgetful({**FIT, **changed}, evicts="lose", forgets="all") == said


@pytest.mark.parametrize(
    ("fsync", "replicas", "said"),
    [
        ("always", 0, []),
        ("everysec", 0, ["appendfsync is everysec, so a crash of the server can lose the last holds"]),
        (
            None,
            "2",
            [
                "appendfsync is unknown, so a crash of the server can lose the last holds",
                "a failover can lose holds that were not replicated yet",
            ],
        ),
    ],
)
def test_what_the_trust_rests_on(fsync: str | None, replicas: Any, said: list[str]) -> None:
    """Each property that can lose something is a sentence."""
    assert caveats({**FIT, "connected_slaves": replicas}, fsync, lost="holds") == said
