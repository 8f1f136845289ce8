"""What calls share: prices and budgets, what was learned about tokens, the retry quota, the cool-down, hooks.

Every door takes `runtime=None`, which means a fresh one. A job, a proxy or a client's middleware holds one for all its
calls. There is no module-level state.
"""

from __future__ import annotations

import math
import random
import secrets
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streamguard.budgets.reservation import Accounts
from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.clock import backend_clock
from streamguard.engine.pacing.line import CommonClock, Lines
from streamguard.engine.pacing.local import LocalPacer, Pacer
from streamguard.engine.pacing.shared import SharedPacer
from streamguard.engine.pacing.shared_breaker import SharedBreaker
from streamguard.engine.snapshot import CallSnapshot
from streamguard.engine.telemetry import Hook, Record, emit
from streamguard.pace.hedge import Hedges, HedgeSpec
from streamguard.pace.pace import PaceView
from streamguard.pace.spec import PaceSpec
from streamguard.pace.stores import open_pace_store
from streamguard.pace.stores.base import PaceStore
from streamguard.pace.warmup import Prefix, WarmUps
from streamguard.policy.model import Policy
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import PriceSpec
from streamguard.pricing.tokens import Calibration
from streamguard.retry.breaker import Breaker, BreakerSpec, BreakerView
from streamguard.retry.cooldown import Cooldown
from streamguard.retry.quota import Quota, RetryQuota

MOST_KEPT = 512
"""Cool-downs and price books that a runtime keeps."""


class RunningCall(Protocol):
    """A call that runs, as a live view or an operator sees it."""

    id: str
    policy: Policy
    running: RunningAttempt | None
    """The attempt that is open, if one is: whoever keeps it can read its transcript after its end."""

    def snapshot(self) -> CallSnapshot:
        """Look at the call as it is at this moment."""

    def interrupt(self, by: str) -> None:
        """End the call as soon as possible."""


class AnswerLengths:
    """How long completed answers were, by model: what an aborted one would probably have cost. Bounded memory."""

    def __init__(self, window: int = 64, models: int = 64) -> None:
        self._window, self._models = window, models
        self._lengths: dict[str, deque[int]] = {}

    def observe(self, model: str, output_tokens: int) -> None:
        """A completed answer's exact output tokens."""
        if model not in self._lengths and len(self._lengths) >= self._models:
            self._lengths.pop(next(iter(self._lengths)))
        self._lengths.setdefault(model, deque(maxlen=self._window)).append(output_tokens)

    def expected(self, model: str | None) -> int | None:
        """The median length of the last answers; `None` if none completed yet."""
        lengths = self._lengths.get(model or "")
        return None if not lengths else round(statistics.median(lengths))

    def upper(self, model: str | None) -> int | None:
        """≈ More than that an answer is hardly ever long: twice the longest of the last; `None` before 16 completed."""
        lengths = self._lengths.get(model or "")
        return None if not lengths or len(lengths) < 16 else 2 * max(lengths)


