"""Which row of a job may begin next: in the order of the input, but a row that has to wait is passed by others.

In charge of setting rows aside, no more than `MOST_ASIDE` of them. What a row waits for is the asker's to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from typing import Final, Literal, Protocol

from streamguard.jobs.input.input import RowRequest
from streamguard.retry.breaker import BreakerView

MOST_ASIDE: Final = 256
"""Rows that are read and wait. When there are so many, nothing passes them any more."""

LOOK_EVERY: Final = 0.2
"""Seconds between looks whether a row may begin that waits."""

ONE_LOOKS: Final = 1.0
"""Seconds between two rows that begin in order to look whether an endpoint is back."""


class Waits(Protocol):
    """Says what a row has to wait for."""

    def __call__(self, key: Hashable) -> bool:
        """Return whether rows of this kind wait."""


class Admission:
    """The rows that are left, shared by all workers: each row goes to one of them.

    :param rows: in the input's order.
    :param waits: whether rows of a key wait.
    """

    def __init__(self, rows: Iterator[RowRequest], waits: Waits) -> None:
        self._rows = rows
        self._waits = waits
        self._aside: dict[Hashable, deque[RowRequest]] = {}
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
            key = _key(request)
            if key not in self._aside and not self._waits(key):
                return request
            self._aside.setdefault(key, deque()).append(request)
            self._count += 1
        return "later" if self._count else None


def _key(request: RowRequest) -> Hashable:
    """What rows have in common that wait together: the model."""
    model = request.params.get("model")
    return model if isinstance(model, str) else None


class Holds:
    """Whether rows of a model wait, because their endpoint is down: then one at a time begins, to look."""

    def __init__(self) -> None:
        self._let: dict[Hashable, float] = {}

    def waits(self, down: Mapping[str | None, BreakerView], key: Hashable, now: float) -> bool:
        """Return whether a row waits. If it does not, it is counted as the one that looks.

        :param down: what is down, by model.
        :param key: the row's model.
        """
        view = down.get(key) if isinstance(key, str | None) else None
        if view is None:
            self._let.pop(key, None)
            return False
        late = now - self._let.get(key, -ONE_LOOKS) < ONE_LOOKS
        if view.next_look > 0 or view.looking or view.waiting or late:
            return True
        self._let[key] = now
        return False
