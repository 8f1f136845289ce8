"""The whole matrix, and samples of it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterable, Iterator, Sequence

from streamguard.testing import Backend, faults, run_virtual
from tests.matrix.cells import TIMES, Cell, Surface, violations
from tests.matrix.configs import configs
from tests.matrix.edges import EDGES
from tests.matrix.surfaces import DOORS

SURFACES = (*DOORS, *EDGES)
"""Every way in."""

FAR = 1e15
"""Virtual seconds that a run may take: many cells wait one after the other."""

GRACE = 0.002
"""Real seconds that sockets are given: both ends are in this loop."""


def grid(surfaces: Sequence[Surface] = SURFACES) -> Iterator[Cell]:
    """Every cell, fault by fault, so that what the oracle found out once serves all doors and cuts."""
    for fault in faults.ALL:
        for config in configs().values():
            for times in TIMES:
                for surface in surfaces:
                    if surface.fits(fault, config):
                        yield from (Cell(fault, config, chunk, times, surface) for chunk in surface.chunks)


def sample(count: int, seed: int) -> list[Cell]:
    """Some cells, in the grid's order: each fault, configuration and surface is in it as often as any other."""
    cells = list(grid())
    chosen = random.Random(seed).sample(range(len(cells)), count)
    return [cells[at] for at in sorted(chosen)]


def run_cells(cells: Iterable[Cell], backend: Backend = "asyncio") -> tuple[int, list[str]]:
    """Ask all of them, in virtual time: how many there were, and every violation."""

    async def all_of_them() -> tuple[int, list[str]]:
        count, found = 0, []
        for cell in cells:
            count += 1
            try:
                found += await violations(cell)
            except Exception:
                found.append(f"{cell.name}: the matrix itself failed: {traceback.format_exc()}")
        return count, found

    return run_virtual(all_of_them, backend=backend, grace=GRACE, within=FAR)