class Runtime:
    """Shared by any number of concurrent calls on one event loop.

    ```python
    runtime = streamguard.Runtime()
    outcome = await streamguard.run(source, policy=policy, runtime=runtime)
    ```

    :param calibration: tokens per weight, learned per model.
    :param accounts: the ledgers of the policies' budgets, each opened when it is first needed.
    :param job: the job's name, which budgets `per: job` are shared by.
    :param hooks: called with every telemetry record.
    :param jitter: returns a random number from [0, 1).
    """

    def __init__(
        self,
        *,
        calibration: Calibration | None = None,
        accounts: Accounts | None = None,
        job: str | None = None,
        hooks: Sequence[Hook] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.calibration = calibration or Calibration()
        self.accounts = accounts or Accounts()
        self.job = job
        self.lengths = AnswerLengths()
        self.hooks = tuple(hooks)
        self.jitter = jitter
        self.calls: dict[str, RunningCall] = {}
        """The calls that run, by id: to look at them, or to interrupt one."""
        self.paused: str | None = None
        """Who paused admission, if admission is paused; see `pause`."""
        self._pricebooks: dict[Mapping[str, PriceSpec], PriceBook] = {}
        self._quotas: dict[Quota, RetryQuota] = {}
        self._cooldowns: dict[tuple[str | None, str | None], Cooldown] = {}
        self._pacers: dict[tuple[PaceSpec, str, str | None], Pacer] = {}
        self.common_clock = CommonClock()
        """Where moments of all event loops are brought to, for what breakers know."""
        self.warm_ups = WarmUps()
        """What is known of the prefixes that the rows of a job share."""
        self.warming = Lines()
        """Where rows wait for the row that writes their prefix."""
        self._breakers: dict[tuple[BreakerSpec, str | None, str | None], Breaker] = {}
        self._hedges: dict[tuple[HedgeSpec, str | None, str | None], Hedges] = {}
        self._pace_stores: dict[str, PaceStore] = {}

    def pause(self, by: str) -> None:
        """Send nothing new: attempts that would begin wait, within their own deadlines, until `resume()`.

        :param by: who pauses; goes into the log.
        """
        self.paused = by

    def resume(self) -> None:
        """Go on after `pause`."""
        self.paused = None

    def pricebook(self, own: Mapping[str, PriceSpec]) -> PriceBook:
        """Return prices: a policy's own, then the shipped snapshot.

        :param own: the policy's `prices`.
        """
        book = self._pricebooks.get(own)
        if book is None:
            if len(self._pricebooks) >= MOST_KEPT:
                self._pricebooks.pop(next(iter(self._pricebooks)))
            book = self._pricebooks[own] = PriceBook(own)
        return book

    def quota(self, spec: Quota) -> RetryQuota:
        """Return the retry quota of all calls whose policies ask for one like this.

        :param spec: the policy's `retry.quota`; `None` for no limit.
        """
        if spec not in self._quotas:
            self._quotas[spec] = RetryQuota(spec)
        return self._quotas[spec]

    def cooldown(self, model: str | None, base_url: str | None = None) -> Cooldown:
        """Return the cool-down of all calls that ask this model, at the source's own endpoint or at another.

        The `MOST_KEPT` that were asked for last are kept: names of models come from callers, any number of them.

        :param model: the model's name.
        :param base_url: the other endpoint that a rule names; `None` for the source's own.
        """
        key = (model, base_url)
        cooldown = self._cooldowns.pop(key, None) or Cooldown()
        if len(self._cooldowns) >= MOST_KEPT:
            self._cooldowns.pop(next(iter(self._cooldowns)), None)
        self._cooldowns[key] = cooldown
        return cooldown

    def pacer(self, spec: PaceSpec, model: str | None, base_url: str | None = None) -> Pacer:
        """Return what gives turns to all calls that share a limit: those of one account, endpoint and pool of models.

        The `MOST_KEPT` that were asked for last are kept, as cool-downs are.

        :param spec: the policy's `pace`.
        :param model: the model's name.
        :param base_url: the other endpoint that a rule names; `None` for the source's own.
        :raises PaceError: the store of a shared pace cannot be used as the policy names it.
        """
        key = (spec, spec.pool(model), base_url)
        pacer = self._pacers.pop(key, None) or self._new_pacer(*key)
        if len(self._pacers) >= MOST_KEPT:
            self._pacers.pop(next(iter(self._pacers)), None)
        self._pacers[key] = pacer
        return pacer

    def hedges(self, spec: HedgeSpec | None, model: str | None, base_url: str | None = None) -> Hedges | None:
        """Return what calls know of first tokens that ask this model, at the source's own endpoint or at another.

        The `MOST_KEPT` that were asked for last are kept, as cool-downs are.

        :param spec: `None` for no second requests, and nothing to know.
        :param model: the model that calls ask for.
        :param base_url: another endpoint than the source's own; `None` for its own.
        """
        if spec is None:
            return None
        key = (spec, model, base_url)
        hedges = self._hedges.pop(key, None) or Hedges(spec)
        if len(self._hedges) >= MOST_KEPT:
            self._hedges.pop(next(iter(self._hedges)), None)
        self._hedges[key] = hedges
        return hedges

    def breaker(
        self, spec: BreakerSpec, model: str | None, base_url: str | None = None, *, pace: PaceSpec | None = None
    ) -> Breaker:
        """Return the breaker of all calls that ask this model, at the source's own endpoint or at another.

        The `MOST_KEPT` that were asked for last are kept, as cool-downs are.

        :param spec: the policy's `breaker`.
        :param model: the model's name.
        :param base_url: the other endpoint that a rule names; `None` for the source's own.
        :param pace: the policy's `pace`: where it is shared, the breaker is shared as well.
        :raises PaceError: the store of a shared pace cannot be used as the policy names it.
        """
        key = (spec, model, base_url)
        breaker = self._breakers.pop(key, None)
        if breaker is None and pace is not None and pace.shared is not None:
            name = f"breaker/{pace.account}/{base_url or ''}/{model or ''}"
            breaker = SharedBreaker(spec, self._pace_store(pace.shared), name)
        breaker = breaker or Breaker(spec)
        if len(self._breakers) >= MOST_KEPT:
            self._breakers.pop(next(iter(self._breakers)), None)
        self._breakers[key] = breaker
        return breaker

    def row_waits(self, shared: Sequence[Prefix]) -> bool:
        """Return whether a row with these prefixes would wait for another row; if not, count it as about to go.

        :param shared: what the row marks with `cache_control`.
        """
        return self.warm_ups.expected(shared, self.common_clock.moment(backend_clock()()))

    def breaker_states(self) -> dict[str, int]:
        """Return how many breakers are closed, and how many are not: what those ask is down."""
        is_open = sum(not breaker.closed for breaker in list(self._breakers.values()))
        return {"closed": len(self._breakers) - is_open, "open": is_open}

    def down(self, now: float) -> list[BreakerView]:
        """Return what is down of that which had answered before, longest first.

        :param now: on the running backend's clock, in seconds.
        """
        at = self.common_clock.moment(now)
        found = [
            BreakerView(
                model=model,
                base_url=base_url,
                reason=breaker.state.reason,
                seconds=at - breaker.state.opened_at,
                next_look=breaker.wait(at),
                looking=breaker.looking(at),
                waiting=breaker.waiting,
            )
            for (_, model, base_url), breaker in list(self._breakers.items())
            if breaker.state.alive and not breaker.closed
        ]
        return sorted(found, key=lambda view: -view.seconds)

    def _new_pacer(self, spec: PaceSpec, pool: str, base_url: str | None) -> Pacer:
        if spec.shared is None:
            return LocalPacer(spec.knobs())
        return SharedPacer(self._pace_store(spec.shared), f"{spec.account}/{base_url or ''}/{pool}", spec)

    def _pace_store(self, address: str) -> PaceStore:
        if address not in self._pace_stores:
            self._pace_stores[address] = open_pace_store(address)
        return self._pace_stores[address]

    def paces(self, now: float) -> dict[str, PaceView]:
        """Return what each pace comes to, by its pool of models.

        :param now: on the running backend's clock, in seconds.
        """
        return {pool: pacer.view(now) for (_, pool, _), pacer in self._pacers.items()}

    def cooling(self, now: float) -> float:
        """Return the seconds that the longest of all cool-downs still takes; 0 without one.

        :param now: on the running backend's clock, in seconds.
        """
        return max((cooldown.left(now) for cooldown in self._cooldowns.values()), default=0.0)

    def emit(self, record: Record) -> None:
        """Hand a record to the hooks.

        :param record: what happened, for every hook.
        """
        if self.hooks:
            emit(self.hooks, record)

    async def aclose(self, *, until: float = math.inf) -> None:
        """Let go of the ledgers; of those that hang after `until` (on the running backend's clock) without waiting."""
        for pacer in list(self._pacers.values()):
            await pacer.flush(backend_clock()())
        for store in self._pace_stores.values():
            store.close()
        self._pace_stores.clear()
        self._pacers.clear()
        await self.accounts.aclose(until=until)

    @staticmethod
    def call_id() -> str:
        """Return a new id for a call."""
        return secrets.token_hex(6)
