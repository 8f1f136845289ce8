"""What a request costs in a Message Batch: half of what it costs by itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from streamguard.engine.runtime import Runtime
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import Price, PriceSpec

SHARE: Final = Decimal("0.5")
"""Of every rate, cache rates included (Anthropic pricing page, "Batch processing", 2026-11). Fees stay whole."""


class BatchPrices(PriceBook):
    """Prices by model, of requests in a batch."""

    def price(
        self,
        model: str | None,
        *,
        speed: str = "standard",
        at: datetime | None = None,
        base_url: str | None = None,
    ) -> Price | None:
        """See `PriceBook.price`; every rate is half."""
        found = super().price(model, speed=speed, at=at, base_url=base_url)
        return (
            None
            if found is None
            else msgspec.structs.replace(found.scaled(SHARE, "half in a batch"), factor=found.factor)
        )


class BatchRuntime(Runtime):
    """A runtime whose prices are those of batches."""

    def pricebook(self, own: Mapping[str, PriceSpec]) -> PriceBook:
        """See `Runtime.pricebook`."""
        if own not in self._pricebooks:
            self._pricebooks[own] = BatchPrices(own)
        return self._pricebooks[own]
