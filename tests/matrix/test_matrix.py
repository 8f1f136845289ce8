"""A seeded sample of the fault matrix; the whole is `make matrix`."""

from __future__ import annotations

import pytest

from streamguard.testing import faults
from tests.matrix.cells import CHUNKS, TIMES, Cell
from tests.matrix.configs import configs
from tests.matrix.grid import run_cells, sample
from tests.matrix.surfaces import IN_MEMORY

SEED = 20261121
BATCHES, SIZE = 60, 20


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return sample(BATCHES * SIZE, SEED)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_sample(cells: list[Cell], batch: int) -> None:
    """No invariant is violated in any cell: a fault under a configuration, cut in a way, through a door."""
    count, violations = run_cells(cells[batch * SIZE : (batch + 1) * SIZE])
    assert violations == []
    assert count == SIZE


def test_every_fault_on_trio() -> None:
    """The same on the other backend, each fault once, configurations and doors in turn."""
    own, doors = list(configs().values()), IN_MEMORY
    chosen = [
        Cell(fault, own[n % len(own)], CHUNKS[0], TIMES[n % 2], doors[n % len(doors)])
        for n, fault in enumerate(faults.ALL)
        if not fault.sockets
    ]
    assert run_cells(chosen, "trio") == (len(chosen), [])
