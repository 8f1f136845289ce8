"""Budgets: what they are, and what an ended attempt settles at. Pure.

In charge of the spec and of arithmetic: `settle` splits a hold by evidence into what was surely spent and what stays
uncertain. How much to hold is `bound`'s business, where balances live the ledger's, when to reserve the engine's.

A *budget* is a ceiling shared by calls. In a ledger each of its limits is a *scope*: one number in one unit (micro-USD
or tokens), perhaps per window of time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from streamguard.budgets.upper_bound import MAX_AMOUNT, Bound, BudgetMode
from streamguard.errors import ConfigError
from streamguard.events import Usage
from streamguard.guards.base import Spec
from streamguard.pricing.bill import AnswerPrices, all_tokens, bill
from streamguard.pricing.price import Price, Usd, micro_usd, worst_case
from streamguard.usage import Unit

Window = Literal["hour", "day", "month"]

InputBound = Literal["proven", "counted"]
"""What bounds the input of a request: its own text, or the provider's free count of it."""

ABORT_LAG_TOKENS = 256
"""Output tokens that may be generated between our abort and the provider's noticing: one second of a fast model."""

ABSURD = 10
"""Times the hold beyond which a final count is not believed for sure."""

_DAY = 86_400.0
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as a ledger keeps it."""

    key: str
    """Its name in the ledger: the same for everybody who shares the budget."""
    unit: Unit
    cap: int
    """In `unit`, per window."""
    window: Window | None = None
    """`None` for a limit that never starts again. Days and months are UTC."""
    release_after: float | None = None
    """Seconds after which an uncertain amount counts as not spent; `None` for never."""


class Settlement(msgspec.Struct, frozen=True):
    """What becomes of a hold in one scope, in the scope's unit. The rest of the hold is freed."""

    settled: int
    """Surely spent."""
    uncertain: int = 0
    """May have been spent; kept until somebody knows."""


class BudgetSpec(Spec):
    """One entry of a policy's `budgets:`: a ceiling on money, tokens or both.

    ```python
    BudgetSpec(name="nightly", per="job", cost_usd="25.00", ledger="sqlite:run/budget.db")
    ```
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    per: Annotated[str, Field(min_length=1, max_length=200)] = "job"
    """Who shares it: `call` (the attempts of one call), `job`, or a name of your own such as `tenant:acme`, also with
    labels of the call in it: `tenant:{tenant}`."""
    cost_usd: Usd | None = None
    """Most USD, quoted."""
    tokens: Annotated[int, Field(gt=0, le=MAX_AMOUNT)] | None = None
    """Most tokens: input, cache reads and writes, and output together."""
    window: Window | None = None
    """Start again every hour, day or month (UTC, by the ledger's clock). A request counts where it began."""
    mode: BudgetMode = "strict"
    """`strict` is hard: it refuses what has no upper bound. `calibrated` is soft: it reserves an estimate."""
    input_bound: InputBound = "proven"
    """`counted` asks the provider for the input's tokens first (a free request more, before each call) and rests on the
    answer, with a margin of a twentieth. Where there is none, the proven bound is held."""
    ledger: str = "memory:"
    """Where the balance lives: `memory:`, `sqlite:PATH` or `redis://HOST:PORT/DB?ledger=NAME`."""
    abort_stops_billing: bool = False
    """An assumption about the backend: it stops generating, and billing, soon after a disconnect. Then an abort is
    settled at upper estimates of its tokens, and the rest of its hold is freed; else the whole hold stays taken."""
    abort_lag_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = ABORT_LAG_TOKENS
    """How soon: output tokens that may still be generated and billed after our abort."""
    release_uncertain_after: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds after which what stayed uncertain counts as not spent. `None`: never if strict, a day if calibrated."""
    wait: Annotated[float, Field(ge=0, le=_DAY, allow_inf_nan=False)] = 0.0
    """Seconds that a call may queue for room, within its own deadline."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            per: str = "job",
            cost_usd: str | Decimal | None = None,
            tokens: int | None = None,
            window: Window | None = None,
            mode: BudgetMode = "strict",
            input_bound: InputBound = "proven",
            ledger: str = "memory:",
            abort_stops_billing: bool = False,
            abort_lag_tokens: int = ABORT_LAG_TOKENS,
            release_uncertain_after: float | None = None,
            wait: float = 0.0,
        ) -> None: ...

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be letters, digits, '.', '_' and '-': it names the budget in the ledger")
        return name

    @field_validator("ledger")
    @classmethod
    def _known_ledger(cls, ledger: str) -> str:
        scheme, _, rest = ledger.partition(":")
        if scheme not in ("memory", "sqlite", "redis", "rediss", "unix") or (scheme == "sqlite" and not rest):
            raise ValueError("must be memory:, sqlite:PATH or redis://HOST:PORT/DB?ledger=NAME")
        return ledger

    @model_validator(mode="after")
    def _makes_sense(self) -> BudgetSpec:
        if self.cost_usd is None and self.tokens is None:
            raise ValueError(f"budget {self.name!r} limits nothing: give cost_usd, tokens or both")
        if self.cost_usd is not None and not 0 < micro_usd(self.cost_usd) <= MAX_AMOUNT:
            raise ValueError(f"cost_usd must be from 0.000001 to {MAX_AMOUNT // 1_000_000}, not {self.cost_usd}")
        if self.mode == "strict" and self.release_uncertain_after is not None:
            raise ValueError("a strict budget never frees what is uncertain: reconcile it, or say mode: calibrated")
        if self.per == "call" and (self.ledger != "memory:" or self.window is not None):
            raise ValueError("per: call is the budget of one call in one process: leave ledger and window out")
        return self

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units it limits."""
        units: tuple[tuple[Unit, object], ...] = (("micro_usd", self.cost_usd), ("tokens", self.tokens))
        return tuple(unit for unit, limit in units if limit is not None)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What its promise rests on, in sentences, to be shown to its users."""
        said = []
        if self.mode == "calibrated":
            said.append(f"budget {self.name!r} is calibrated, hence soft: it reserves estimates and may be exceeded")
        if self.input_bound == "counted":
            said.append(
                f"budget {self.name!r} rests on the provider's own count of the input before each request, with a "
                "margin of a twentieth; where the provider does not count, the proven bound is held (input_bound)"
            )
        if self.abort_stops_billing:
            said.append(
                f"budget {self.name!r} assumes that the backend delivers what it makes at once, makes no more than "
                f"400 tokens a second, bills at most {self.abort_lag_tokens} output tokens beyond an abort, and counts "
                "tokens no dearer than our upper estimates (abort_stops_billing)"
            )
        return tuple(said)

    def scopes(self, *, job: str | None = None, labels: Mapping[str, Any] | None = None) -> tuple[Scope, ...]:
        """Return the limits as a ledger keeps them.

        :param job: the job's name, for `per: job`; none means that all who use this budget's name share it.
        :param labels: the call's labels, for names in braces.
        :raises ValueError: a label in `per` that the call does not have.
        """
        release = self.release_uncertain_after
        if self.mode == "calibrated" and release is None:
            release = _DAY
        key = f"{self.name}/{self._shared_by(job, labels or {})}"
        limits: dict[Unit, int] = {}
        if self.cost_usd is not None:
            limits["micro_usd"] = micro_usd(self.cost_usd)
        if self.tokens is not None:
            limits["tokens"] = self.tokens
        return tuple(
            Scope(key=f"{key}/{unit}", unit=unit, cap=cap, window=self.window, release_after=release)
            for unit, cap in limits.items()
        )

    def _shared_by(self, job: str | None, labels: Mapping[str, Any]) -> str:
        def label(match: re.Match[str]) -> str:
            name = match[1]
            value = plain_key(str(labels.get(name) or ""))
            if not value:
                raise ValueError(f"budget {self.name!r} is per {self.per!r}, but the call has no label {name!r}")
            return value

        if self.per == "job":
            return f"job:{plain_key(job)}" if job else "job"
        return plain_key(_PLACEHOLDER.sub(label, self.per))


def plain_key(name: str) -> str:
    """Return a name as ledgers keep it: characters composed, blanks single and none at the ends.

    :raises ValueError: half an emoji, which no ledger can store.
    """
    try:
        return " ".join(unicodedata.normalize("NFC", name).encode().decode().split())
    except UnicodeEncodeError as error:
        raise ValueError(f"a budget cannot be named {name!r}: half of a character is no text") from error


def refuse_unshared(budgets: Sequence[BudgetSpec]) -> None:
    """Refuse budgets that calls are to share, and that every call would have for itself.

    :raises ConfigError: says which one, and what to do.
    """
    for spec in budgets:
        if spec.per != "call" and spec.ledger == "memory:":
            raise ConfigError(
                f"budget {spec.name!r} is shared per {spec.per!r} in a ledger in memory, and this call has a runtime "
                "of its own: pass runtime=streamguard.Runtime() to all calls that share it, give it a ledger in a file "
                "(ledger: sqlite:PATH), or say per: call"
            )


class NotBilled(msgspec.Struct, frozen=True):
    """Nothing was sent, or the provider refused before it worked."""


class Billed(msgspec.Struct, frozen=True):
    """The provider's own final count."""

    usage: Usage
    prices: AnswerPrices | None = None
    """The prices of the answer; `None` for the price that the hold was made at."""


class Aborted(msgspec.Struct, frozen=True, kw_only=True):
    """The stream ended before the final count: we aborted it, or the connection broke."""

    output_tokens: int | None = None
    """An upper estimate of what was generated; `None` if it cannot be estimated (hidden thinking)."""
    input_tokens: int | None = None
    """An upper estimate of the whole input; `None` for the bound."""
    cache_writes: bool = True
    """Whether some of that input may be written to a cache."""
    disconnected: bool = True
    """Whether the provider can notice that nobody listens any more."""


class Lost(msgspec.Struct, frozen=True):
    """Nobody knows what became of the attempt."""


Evidence = NotBilled | Billed | Aborted | Lost
"""What is known of an attempt when it is over."""


def settle(
    spec: BudgetSpec, unit: Unit, held: int, evidence: Evidence, bounds: Bound, price: Price | None
) -> Settlement:
    """What a hold of `held` becomes, in `unit`, by the evidence.

    Not billed: nothing. A final count: exactly that, even if it exceeds the hold. An abort under
    `abort_stops_billing`: the upper estimates of input and output, plus the lag, and the rest is freed. Everything
    else keeps its whole hold as uncertain: only evidence reduces it.
    """
    if isinstance(evidence, NotBilled):
        return Settlement(0)
    if isinstance(evidence, Billed):
        usage = evidence.usage
        money = unit == "micro_usd"
        known = AnswerPrices(asked=price) if evidence.prices is None else evidence.prices
        # The request's own price is the one it was held at, whatever day it is by now.
        prices = msgspec.structs.replace(known, asked=price)
        spent = bill(prices, usage) if money else all_tokens(usage)
        if spent is None:
            return Settlement(0, held)
        # A count far beyond what was bounded may be a mistake of its own. It stays correctable: see `reconcile`.
        sure = min(spent, max(ABSURD * held, ABSURD))
        return Settlement(sure, min(spent, MAX_AMOUNT) - sure)
    if (
        isinstance(evidence, Aborted)
        and spec.abort_stops_billing
        and evidence.disconnected
        and evidence.output_tokens is not None
    ):
        output = min(bounds.output_tokens, evidence.output_tokens + spec.abort_lag_tokens)
        estimated = bounds.input_tokens if evidence.input_tokens is None else evidence.input_tokens
        read = min(bounds.input_tokens, estimated)
        if unit == "tokens":
            return Settlement(min(held, read + output))
        if price is not None:
            return Settlement(
                min(held, worst_case(price, read, output, caching="1h" if evidence.cache_writes else "no"))
            )
    return Settlement(0, held)
