"""Random compositions of faults across the attempts of a call; a hundred thousand are `python -m bench.compositions`."""

from __future__ import annotations

import pytest

from streamguard.testing import run_virtual
from tests.matrix.compositions import composed, wrong
from tests.matrix.grid import FAR

BATCH = 100


@pytest.mark.parametrize("first", range(0, 4 * BATCH, BATCH))
def test_compositions(first: int) -> None:
    """One to four attempts, each with a fault, cut, spliced, slowed down or whole: every invariant holds."""

    async def all_of_them() -> list[str]:
        return [one for seed in range(first, first + BATCH) for one in await wrong(composed(seed))]

    assert run_virtual(all_of_them, within=FAR) == []
