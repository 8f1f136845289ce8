"""What tokens cost, in integer micro-USD. Unknown is `None`, never 0."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one model, USD per million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    source: str = "policy"
    """Where the price is from, with its date."""
