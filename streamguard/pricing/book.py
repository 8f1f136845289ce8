"""Where prices come from: a policy's own first, then the snapshot that genai-prices ships.

In charge of finding a model's price and of saying what to do where there is none. It loads genai-prices (174 ms) only
when a model without a price of one's own is asked for, works offline, and never guesses: a model that no source names
has the price `None`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import msgspec

from streamguard.events import Usage
from streamguard.pricing.bill import AnswerPrices
from streamguard.pricing.price import RATES, Price, PriceSpec, Tier
from streamguard.request import Request

GEO_FACTOR = Decimal("1.1")
"""What inference kept in one region costs, as a factor (Anthropic pricing page, "Data residency", 2026-11)."""

SEARCH = 10_000
"""Micro-USD of one web search (Anthropic pricing page, "Web search tool", 2026-11: $10 per 1,000)."""

MOST_FOUND = 4096
"""Prices that are remembered: names of models come from callers, any number of them, and days pass."""

_DATED = re.compile(r"(-\d{8}|-latest)$")
"""How a model's name is pinned to one release of it."""

_VERTEX = re.compile(r"@[\w.-]+$")
"""How Vertex AI pins it."""

_CLAUDE = re.compile(r"(?:^|[./])claude")
"""Names of the models for which Anthropic's own rules on regions and speeds are published."""

_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
"""Our rates → the snapshot's."""


@functools.cache
def _prices_version() -> str:
    """Return the version of the price list. Reading it parses a file, which would cost each lookup 0.1 ms."""
    return version("genai-prices")


class PriceBook:
    """Prices by model.

    :param own: prices of one's own, from a policy's `prices:`; each holds for the speed, the region and the endpoint
        that it names.
    :param snapshot: whether to look in genai-prices for other models.
    """

    def __init__(self, own: Mapping[str, PriceSpec | Price] | None = None, *, snapshot: bool = True) -> None:
        self._own = {model: _own(model, spec) for model, spec in (own or {}).items()}
        self._only_at = {
            model: _endpoint(spec.base_url)
            for model, spec in (own or {}).items()
            if isinstance(spec, PriceSpec) and spec.base_url is not None
        }
        self._snapshot = snapshot
        self._found: dict[tuple[str, str, date], Price | None] = {}

    def price(
        self,
        model: str | None,
        *,
        speed: str = "standard",
        at: datetime | None = None,
        base_url: str | None = None,
    ) -> Price | None:
        """The price of `model`, or `None` if no source names it.

        An own price for `claude-x` also holds for its dated releases (`claude-x-20261001`). One that names an endpoint
        holds there only; where the endpoint is not known, it is the dearer of it and the snapshot's, rate by rate.

        An own price for the standard speed is no price of another one, but where the snapshot has both. Then it is as
        many times the own price as the snapshot's is dearer, and at least the snapshot's, rate by rate.

        :param at: when the request is sent; prices change by date. Now, if `None`.
        :param base_url: the endpoint that it is sent to; `None` if that is not known.
        """
        if not model:
            return None
        own = self._own_price(model, base_url)
        if own is None or own.speed in ("any", speed):
            return own or self._known(model, speed, at)
        return _faster(own, self._known(model, own.speed, at), self._known(model, speed, at)) or own

    def _own_price(self, model: str, base_url: str | None) -> Price | None:
        for name in (model, _DATED.sub("", model), _VERTEX.sub("", model)):
            if name not in self._own or (
                base_url is not None and self._only_at.get(name) not in (None, _endpoint(base_url))
            ):
                continue
            found = self._own[name]
            if base_url is None and name in self._only_at:
                return _dearer(found, self._known(model, "standard", None))
            if name != model and _VERTEX.search(model) and found.factor is not None:
                # Its regional endpoints are a tenth dearer (pricing page, 2026-11), and no name says which it is.
                return found.scaled(found.factor, f"times {found.factor} for a regional endpoint")
            return found
        return None

    def _known(self, model: str, speed: str, at: datetime | None) -> Price | None:
        """The snapshot's price."""
        if not self._snapshot:
            return None
        at = at or datetime.now(UTC)
        key = (model, speed, at.astimezone(UTC).date())
        if key not in self._found:
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            self._found[key] = _from_snapshot(model, speed, at)
        return self._found[key]

    def for_request(self, request: Request | None, *, at: datetime | None = None) -> Price | None:
        """The price of a request, its `speed` and `inference_geo` included; `None` if unknown.

        A region set for the whole workspace is not visible in a request. So a request that names none may cost what the
        dearest region does (`Price.factor`), and is charged by the region that the answer names.
        """
        if request is None:
            return None
        speed = str(request.body.get("speed") or "standard")
        price = self.price(request.model, speed=speed, at=at, base_url=request.base_url)
        geo = request.body.get("inference_geo")
        if price is None or price.factor is None or not geo:
            return price
        if geo == "global":
            return msgspec.structs.replace(price, factor=None, inference_geo="global")
        scaled = price.scaled(GEO_FACTOR, f"times {GEO_FACTOR} for inference_geo {geo!r}")
        return msgspec.structs.replace(scaled, inference_geo="any")

    def for_answer(self, request: Request | None, model: str | None, usage: Usage) -> AnswerPrices:
        """The prices at which an answer to a request may be billed.

        :param model: as the answer calls it.
        :param usage: the answer's counts, whose samplings may name other models.
        """

        def of(name: str) -> Price | None:
            return self.price(name) if request is None else self.for_request(_renamed(request, name))

        named = {one.model for one in usage.iterations or () if one.model is not None}
        other = None if model is None or (request is not None and request.model == model) else of(model)
        return AnswerPrices(
            asked=other if request is None else self.for_request(request),
            served=None if request is None else other,
            models={name: of(name) for name in named},
        )


def _renamed(request: Request, model: str) -> Request:
    return Request.owning({**request.body, "model": model}).to(request.base_url)


def _own(model: str, spec: PriceSpec | Price) -> Price:
    """An own price. One of a Claude model for no region is dearer in one, by the published factor."""
    if isinstance(spec, Price):
        return spec
    price = spec.price()
    published = spec.inference_geo == "global" and _CLAUDE.search(model) is not None
    return msgspec.structs.replace(price, factor=GEO_FACTOR) if published else price


def _endpoint(base_url: str | None) -> str | None:
    """A base URL in one form: host in lower case, no slash at the end, no version of the API."""
    if base_url is None:
        return None
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}".lower() + parts.path.rstrip("/").removesuffix("/v1")


def _faster(own: Price, standard: Price | None, fast: Price | None) -> Price | None:
    """What an own price comes to at another speed, at the most, by the snapshot; `None` if that does not say."""
    if standard is None or fast is None:
        return None
    times = max(
        getattr(fast, name) / getattr(standard, name) for name in ("input", "output") if getattr(standard, name)
    )
    scaled = own.scaled(times, f"times {times} for speed {fast.speed!r}")
    return msgspec.structs.replace(_dearer(scaled, fast), speed=fast.speed, factor=own.factor)


def _dearer(own: Price, known: Price | None) -> Price:
    """An own price, rate by rate no less than another one."""
    if known is None:
        return own
    rates: dict[str, Any] = {}
    for name in RATES:
        mine, other = getattr(own, name), getattr(known, name)
        rates[name] = mine if mine is None or other is None else max(mine, other)
    return msgspec.structs.replace(own, **rates, tiers=own.tiers or known.tiers, factor=own.factor or known.factor)


def unknown_price(model: str | None, knob: str) -> str:
    """One sentence on a model without a price, for the knob that needs one."""
    if not model:
        return f"{knob} needs a price, and the request names no model"
    return (
        f"unknown price for model {model!r}, which {knob} needs; "
        f'add prices: {{{model}: {{input: "…", output: "…"}}}} in USD per million tokens'
    )


