"""Hostile input to every reader: typed answers only. A million inputs are `python -m bench.fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.matrix.mutations import TOKENS, mutated, seeds
from tests.matrix.targets import TARGETS

COUNTS = {"policy": 120, "schemas": 400}


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    """Mutations of meaningful input, by seed."""
    for seed in range(COUNTS.get(name, 1000)):
        data = mutated(name, seed)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {data[:200]!r}") from error


def hostile(name: str) -> st.SearchStrategy[bytes]:
    """Bytes made of what means something to a reader, and of what does not."""
    parts = st.sampled_from([*TOKENS, *(seed[:60] for seed in seeds(name))]) | st.binary(max_size=8)
    return st.lists(parts, max_size=12).map(b"".join)


@pytest.mark.parametrize("name", TARGETS)
def test_generated(name: str) -> None:
    """Hypothesis's own, which shrinks what it finds."""

    @settings(max_examples=60 if name == "policy" else 200, deadline=None, derandomize=True, database=None)
    @given(hostile(name))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
