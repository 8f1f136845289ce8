"""Shared paces in memory: for tests, and for programs that are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from streamguard.pace.reports import Report
from streamguard.pace.sharing import Ask, SharedState, Step, take_step
from streamguard.pace.state import Knobs
from streamguard.pace.stores.base import T


class MemoryPaceStore:
    """See `PaceStore`.

    :param clock: seconds.
    """

    blocks = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self.states: dict[str, SharedState] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def step(
        self,
        key: str,
        knobs: Knobs,
        *,
        program: str,
        heard_at: float,
        reports: Sequence[Report],
        ask: Ask | None,
    ) -> Step:
        """See `PaceStore.step`."""
        how = {"program": program, "heard_at": heard_at, "reports": reports, "ask": ask}
        return self.change(key, lambda state, now: take_step(state, knobs, now, **how))  # type: ignore[arg-type]

    def change(self, key: str, verb: Callable[[SharedState, float], T]) -> T:
        """See `PaceStore.change`."""
        with self._lock:
            return verb(self.states.setdefault(key, SharedState()), self._clock())

    def close(self) -> None:
        """Nothing to let go of."""
