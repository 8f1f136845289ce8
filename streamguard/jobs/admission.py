"""Which row of a job may begin next: in the order of the input, but a row that has to wait is passed by others.

In charge of setting rows aside, no more than `MOST_ASIDE` of them. What a row waits for is the asker's to say.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from streamguard.jobs.input.input import RowRequest
from streamguard.pace.warmup import Prefix, prefixes
from streamguard.retry.breaker import BreakerView

MOST_ASIDE: Final = 256
"""Rows that are read and wait. When there are so many, nothing passes them any more."""

LOOK_EVERY: Final = 0.2
"""Seconds between looks whether a row may begin that waits."""

ONE_LOOKS: Final = 1.0
"""Seconds between two rows that begin in order to look whether an endpoint is back."""


class Kind(msgspec.Struct, frozen=True):
    """What rows have in common that wait together."""

    model: str | None
    shared: tuple[Prefix, ...]
    """The prefixes that the provider caches."""


class Admission:
    """The rows that are left, shared by all workers: each row goes to one of them.

    :param rows: in the input's order.
    :param waits: whether rows of a key wait.
    """

    def __init__(self, rows: Iterator[RowRequest], waits: Callable[[Kind], bool]) -> None:
        self._rows = rows
        self._waits = waits
        self._aside: dict[Kind, deque[RowRequest]] = {}
        self._count = 0

    def take(self) -> RowRequest | Literal["later"] | None:
        """Return the next row that may begin; `later` if all that are left have to wait, `None` if none is left.

        :raises JobError: the input changed meanwhile.
        """
        for key, aside in self._aside.items():
            if not self._waits(key):
                row = aside.popleft()
                self._count -= 1
                if not aside:
                    del self._aside[key]
                return row
        while self._count < MOST_ASIDE and (request := next(self._rows, None)) is not None:
            key = _kind(request)
            if key not in self._aside and not self._waits(key):
                return request
            self._aside.setdefault(key, deque()).append(request)
            self._count += 1
        return "later" if self._count else None


def _kind(request: RowRequest) -> Kind:
    model = request.params.get("model")
    return Kind(model if isinstance(model, str) else None, prefixes(request.params))


class Holds:
    """Whether rows of a model wait, because their endpoint is down: then one at a time begins, to look."""

    def __init__(self) -> None:
        self._let: dict[str | None, float] = {}

    def waits(self, down: Mapping[str | None, BreakerView], model: str | None, now: float) -> bool:
        """Return whether a row waits. If it does not, it is counted as the one that looks.

        :param down: what is down, by model.
        :param model: the row's.
        """
        view = down.get(model)
        if view is None:
            self._let.pop(model, None)
            return False
        late = now - self._let.get(model, -math.inf) < ONE_LOOKS
        if view.next_look > 0 or view.looking or view.waiting or late:
            return True
        self._let[model] = now
        return False
