"""A provider's rate limits, as Anthropic documents them: token buckets for requests, input and output tokens.

In charge of admission alone; time is an argument, so that the same limits stand in front of a simulated provider and of
a real socket. Requests and input are taken at admission, output while it is produced. What is left is stated with each
answer, of the admission, and token counts are rounded as the provider rounds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from streamguard.pace.limits import Limit, LimitName, Limits

DEFAULT: Final[Mapping[LimitName, int]] = {"requests": 1000, "input_tokens": 2_000_000, "output_tokens": 400_000}
"""The smallest account's limits, a minute (Anthropic, "Rate limits", 2026)."""

ROUNDED: Final = 1000
"""Token counts are stated in thousands."""


class Admission(msgspec.Struct, frozen=True):
    """The answer to a request."""

    retry_after: float | None
    """Seconds to wait, if it is refused; `None` for an admitted request."""
    limits: Limits
    """What the response states."""

    @property
    def headers(self) -> dict[str, str]:
        """The same as response headers."""
        said: dict[str, str] = {}
        for name, limit in self.limits:
            stem = f"anthropic-ratelimit-{name.replace('_', '-')}"
            said |= {f"{stem}-limit": str(limit.per_minute), f"{stem}-remaining": str(limit.left)}
        return said if self.retry_after is None else {**said, "retry-after": f"{self.retry_after:g}"}


class _Bucket:
    def __init__(self, per_minute: float, holds: float) -> None:
        self.per_minute, self.holds = float(per_minute), holds
        self.level = self.depth
        self.draining = 0.0

    @property
    def depth(self) -> float:
        return self.per_minute / 60 * self.holds

    def pass_time(self, seconds: float) -> None:
        self.level = min(self.depth, self.level + (self.per_minute / 60 - self.draining) * seconds)

    def wait_for(self, units: float) -> float:
        return (units - self.level) / (self.per_minute / 60)


class RateLimits:
    """The limits of one account.

    :param per_minute: of each limit.
    :param holds: seconds of refill that a bucket holds: 60 by default; less where a provider enforces seconds.
    :param reserves: whether `max_tokens` is taken at admission and corrected at the end, as OpenAI does.
    :param before: called with the limits and the time before each admission, to change things meanwhile.
    """

    def __init__(
        self,
        per_minute: Mapping[LimitName, int] = DEFAULT,
        *,
        holds: float = 60.0,
        reserves: bool = False,
        before: Callable[[RateLimits, float], None] | None = None,
    ) -> None:
        self.buckets = {name: _Bucket(limit, holds) for name, limit in per_minute.items()}
        self.reserves = reserves
        self.admitted = self.refused = 0
        self._before = before
        self._at = 0.0

    def scale(self, factor: float) -> None:
        """Change every limit, and what its bucket holds."""
        for bucket in self.buckets.values():
            bucket.per_minute *= factor
            bucket.level = min(bucket.level, bucket.depth)

    def admit(self, now: float, *, input_tokens: float, max_tokens: float = 0.0) -> Admission:
        """Take a request, or refuse it. A refused one takes nothing."""
        self._pass_time(now)
        if self._before is not None:
            self._before(self, now)
        takes: dict[LimitName, float] = {"requests": 1.0, "input_tokens": input_tokens}
        takes["output_tokens"] = max_tokens if self.reserves else 0.0
        takes["tokens"] = input_tokens + takes["output_tokens"]
        # Output that is produced later needs only some room now.
        wait = max(bucket.wait_for(takes[name] or 1.0) for name, bucket in self.buckets.items())
        if wait > 0:
            self.refused += 1
            return Admission(float(math.ceil(wait)), self._stated())
        self.admitted += 1
        for name, bucket in self.buckets.items():
            bucket.level -= takes[name]
        return Admission(None, self._stated())

    def produce(self, now: float, tokens_per_second: float) -> None:
        """An answer begins to produce output at some speed; a negative speed is its end."""
        self._pass_time(now)
        if not self.reserves and "output_tokens" in self.buckets:
            self.buckets["output_tokens"].draining += tokens_per_second

    def correct(self, now: float, *, max_tokens: float, output_tokens: float) -> None:
        """Give back what was reserved for output and not produced."""
        self._pass_time(now)
        if self.reserves:
            for name in ("output_tokens", "tokens"):
                if name in self.buckets:
                    bucket = self.buckets[name]
                    bucket.level = min(bucket.depth, bucket.level + max_tokens - output_tokens)

    def _pass_time(self, now: float) -> None:
        passed, self._at = max(0.0, now - self._at), max(now, self._at)
        for bucket in self.buckets.values():
            bucket.pass_time(passed)

    def _stated(self) -> Limits:
        stated: dict[str, Limit] = {}
        for name, bucket in self.buckets.items():
            # Of a minute, whatever is enforced.
            left = max(0.0, bucket.level) * 60 / bucket.holds
            left = math.floor(left) if name == "requests" else round(left / ROUNDED) * ROUNDED
            stated[name] = Limit(round(bucket.per_minute), min(round(bucket.per_minute), int(left)))
        return Limits(**stated)
