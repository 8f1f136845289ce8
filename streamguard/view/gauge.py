"""Weigh the output of a running call as it grows, for the live view."""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.engine.snapshot import Block
from streamguard.pricing.tokens import weigh


class Gauge:
    """≈ How many tokens an attempt's output is, weighed piece by piece: each piece once, however often one looks."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._weight = 0.0

    def weight(self, of: Sequence[Block]) -> float:
        """The weight of all output so far; times the model's scale it is tokens."""
        for block in of:
            seen, count = self._seen.get(block.index, 0), len(block.pieces)
            if count > seen:
                self._weight += weigh("".join(block.pieces[seen:count]))
                self._seen[block.index] = count
        return self._weight
