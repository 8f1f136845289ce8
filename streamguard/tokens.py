"""How many tokens a text is, about.

No offline tokenizer of the models in question exists, deltas are not tokens, and exact usage comes only at the end. So
text is *weighed* by the classes of its characters, and the weight becomes tokens by a scale that is learned, per model,
from completed answers whose usage is exact. Everything here is an estimate and is called one wherever it is shown.

Pure: `Calibration` is the one mutable thing, kept by the `Runtime`; an attempt gets a frozen `TokenScale`.
"""

from __future__ import annotations

import msgspec


class TokenScale(msgspec.Struct, frozen=True):
    """Tokens per unit of weight: a low, a middle and a high value, for one model."""

    low: float = 0.5
    mid: float = 1.0
    high: float = 2.0
    samples: int = 0
    """Completed answers it was learned from; 0 for the prior."""


def weigh(text: str) -> float:
    """The weight of a text: about its number of tokens, before any calibration."""
    return len(text) / 3.0  # replaced by the class-weighted table
