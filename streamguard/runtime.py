"""What calls share: prices, what was learned about tokens, hooks, the source of jitter.

Every door takes `runtime=None`, which means a fresh one. A job, a proxy or a client's middleware holds one for all its
calls. There is no module-level state.
"""

from __future__ import annotations

import random
import secrets
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from streamguard.pricebook import PriceBook
from streamguard.pricing import PriceSpec
from streamguard.telemetry import Hook, Record, emit
from streamguard.tokens import Calibration


class AnswerLengths:
    """How long completed answers were, by model: what an aborted one would probably have cost. Bounded memory."""

    def __init__(self, window: int = 64, models: int = 64) -> None:
        self._window, self._models = window, models
        self._lengths: dict[str, deque[int]] = {}

    def observe(self, model: str, output_tokens: int) -> None:
        """A completed answer's exact output tokens."""
        if model not in self._lengths and len(self._lengths) >= self._models:
            self._lengths.pop(next(iter(self._lengths)))
        self._lengths.setdefault(model, deque(maxlen=self._window)).append(output_tokens)

    def expected(self, model: str | None) -> int | None:
        """The median length of the last answers; `None` if none completed yet."""
        lengths = self._lengths.get(model or "")
        return None if not lengths else round(statistics.median(lengths))


class Runtime:
    """Shared by any number of concurrent calls on one event loop.

    :param calibration: tokens per weight, learned per model.
    :param hooks: called with every telemetry record.
    :param jitter: returns a random number from [0, 1).
    """

    def __init__(
        self,
        *,
        calibration: Calibration | None = None,
        hooks: Sequence[Hook] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.calibration = calibration or Calibration()
        self.lengths = AnswerLengths()
        self.hooks = tuple(hooks)
        self.jitter = jitter
        self._pricebooks: dict[Mapping[str, PriceSpec], PriceBook] = {}

    def pricebook(self, own: Mapping[str, PriceSpec]) -> PriceBook:
        """Prices: a policy's own, then the shipped snapshot."""
        if own not in self._pricebooks:
            self._pricebooks[own] = PriceBook(own)
        return self._pricebooks[own]

    def emit(self, record: Record) -> None:
        """Hand a record to the hooks."""
        if self.hooks:
            emit(self.hooks, record)

    @staticmethod
    def call_id() -> str:
        """A new id for a call."""
        return secrets.token_hex(6)
