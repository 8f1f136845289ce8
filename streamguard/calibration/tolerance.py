"""How many of the largest values seen may be left out, so that a limit still keeps a rate. Pure.

Cut blocks off a sample: each step takes away the answer that is largest in one quantity, and that quantity's limit is
its value. After m steps the share of all answers beyond any limit has the distribution Beta(m, n - m + 1), whatever the
quantities are distributed like and however they depend on one another (J. W. Tukey, "Nonparametric estimation II:
Statistically equivalent blocks", 1947). So one bound holds for all limits together. With one step it is the rule of
three: 299 answers for 1 %.
"""

from __future__ import annotations

import math
from typing import Final

CONFIDENCE: Final = 0.95
"""One-sided."""

MOST_NEEDED: Final = 100_000_000
"""Answers beyond which nobody looks for more."""


def most_blocks(answers: int, rate: float, confidence: float = CONFIDENCE) -> int:
    """Return how many blocks may be cut off a sample so that the share beyond the limits is at most `rate`.

    :param answers: in the sample.
    :param rate: from 0 to 1.
    :param confidence: how sure the bound is.
    :returns: 0 if not even one.
    """
    # P(Beta(m, n - m + 1) <= rate) = P(Binomial(n, rate) >= m)
    if not 0 < rate < 1 or answers < 1:
        return 0
    below, blocks = 0.0, 0
    log = answers * math.log1p(-rate)
    step = math.log(rate) - math.log1p(-rate)
    while blocks <= answers:
        below += math.exp(log)
        if below > 1 - confidence:
            return blocks
        log += math.log(answers - blocks) - math.log(blocks + 1) + step if blocks < answers else -math.inf
        blocks += 1
    return answers


def needed(blocks: int, rate: float, confidence: float = CONFIDENCE) -> int:
    """Return the smallest sample from which so many blocks may be cut.

    :param blocks: from 1.
    :param rate: from 0 to 1, both excluded.
    :param confidence: how sure the bound is.
    """
    low, high = 0, 1
    while most_blocks(high, rate, confidence) < blocks and high < MOST_NEEDED:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if most_blocks(middle, rate, confidence) >= blocks else (middle, high)
    return high


def supported_rate(answers: int, blocks: int, confidence: float = CONFIDENCE) -> float:
    """Return the least rate for which a sample lets so many blocks be cut; 1 if there is none.

    :param answers: in the sample.
    :param blocks: from 1.
    :param confidence: how sure the bound is.
    """
    if answers < blocks:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if most_blocks(answers, middle, confidence) >= blocks else (middle, high)
    return high
