"""The beginning that a job's requests share, and what caching it would save. Pure.

In charge of finding the prefix, in the order in which a provider reads a request (tools, system, messages), and of the
figures. Caching needs a `cache_control` in the request; a job whose rows share a long prefix without one pays for it
again and again, in money and in the input limit. (Anthropic, "Prompt caching": a write costs 1.25 times the input, a
read a tenth; reads do not count against the input limit; the minimum is 512 to 4,096 tokens by model.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from streamguard.pricing.price import Price
from streamguard.pricing.tokens import TokenScale, weigh
from streamguard.request import encoded

LONG_ENOUGH: Final = 1024
"""Tokens of a prefix that most models cache."""

WRITE: Final = 1.25
READ: Final = 0.1
"""What a cached prefix costs, of its input price, when it is written and when it is read."""


class PrefixHint(msgspec.Struct, frozen=True, kw_only=True):
    """What rows share and nobody caches."""

    model: str
    rows: int
    tokens: int
    """≈ Of the shared prefix."""
    share: float
    """≈ Of all input tokens of these rows."""
    saves_usd: float | None
    """≈ By caching it; `None` without a price."""

    @property
    def text(self) -> str:
        """One line for people."""
        money = "" if self.saves_usd is None else f", ≈ ${self.saves_usd:,.4f}"
        return (
            f"{self.rows:,} rows share their first ≈ {self.tokens:,} input tokens, {self.share:.0%} of all input, and "
            f"no cache_control marks their end. Caching saves ≈ {self.saved:.0%} of the input's cost{money}; what is "
            "read from a cache does not count against the input limit. Write what rows share as the template's system "
            "text, with cache: true, or put a cache_control behind it"
        )

    @property
    def saved(self) -> float:
        """≈ The share of the input's cost that caching saves."""
        cached = (WRITE + READ * (self.rows - 1)) / self.rows
        return self.share * (1 - cached)


class _Found(msgspec.Struct):
    prefix: str
    rows: int = 0
    weight: float = 0.0
    marked: bool = False


class PrefixFinder:
    """Takes the requests of a job, one by one, in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[str, _Found] = {}

    def take(self, params: Mapping[str, Any]) -> None:
        """Take one row's request."""
        text = _in_order(params)
        found = self._found.setdefault(str(params.get("model")), _Found(text))
        found.rows += 1
        found.weight += weigh(text)
        found.marked = found.marked or '"cache_control"' in text
        found.prefix = _common(found.prefix, text)

    def hint(self, price: Mapping[str, Price | None] | None = None) -> PrefixHint | None:
        """Return what is worth saying: of the model with the most rows; `None` if nothing is.

        :param price: of each model, as far as it is known.
        """
        scale = TokenScale().mid
        for model, found in sorted(self._found.items(), key=lambda one: -one[1].rows):
            tokens = round(weigh(found.prefix) * scale)
            if found.marked or found.rows < 2 or tokens < LONG_ENOUGH:
                continue
            known = (price or {}).get(model)
            spared = tokens * (found.rows - WRITE - READ * (found.rows - 1))
            return PrefixHint(
                model=model,
                rows=found.rows,
                tokens=tokens,
                share=min(1.0, tokens * found.rows / (found.weight * scale)),
                saves_usd=None if known is None else float(known.input) * spared / 1e6,
            )
        return None


def _common(one: str, other: str) -> str:
    """What both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return one[:low]


def _in_order(params: Mapping[str, Any]) -> str:
    """A request's input as text, in the order in which a cache sees it."""
    parts = [encoded(params[name]).decode() for name in ("tools", "system", "messages") if name in params]
    return "".join(parts)
