"""What a Redis server may forget: by its own account of itself, which memory rules it out, and what is left to say.

Pure: whoever holds a connection asks the server. Budgets and row journals rest on the same properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SECTIONS: Final = ("memory", "persistence", "replication")
"""Sections of `INFO` that say it."""


def forgetful(facts: Mapping[str, Any], *, evicts: str, forgets: str) -> str | None:
    """Return why a server cannot be trusted to remember; `None` for one that can.

    :param facts: its `INFO`, all `SECTIONS`.
    :param evicts: what an eviction would do, for the sentence.
    :param forgets: what a restart would forget.
    """
    policy = facts.get("maxmemory_policy")
    if policy != "noeviction":
        return f"maxmemory-policy is {policy!r}, which may {evicts}; set it to noeviction"
    if str(facts.get("aof_enabled")) != "1":
        return f"no append-only file, so a restart forgets {forgets}; set appendonly yes"
    if facts.get("role") != "master":
        return f"a {facts.get('role')}, not a primary; give the primary's address"
    return None


def caveats(facts: Mapping[str, Any], fsync: str | None, *, lost: str) -> list[str]:
    """Return what the trust still rests on, in sentences.

    :param fsync: its `appendfsync`; `None` where it does not say.
    :param lost: what can be lost.
    """
    found = []
    if fsync != "always":
        found.append(f"appendfsync is {fsync or 'unknown'}, so a crash of the server can lose the last {lost}")
    if int(facts.get("connected_slaves") or 0):
        found.append(f"a failover can lose {lost} that were not replicated yet")
    return found