def _from_snapshot(model: str, speed: str, at: datetime) -> Price | None:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    # Bedrock's names begin with a region and the vendor: only its own list knows them.
    name = "aws" if "anthropic." in model else None
    try:
        provider, info = snapshot.find_provider_model(model, None, name, None)
    except LookupError:
        return None
    if not _is_named(model, info):
        return None
    found = info.get_prices(at)
    if speed != "standard":
        variants = [variant for variant in info.price_variants or () if variant.when == {"speed": speed}]
        if not any(variant.constraint is None or variant.constraint.active(at) for variant in variants):
            return None
        found = info.get_prices(at, {"speed": speed})
    price = _price(found, speed, f"genai-prices {_prices_version()}", _as_of(snapshot, provider, at))
    if price is None or not model.startswith("claude"):
        return price
    price = msgspec.structs.replace(price, search=SEARCH)
    if "@" in model:
        # Vertex AI's names: its regional endpoints are a tenth dearer (pricing page, 2026-11), and no name says which.
        return price.scaled(GEO_FACTOR, f"times {GEO_FACTOR} for a regional endpoint")
    return msgspec.structs.replace(price, factor=GEO_FACTOR, inference_geo="global")


_PLATFORM = re.compile(r"^(?:[\w-]+\.)?anthropic\.|-v\d+(?::\d+)?$")
_RELEASE = re.compile(r"(-\d{8}|-\d{4}-\d{2}-\d{2}|@[\w.-]+|-latest)$")


def _is_named(model: str, info: Any) -> bool:
    """Whether the snapshot's entry is for this very model: it finds others too, by how their names begin."""
    plain = _RELEASE.sub("", _PLATFORM.sub("", model.lower()))
    names = {str(name).lower() for name in (info.id, *_leaves(info.match))}
    return bool({model.lower(), plain} & {*names, *(_RELEASE.sub("", _PLATFORM.sub("", name)) for name in names)})


def _leaves(clause: Any) -> list[str]:
    """The words of a matching rule."""
    found: list[str] = []
    todo = [clause]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, list | tuple):
            todo.extend(one)
        elif hasattr(one, "__dict__"):
            todo.extend(vars(one).values())
        elif dataclasses.is_dataclass(one):
            todo.extend(getattr(one, field.name) for field in dataclasses.fields(one))
    return found


def _price(found: Any, speed: str, source: str, as_of: date | None) -> Price | None:
    """The snapshot's form as ours; `None` without an input and an output rate."""
    rates = {ours: getattr(found, theirs) for ours, theirs in _FIELDS.items()}
    if rates["input"] is None or rates["output"] is None:
        return None
    base = {name: getattr(rate, "base", rate) for name, rate in rates.items()}
    starts = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    tiers = tuple(msgspec.convert({"above": start, **_beyond(rates, start)}, Tier) for start in starts)
    return Price(**base, tiers=tiers, source=source, as_of=as_of, speed=speed)


def _beyond(rates: Mapping[str, Any], start: int) -> dict[str, Decimal | None]:
    """The rates of inputs just above `start`: a rate without tiers does not change."""
    beyond = {name: getattr(rate, "base", rate) for name, rate in rates.items()}
    for name, rate in rates.items():
        for tier in getattr(rate, "tiers", ()):
            if tier.start <= start:
                beyond[name] = tier.price
    return beyond


def _as_of(snapshot: Any, provider: Any, at: datetime) -> date | None:
    """The day of a downloaded snapshot. The shipped one says none, so: the newest change it knows of this provider."""
    if snapshot.from_auto_update:
        day: date = snapshot.timestamp.date()
        return day
    conditional = [
        one
        for info in provider.models
        for one in (*(info.prices if isinstance(info.prices, list) else ()), *(info.price_variants or ()))
    ]
    starts = [getattr(one.constraint, "start_date", None) for one in conditional]
    return max((start for start in starts if start is not None and start <= at.date()), default=None)
