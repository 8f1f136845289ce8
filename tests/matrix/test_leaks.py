"""After many aborted streams nothing is left: files, tasks, pool slots (I6). 100,000 are `python -m bench.soak`."""

from __future__ import annotations

import anyio

from tests.matrix.soak import soak


def test_aborted_streams_leave_nothing() -> None:
    """Streams that are dead, cut, silent, cancelled and left, over one client: no file, task or slot more (F71)."""
    left = anyio.run(soak, 300)
    assert left.violations == []
    assert left.aborted >= 240
