"""Tokens that an attempt or a call used, as an interval, and the units that budgets count in. Plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from streamguard.events import COUNTS, Usage

Unit = Literal["micro_usd", "tokens"]
"""What a limit counts: millionths of a US dollar, or tokens."""


class UsageRange(msgspec.Struct, frozen=True):
    """Tokens of one attempt, or of several: the truth lies between `low` and `high`, field by field.

    In `high`, `None` is no bound: nothing visible bounds the truth. Cache fields are `None` where the provider said
    nothing of a cache. Input before the final count is one bound for all input, cached or not, in the field where it
    is most expensive: `cache_write_tokens` if the request asks for a cache, else `input_tokens`. There the sum of the
    input fields and the cost are bounded, not each field.
    """

    low: Usage
    high: Usage
    exact: bool
    """Whether all of it is the provider's own count."""

    @classmethod
    def nothing(cls) -> UsageRange:
        """Return exactly no tokens: nothing was sent, or nothing is billed."""
        return cls.of(Usage(input_tokens=0, output_tokens=0))

    @classmethod
    def of(cls, usage: Usage) -> UsageRange:
        """Return an exact count.

        :param usage: the provider's final count.
        """
        return cls(low=usage, high=usage, exact=True)

    @classmethod
    def total(cls, ranges: Iterable[UsageRange]) -> UsageRange:
        """Return the sum of several attempts; of none it is nothing.

        :param ranges: the usage of each attempt.
        """
        ranges = tuple(ranges)
        if not ranges:
            return cls.nothing()
        return cls(
            low=_sum([item.low for item in ranges]),
            high=_sum([item.high for item in ranges]),
            exact=all(item.exact for item in ranges),
        )


_BOUNDED = ("input_tokens", "output_tokens")
"""Fields whose `None` means "unknown"; in the others it means that the provider has none to count."""


def _sum(usages: list[Usage]) -> Usage:
    fields: dict[str, Any] = {}
    for name in COUNTS:
        counts = [getattr(usage, name) for usage in usages]
        known = [count for count in counts if count is not None]
        unknown = not known or (name in _BOUNDED and len(known) < len(counts))
        fields[name] = None if unknown else sum(known)
    for name in ("inference_geo", "speed", "service_tier"):
        said = {getattr(usage, name) for usage in usages}
        fields[name] = said.pop() if len(said) == 1 else None
    iterations = tuple(one for usage in usages for one in usage.iterations or ())
    impossible = any(usage.impossible for usage in usages)
    return Usage(**fields, impossible=impossible, iterations=iterations or None)
