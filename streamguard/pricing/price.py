"""What tokens cost, in integer micro-USD. Unknown is `None`, never 0.

In charge of prices as plain values, of pricing a usage exactly and a request at its worst, and of checking the prices
people write themselves. It does not know where prices come from (`pricebook`), budgets or streams.

A rate is USD per million tokens, which is the same number as micro-USD per token: `tokens * rate` is micro-USD already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema, core_schema

from streamguard.events import Usage

MICRO = 1_000_000
"""Micro-USD in one USD; tokens in the unit that rates are given for."""

MOST_USD_PER_MILLION = Decimal(1_000_000)
"""No own price is higher: one USD per token can only be a mistaken unit. (The dearest model listed in 2026-11: 80.)"""

CACHE_WRITE_FACTOR = Decimal("1.25")
CACHE_WRITE_1H_FACTOR = Decimal(2)
"""Cache writes as multiples of the input rate, as Anthropic publishes them (pricing page, "Prompt caching", 2026-11).
They stand in for unknown rates in `worst_case` only, never in `cost`."""

_EXACT = Context(prec=60)
"""Our own: a caller's decimal context may round, and money must not depend on it."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Rates that replace the base rates, for *all* tokens of a request, once its whole input exceeds `above` tokens."""

    above: int
    """Input tokens, cache reads and writes included."""
    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one model, USD per million tokens. A cache rate of `None` is unknown.

    ```python
    Price(input=Decimal("0.5"), output=Decimal("2"), cache_read=Decimal("0.05"))
    ```
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    """Writes that live for five minutes."""
    cache_write_1h: Decimal | None = None
    """Writes that live for one hour."""
    tiers: tuple[Tier, ...] = ()
    """Long-context steps, ascending by `above`."""
    source: str = "policy"
    """Where the price is from."""
    as_of: date | None = None
    """The latest day on which the source is known to have stood for it; `None` if it says none."""
    speed: str = "any"
    """The `speed` of requests it holds for; `any` for a price of your own that says so."""
    inference_geo: str = "any"
    """Where inference may be kept at this price; `any` for everywhere, `global` for where nothing is asked for."""
    search: int | None = None
    """Micro-USD of one web search that the provider runs; `None`: unknown."""
    factor: Decimal | None = None
    """By what factor the rates are higher where inference is kept in one region; `None`: unknown, or in the rates."""

    def at(self, input_tokens: int) -> Price | Tier:
        """Return the rates of a request whose whole input is `input_tokens`, cache reads and writes included."""
        rates: Price | Tier = self
        for tier in self.tiers:
            if input_tokens > tier.above:
                rates = tier
        return rates

    def up_to(self, input_tokens: int) -> Iterator[Price | Tier]:
        """Return every set of rates that some input of at most `input_tokens` tokens would be charged at."""
        yield self
        for tier in self.tiers:
            if input_tokens > tier.above:
                yield tier

    def scaled(self, factor: Decimal, why: str) -> Price:
        """Return the price with all rates times `factor`, and with `why` added to the source."""

        def times(rates: Price | Tier) -> dict[str, Decimal]:
            known = {name: getattr(rates, name) for name in RATES}
            return {name: _EXACT.multiply(rate, factor) for name, rate in known.items() if rate is not None}

        tiers = tuple(msgspec.structs.replace(tier, **times(tier)) for tier in self.tiers)
        return msgspec.structs.replace(self, **times(self), tiers=tiers, source=f"{self.source}, {why}", factor=None)


RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
"""The fields that are rates."""


def cost(price: Price | None, usage: Usage, *, least: bool = False) -> int | None:
    """What `usage` costs, in micro-USD, rounded up; exact but for what is said here.

    `None` if it cannot be known: no price, or none for the speed and region that the answer names, no input or output
    count, a cache count without a rate, a negative count. A
    cache count of `None` means the provider has none to bill. Cache writes of unsaid lifetime are priced at the dearer
    of the two rates, so that a budget never undercounts. Fees that are not per token (web searches) are not in it.

    :param least: whether the least is asked for: then cache writes of unsaid lifetime are priced at the cheaper rate.
    """
    if price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    price = rates_of(price, usage)
    if price is None:
        return None
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    hour = usage.cache_write_1h_tokens
    plain, output = usage.input_tokens, usage.output_tokens
    if plain < 0 or output < 0 or read < 0 or written < 0 or (hour is not None and not 0 <= hour <= written):
        return None
    rates = price.at(plain + read + written) if price.tiers else price
    total = _EXACT.add(_EXACT.multiply(rates.input, plain), _EXACT.multiply(rates.output, output))
    if read:
        if rates.cache_read is None:
            return None
        total = _EXACT.add(total, _EXACT.multiply(rates.cache_read, read))
    if written:
        for tokens, rate in _writes(rates, written, hour, least=least):
            if tokens and rate is None:
                return None
            total = _EXACT.add(total, _EXACT.multiply(rate or Decimal(0), tokens))
    return _ceil(total)


