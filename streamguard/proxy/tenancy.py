"""What calls of different keys must not share: a provider's refusal of one key says nothing about another's.

In charge of keeping cool-downs and retry buckets apart where clients bring their own keys. With one key for all, the
proxy's own, all share them: the provider counts them together.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from streamguard.engine.pacing.local import Pacer
from streamguard.engine.runtime import Runtime
from streamguard.pace.spec import PaceSpec
from streamguard.proxy.headers import CREDENTIALS
from streamguard.retry.breaker import Breaker, BreakerSpec
from streamguard.retry.cooldown import Cooldown
from streamguard.retry.quota import Quota, RetryQuota

MOST_KEYS: Final = 1024
"""Keys whose retry buckets are kept; the one that asked last longest ago goes first."""

KEY: Final[ContextVar[str | None]] = ContextVar("streamguard_proxy_key", default=None)
"""The fingerprint of the key that the running request brought; `None` for the proxy's own."""


def fingerprint(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What stands for a request's credentials, and tells nobody what they are."""
    digest = hashlib.sha256()
    for name, value in headers:
        if name in CREDENTIALS:
            digest.update(name + b"\0" + value + b"\0")
    return digest.hexdigest()[:16]


class KeyedRuntime(Runtime):
    """A runtime whose calls share by the key they use: see `KEY`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._by_key: OrderedDict[tuple[str, Quota], RetryQuota] = OrderedDict()

    def cooldown(self, model: str | None, base_url: str | None = None) -> Cooldown:
        """The cool-down of all calls that ask this model with the running request's key."""
        return super().cooldown(model, KEY.get() or base_url)

    def breaker(
        self, spec: BreakerSpec, model: str | None, base_url: str | None = None, *, pace: PaceSpec | None = None
    ) -> Breaker:
        """The breaker of all calls that ask this model with the running request's key: nobody breaks it for others."""
        return super().breaker(spec, model, KEY.get() or base_url, pace=pace)

    def pacer(self, spec: PaceSpec, model: str | None, base_url: str | None = None) -> Pacer:
        """The pace of all calls that ask this model with the running request's key: limits belong to its account."""
        return super().pacer(spec, model, KEY.get() or base_url)

    def quota(self, spec: Quota) -> RetryQuota:
        """The retry quota of all calls with that key whose policies ask for one like this."""
        key = KEY.get()
        if key is None:
            return super().quota(spec)
        found = self._by_key.pop((key, spec), None) or RetryQuota(spec)
        self._by_key[key, spec] = found
        if len(self._by_key) > MOST_KEYS:
            self._by_key.popitem(last=False)
        return found
