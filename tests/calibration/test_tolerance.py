"""How many blocks may be cut: the rule of three, the exact binomial, and what it promises, by simulation."""

from __future__ import annotations

import math
import random

import pytest

from streamguard.calibration import most_blocks, needed, supported_rate


def exactly(answers: int, rate: float, confidence: float) -> int:
    """The same by whole binomial sums."""
    blocks, below = 0, 0.0
    while blocks < answers:
        below += math.comb(answers, blocks) * rate**blocks * (1 - rate) ** (answers - blocks)
        if below > 1 - confidence:
            return blocks
        blocks += 1
    return answers


@pytest.mark.parametrize(
    ("blocks", "rate", "answers"), [(1, 0.01, 299), (1, 0.001, 2995), (1, 0.05, 59), (4, 0.01, 773), (1, 0.5, 5)]
)
def test_the_smallest_samples_are_the_known_ones(blocks, rate, answers) -> None:
    """299 answers for a p99: the rule of three, and its like for more limits."""
    assert needed(blocks, rate) == answers
    assert (most_blocks(answers - 1, rate), most_blocks(answers, rate)) == (blocks - 1, blocks)


@pytest.mark.parametrize("answers", [1, 2, 10, 59, 300, 900])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_it_is_the_binomial_tail(answers, rate, confidence) -> None:
    """To the block."""
    assert most_blocks(answers, rate, confidence) == exactly(answers, rate, confidence)


@pytest.mark.parametrize(("answers", "blocks"), [(14, 1), (200, 6), (3, 5)])
def test_the_rate_that_a_sample_supports(answers, blocks) -> None:
    """At it so many blocks may be cut, and below it not."""
    rate = supported_rate(answers, blocks)
    if answers < blocks:
        assert rate == 1.0
        return
    assert most_blocks(answers, rate + 1e-9) >= blocks > most_blocks(answers, rate - 1e-6)


@pytest.mark.parametrize(("answers", "rate"), [(0, 0.1), (10, 0.0), (10, 1.0), (-1, 0.5)])
def test_nothing_supports_nothing(answers, rate) -> None:
    """No answers, or a rate that is none."""
    assert most_blocks(answers, rate) == 0


def test_the_promise_holds_for_several_quantities_that_depend_on_each_other() -> None:
    """Of 400 samples at most 5 % miss more than was asked, and a bit for chance; and it is not far from that."""
    dice = random.Random(7)
    answers, rate, missed = 500, 0.02, 0
    for _ in range(400):
        # Uniform quantities, the second the reverse of the first: any answer beyond either limit is ended.
        first = sorted(dice.random() for _ in range(answers))
        blocks = most_blocks(answers, rate)
        low, high = blocks // 2, blocks - blocks // 2
        share = first[low - 1] + (1 - first[answers - high])
        missed += share > rate
    assert 2 <= missed <= 33