def rates_of(price: Price, usage: Usage) -> Price | None:
    """Return the price at which an answer was made, by its own word on speed and region; `None` if that is unknown."""
    if price.speed != "any" and usage.speed not in (None, "", price.speed):
        return None
    geo = usage.inference_geo
    if geo is None or geo in GLOBAL or price.inference_geo in ("any", geo):
        return msgspec.structs.replace(price, factor=None)
    return None if price.factor is None else price.scaled(price.factor, f"times {price.factor} for {geo!r}")


def _writes(
    rates: Price | Tier, written: int, hour: int | None, *, least: bool
) -> tuple[tuple[int, Decimal | None], ...]:
    """Cache writes by rate."""
    short, long = rates.cache_write, rates.cache_write_1h
    if hour is not None:
        return ((written - hour, short), (hour, long))
    known = [rate for rate in (short, long) if rate is not None]
    return ((written, (min if least else max)(known, default=None)),)


Lifetime = Literal["no", "5m", "1h"]
"""How long a request asks that something be cached."""

GLOBAL = ("", "global", "not_available")
"""What `inference_geo` says where inference is kept nowhere (`not_available`: older models)."""


def worst_case(price: Price, input_upper: int, output_upper: int, *, caching: Lifetime = "1h") -> int:
    """The most that a request can cost, in micro-USD, rounded up, if its whole input is at most `input_upper` tokens.

    Every input token is priced at the dearest of the input, cache-read and cache-write rates (an unknown write rate by
    the published factors), in the dearest tier the input can reach.

    :param caching: the longest time for which the request asks that something be cached. Dearer writes are left out:
        right only where nothing between here and the model asks for them.
    :raises ValueError: a negative bound.
    """
    if input_upper < 0 or output_upper < 0:
        raise ValueError(f"bounds must not be negative: input {input_upper}, output {output_upper}")
    if price.factor is not None:
        price = price.scaled(price.factor, "anywhere")
    return max(
        _ceil(
            _EXACT.add(
                _EXACT.multiply(_dearest_input(rates, caching), input_upper),
                _EXACT.multiply(rates.output, output_upper),
            )
        )
        for rates in price.up_to(input_upper)
    )


def affordable_output(price: Price, micro_usd: int, input_upper: int, *, caching: Lifetime = "1h") -> int:
    """The most output tokens such that `worst_case` stays within `micro_usd`; 0 if the input alone is too much.

    A model whose output is free can afford any number: 2**63 - 1.
    """
    most = 2**63 - 1
    if price.factor is not None:
        price = price.scaled(price.factor, "anywhere")
    for rates in price.up_to(input_upper):
        left = _EXACT.subtract(Decimal(micro_usd), _EXACT.multiply(_dearest_input(rates, caching), input_upper))
        if left < 0:
            return 0
        if rates.output:
            most = min(most, int(_EXACT.divide(left, rates.output).to_integral_value(ROUND_FLOOR, _EXACT)))
    return most


def _dearest_input(rates: Price | Tier, caching: Lifetime) -> Decimal:
    candidates = [rates.input, rates.cache_read or rates.input]
    short, long = rates.cache_write, rates.cache_write_1h
    if caching != "no":
        candidates.append(_EXACT.multiply(rates.input, CACHE_WRITE_FACTOR) if short is None else short)
    if caching == "1h":
        candidates.append(_EXACT.multiply(rates.input, CACHE_WRITE_1H_FACTOR) if long is None else long)
    return max(candidates)


def _ceil(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING, _EXACT))


def micro_usd(usd: Decimal) -> int:
    """A limit in USD as micro-USD, rounded down: a limit is never exceeded by its own rounding."""
    return int(_EXACT.multiply(usd, Decimal(MICRO)).to_integral_value(ROUND_FLOOR, _EXACT))


