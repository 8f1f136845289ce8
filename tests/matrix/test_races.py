"""The fault matrix with hedging on: each of two requests of a call may be faulty, and nothing new is violated."""

from __future__ import annotations

import random

import pytest

from streamguard.testing import faults
from tests.matrix.cells import CHUNKS, TIMES, Cell
from tests.matrix.configs import configs
from tests.matrix.grid import grid, run_cells
from tests.matrix.races import RACES

SEED = 20261201
BATCHES, SIZE = 20, 30


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    every = list(grid(RACES))
    chosen = random.Random(SEED).sample(range(len(every)), BATCHES * SIZE)
    return [every[at] for at in sorted(chosen)]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_sample(cells: list[Cell], batch: int) -> None:
    """One answer of two requests is delivered, both are closed, settled once and on the record, whoever fails how."""
    assert run_cells(cells[batch * SIZE : (batch + 1) * SIZE]) == (SIZE, [])


def test_every_fault_on_trio() -> None:
    """The same on the other backend, each fault once."""
    own = list(configs().values())
    chosen = [
        Cell(fault, own[n % len(own)], CHUNKS[0], TIMES[n % 2], RACES[n % len(RACES)])
        for n, fault in enumerate(faults.ALL)
        if not fault.sockets
    ]
    assert run_cells(chosen, "trio") == (len(chosen), [])
