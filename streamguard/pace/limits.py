"""What a provider says of its rate limits: how much a minute, and how much is left of it. Plain data.

In charge of the words alone. Adapters make them of response headers; the pace is steered by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

LimitName = Literal["requests", "input_tokens", "output_tokens", "tokens"]
"""What is limited. `tokens` is input and output together, where a provider has only one limit for both."""

NAMES: Final[tuple[LimitName, ...]] = ("requests", "input_tokens", "output_tokens", "tokens")
"""Every limit, in the order in which a pace keeps them."""

WORDS: Final = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "tokens": "tokens",
}
"""The same for people."""


class Limit(msgspec.Struct, frozen=True):
    """One limit, as an answer stated it."""

    per_minute: int
    """Units a minute, from 1."""
    left: int
    """Units that could still be used at that moment, from 0 to `per_minute`."""
    resets_in: float | None = None
    """Seconds until all of it is left again, by the provider's own word; `None` where it did not say."""

    @property
    def share_left(self) -> float:
        """The share of the limit that is left, from 0 to 1."""
        return self.left / self.per_minute


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every limit that an answer stated; `None` for those that it did not."""

    requests: Limit | None = None
    input_tokens: Limit | None = None
    """Of input that is not read from a cache, with Anthropic's models."""
    output_tokens: Limit | None = None
    tokens: Limit | None = None

    def __iter__(self) -> Iterator[tuple[LimitName, Limit]]:
        """The limits that were stated, each with its name."""
        for name in NAMES:
            limit: Limit | None = getattr(self, name)
            if limit is not None:
                yield name, limit