def usd(micro: int) -> str:
    """Micro-USD for people: `$0.0421`, with at least cents and no needless zeros."""
    whole, part = divmod(abs(micro), MICRO)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${whole}.{digits}"


_PLAIN = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|[+-]?(?:NaN|Infinity)").fullmatch
"""A decimal in ASCII digits, without exponent, blanks or underscores, which is what people mean by an amount. The
words are read, and refused by what they mean."""


def _money(value: Any) -> Decimal:
    """A quoted, positive, finite amount."""
    if type(value) in (bool, int, float):  # pydantic wants a ValueError
        raise ValueError(f'must be quoted, so that no digit is lost: "{value}"')
    try:
        if not isinstance(value, Decimal) and _PLAIN(value) is None:
            raise ValueError("no plain decimal")
        amount = value if isinstance(value, Decimal) else Decimal(value)
    except (InvalidOperation, AttributeError, TypeError, ValueError):
        raise ValueError(f'must be an amount of USD in quotes, such as "3.00", not {value!r}') from None
    if not amount.is_finite() or amount <= 0:
        raise ValueError(f"must be a positive, finite amount of USD, not {value!r}")
    return amount


def _rate(value: Any) -> Decimal:
    amount = _money(value)
    if amount > MOST_USD_PER_MILLION:
        raise ValueError(f"{value!r} USD per million tokens is more than one USD per token: check the unit")
    return amount


Usd = Annotated[Decimal, BeforeValidator(_money)]
"""An amount of USD in a policy: a quoted decimal, positive and finite."""

Rate = Annotated[Decimal, BeforeValidator(_rate)]
"""USD per million tokens in a policy: a quoted decimal, positive, at most `MOST_USD_PER_MILLION`."""


class _Own(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None
    cache_write_1h: Rate | None = None


class TierSpec(_Own):
    """One long-context step of a price of your own."""

    above: int
    """Input tokens, positive."""


class PriceSpec(_Own):
    """An entry of a policy's `prices:`, such as `{input: "3.00", output: "15.00"}`, in USD per million tokens."""

    tiers: tuple[TierSpec, ...] = ()
    speed: Annotated[str, StringConstraints(min_length=1, max_length=40)] = "standard"
    """The `speed` of requests that it is for; `any`, if it holds for all of them."""
    inference_geo: Annotated[str, StringConstraints(min_length=1, max_length=40)] = "global"
    """The region that it is for, as answers name it; `any`, if it holds for all; `global` for none."""
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/]", max_length=400)] | None = None
    """The endpoint that it is for (a region's, a gateway's), as clients name it; `None`: for all of them."""
    source: str = "policy"
    as_of: date | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, data: Any) -> Any:
        """Files have lists and dates in quotes."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("tiers"), list):
            data["tiers"] = tuple(data["tiers"])
        if isinstance(data.get("as_of"), str):
            data["as_of"] = date.fromisoformat(data["as_of"])
        return data

    @model_validator(mode="after")
    def _ascending(self) -> PriceSpec:
        steps = [tier.above for tier in self.tiers]
        if any(step <= 0 for step in steps) or steps != sorted(set(steps)):
            raise ValueError(f"tiers must ascend by `above`, from more than 0; got {steps}")
        return self

    def price(self) -> Price:
        """The same as a `Price`."""
        own = {name: getattr(self, name) for name in RATES}
        tiers = tuple(Tier(above=tier.above, **{name: getattr(tier, name) for name in RATES}) for tier in self.tiers)
        return Price(
            **own,
            tiers=tiers,
            source=self.source,
            as_of=self.as_of,
            speed=self.speed,
            inference_geo=self.inference_geo,
        )


class Prices(Mapping[str, PriceSpec]):
    """Own prices by model: frozen and hashable, so that a policy can be. Equal to any mapping with the same content."""

    __slots__ = ("_own",)

    def __init__(self, own: Mapping[str, PriceSpec] | None = None) -> None:
        self._own = dict(own or {})

    def __getitem__(self, model: str) -> PriceSpec:
        return self._own[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    def __hash__(self) -> int:
        return hash(frozenset(self._own.items()))

    def __repr__(self) -> str:
        return f"Prices({self._own!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic takes any mapping of models to prices for this type and writes a plain dict."""
        from_mapping = core_schema.no_info_after_validator_function(
            cls, core_schema.dict_schema(core_schema.str_schema(min_length=1), handler(PriceSpec))
        )
        return core_schema.json_or_python_schema(
            json_schema=from_mapping,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_mapping]),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )
