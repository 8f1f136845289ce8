"""A quota of tokens for retries, shared by the calls of a runtime: a whole outage costs little more than its calls.

Pure state; the engine asks it. It knows no reasons beyond which of them speak of an outage.

Each retry after a failure of the provider or the way to it takes one token; when none is left, calls give up at once.
A retry that succeeds gives its token back, and every call puts in `refill` of one, up to `size`. So without an outage
the quota is full whatever share of attempts fails once, and in a total outage `n` calls send at most
`(1 + refill) * n + size` requests, in place of `attempts * n`.

The form is that of the AWS SDKs ("standard" retry mode: 500 tokens, 5 a retry, so 100 retries; a retry that succeeds
gives its tokens back) with gRPC's refill (`retryThrottling.tokenRatio`, commonly 0.1). Trips on content take no
token: they say nothing of an outage, and `retry.attempts` and budgets bound them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from streamguard.guards.base import Spec

OUTAGE: Final = ("provider.*", "transport.*", "timeout.*", "source.error")
"""Reasons that may mean that everybody fails."""


class Quota(Spec):
    """How many retries an outage may cost."""

    size: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Tokens in a full quota: retries without any success in between."""
    refill: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """Tokens that each call adds."""


class RetryQuota:
    """The quota at work."""

    def __init__(self, spec: Quota) -> None:
        self.spec = spec
        self.tokens = float(spec.size)
        """What is left; a retry needs 1."""

    def begin(self) -> None:
        """A call begins."""
        self.tokens = min(self.spec.size, self.tokens + self.spec.refill)

    def take(self) -> None:
        """A retry after an outage's reason is on its way."""
        self.tokens -= 1

    def give_back(self) -> None:
        """Such a retry was answered, or was not sent after all."""
        self.tokens = min(self.spec.size, self.tokens + 1)


def is_outage(reason: str) -> bool:
    """Whether retries for this reason take a token."""
    return any(fnmatchcase(reason, pattern) for pattern in OUTAGE)
