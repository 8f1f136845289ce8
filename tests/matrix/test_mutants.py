"""The mutants of `bench.mutants` fit the package as it is."""

from __future__ import annotations

import pytest

from bench.mutants import MUTANTS, NOTICED_BY
from tests.data import ROOT


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_can_be_applied(name: str) -> None:
    """What a mutant patches exists; a name that was moved would let the mutant fail instead of the package."""
    with MUTANTS[name]():
        pass


def test_the_tests_that_must_notice_a_mutant_exist() -> None:
    """By file and function; a test that was renamed would otherwise pass for one that failed."""
    missing = []
    for name, nodes in NOTICED_BY.items():
        for node in nodes:
            file, _, function = node.partition("::")
            wanted = f"def {function.partition('[')[0]}(" if function else "def test_"
            if wanted not in (ROOT / file).read_text():
                missing.append((name, node))
    assert missing == []
