"""The garbage collector of a process that makes calls by the thousand."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECT_AFTER = 10_000
"""New objects between two collections; 700 by default."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector look at what is made from here on only, and less often: a tenth of a job's CPU."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
