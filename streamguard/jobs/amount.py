"""An amount of rows as a person writes it: a number (`10`) or a share of all (`1%`). The one parser for both."""

from __future__ import annotations

import msgspec


class Amount(msgspec.Struct, frozen=True):
    """So many rows, or so many of a hundred."""

    count: int | None = None
    percent: float | None = None

    def of(self, rows: int) -> int:
        """Return how many of `rows` rows are wanted; at least one."""
        wanted = round(rows * self.percent / 100) if self.percent is not None else self.count or 1
        return min(rows, max(1, wanted))

    def reached(self, failed: int, rows: int) -> bool:
        """Whether `failed` of `rows` rows are as many as this; none never are."""
        if not failed:
            return False
        if self.percent is not None:
            return failed * 100 >= self.percent * rows
        return failed >= (self.count or 1)


def parse_amount(text: str) -> Amount:
    """Parse `10` or `1%`.

    :raises ValueError: it is neither a number from 1 nor a share above 0% and up to 100%.
    """
    number = text.removesuffix("%").strip()
    if text.endswith("%") and number.isascii() and 0 < float(number) <= 100:
        return Amount(percent=float(number))
    if number == text.strip() and number.isascii() and int(number) >= 1:
        return Amount(count=int(number))
    raise ValueError(f"{text!r} is neither a number from 1 nor a share such as 1%")
