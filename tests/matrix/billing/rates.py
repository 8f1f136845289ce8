"""The documented rules of a bill, in a calculation of its own: it shares no code with what it judges.

Sources: Anthropic's pricing, prompt-caching and data-residency pages (2026-11). Amounts are exact fractions of
micro-USD. A rate is USD per million tokens, hence micro-USD per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

GEO = Fraction(11, 10)
"""Inference that is kept in one region."""
FAST = 2
"""`speed: fast`, of models that have it."""
WRITE_5M, WRITE_1H = Fraction(5, 4), Fraction(2)
"""Cache writes, as multiples of the input rate."""
SEARCH = 10_000
"""Micro-USD of one web search."""


class Rates(NamedTuple):
    """USD per million tokens."""

    input: Fraction
    output: Fraction
    read: Fraction


def _rates(given: str, output: str, read: str) -> Rates:
    return Rates(Fraction(given), Fraction(output), Fraction(read))


SHEET = {
    "claude-opus-5-5": _rates("4", "20", "0.2"),
    "claude-haiku-5-5": _rates("0.1", "0.5", "0.01"),
    "claude-opus-5": _rates("5", "25", "0.5"),
    "claude-haiku-4-5": _rates("1", "5", "0.1"),
}
LONG = {"claude-haiku-5-5": (100_000, _rates("0.5", "2.5", "0.05"))}
"""Rates of all tokens of a request whose input is longer than that."""
FAST_MODELS = ("claude-opus-5-5", "claude-opus-5")
THINKERS = ("claude-opus-5-5", "claude-haiku-5-5", "claude-opus-5")
"""Models that think unless the request says `disabled`."""
WINDOWS = {"claude-haiku-4-5": 200_000}
WINDOW = 1_000_000


class Sampling(NamedTuple):
    """The tokens of one sampling."""

    model: str
    plain: int = 0
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 0

    @property
    def whole_input(self) -> int:
        return self.plain + self.read + self.written_5m + self.written_1h

    @property
    def tokens(self) -> int:
        return self.whole_input + self.output


class Owed(NamedTuple):
    """What one request costs."""

    samplings: Sequence[Sampling] = ()
    speed: str = "standard"
    geo: str = "global"
    searches: int = 0

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.samplings)

    @property
    def output(self) -> int:
        return sum(one.output for one in self.samplings)

    @property
    def whole_input(self) -> int:
        return sum(one.whole_input for one in self.samplings)

    @property
    def micro_usd(self) -> Fraction:
        factor = (GEO if self.geo != "global" else 1) * (FAST if self.speed == "fast" else 1)
        return factor * sum((_cost(one) for one in self.samplings), Fraction(0)) + SEARCH * self.searches


NOTHING = Owed()


def _cost(one: Sampling) -> Fraction:
    rates = SHEET[one.model]
    above, long = LONG.get(one.model, (0, rates))
    if above and one.whole_input > above:
        rates = long
    writes = one.written_5m * WRITE_5M + one.written_1h * WRITE_1H
    return rates.input * (one.plain + writes) + rates.read * one.read + rates.output * one.output
