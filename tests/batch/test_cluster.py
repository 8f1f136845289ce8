"""A cluster under faults: histories from seeds break no rule, replay, and show planted mistakes."""

from __future__ import annotations

import pytest

from bench.cluster import pace_plants  # noqa: F401  registers its own
from bench.cluster.checker import violations
from bench.cluster.history import history
from bench.cluster.plants import found_by

QUICK = (
    "ledger: reserves without a look at the cap",
    "ledger: settling leaves the hold",
    "ledger: an expired hold is freed",
    "queue: waits for ever for what dead processes hold",
    "journal: ignores leases of others",
    "journal: does not count deaths",
    "journal: gives done rows out again",
    "journal: claiming does not renew the lease",
    "claims: a claim that nobody waits for is kept",
    "work: asks before it claims",
    "work: one call too many at a time",
    "pace: what a forgotten program had out stays out",
    "pace: reports are lost",
    "pace: turns are not charged",
    "pace: a hundredth of the rate",
)
"""Planted mistakes that few histories show; `python -m bench.cluster --plants` looks for all."""


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_no_history_breaks_a_rule(first: int) -> None:
    """Whatever is killed, stopped, cut off, emptied or set back."""
    for seed in range(first, first + 25):
        assert violations(history(seed)) == [], f"python -m bench.cluster --seed {seed}"


def test_a_seed_replays() -> None:
    """The same events at the same moments; which of a killed process's calls hears of it first has no order."""
    first, second = (sorted(history(17).world.log, key=repr) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_mistake_is_found(name: str) -> None:
    """The checker can fail."""
    seed, _ = found_by(name, 12)
    assert seed is not None
