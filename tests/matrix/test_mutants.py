"""The mutants of `bench.mutants` fit the package as it is."""

from __future__ import annotations

import pytest

from bench.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_can_be_applied(name: str) -> None:
    """What a mutant patches exists; a name that was moved would let the mutant fail instead of the package."""
    with MUTANTS[name]():
        pass
