"""What other servers send, shape by shape: each under every configuration, whole at the end and event by event."""

from __future__ import annotations

import pytest

from streamguard.testing.faults import Fault, servers
from tests.matrix.cells import CHUNKS, TIMES, Cell
from tests.matrix.configs import configs
from tests.matrix.grid import run_cells
from tests.matrix.surfaces import LIVE, RUN


@pytest.mark.parametrize("fault", servers.CHAPTER.faults)
def test_what_servers_send(fault: Fault) -> None:
    """No invariant is violated; the sample of the matrix has their other cells."""
    cells = [Cell(fault, config, CHUNKS[0], TIMES[0], door) for config in configs().values() for door in (RUN, LIVE)]
    assert run_cells(cells) == (len(cells), [])
