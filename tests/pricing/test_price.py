"""Prices: exact costs, worst cases, own prices and the shipped snapshot."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from streamguard.events import Usage
from streamguard.pricing.book import GEO_FACTOR, PriceBook, unknown_price
from streamguard.pricing.price import (
    Lifetime,
    Price,
    Prices,
    PriceSpec,
    Tier,
    affordable_output,
    cost,
    micro_usd,
    usd,
    worst_case,
)
from streamguard.request import Request

D = Decimal
SONNET = Price(
    input=D(3), output=D(15), cache_read=D("0.3"), cache_write=D("3.75"), cache_write_1h=D(6), source="test", as_of=None
)
TIERED = Price(
    input=D(3),
    output=D(15),
    cache_read=D("0.3"),
    cache_write=D("3.75"),
    cache_write_1h=D(6),
    tiers=(
        Tier(
            above=200_000,
            input=D(6),
            output=D("22.5"),
            cache_read=D("0.6"),
            cache_write=D("7.5"),
            cache_write_1h=D(12),
        ),
    ),
)
BARE = Price(input=D(3), output=D(15))


@pytest.mark.parametrize(
    ("price", "usage", "micro"),
    [
        (SONNET, Usage(input_tokens=1000, output_tokens=200), 3000 + 3000),
        (SONNET, Usage(input_tokens=0, output_tokens=0), 0),
        (SONNET, Usage(input_tokens=0, output_tokens=0, cache_read_tokens=1), 1),
        (SONNET, Usage(input_tokens=1, output_tokens=1, cache_read_tokens=10, cache_write_tokens=0), 21),
        (
            SONNET,
            Usage(input_tokens=0, output_tokens=0, cache_write_tokens=100, cache_write_1h_tokens=40),
            225 + 240,
        ),
        (SONNET, Usage(input_tokens=0, output_tokens=0, cache_write_tokens=100, cache_write_1h_tokens=0), 375),
        (SONNET, Usage(input_tokens=0, output_tokens=0, cache_write_tokens=100), 600),
        (TIERED, Usage(input_tokens=200_000, output_tokens=10), 600_150),
        (TIERED, Usage(input_tokens=200_001, output_tokens=10), 1_200_006 + 225),
        (TIERED, Usage(input_tokens=1, output_tokens=0, cache_read_tokens=200_000), 6 + 120_000),
        (SONNET, Usage(input_tokens=10, output_tokens=10, thinking_tokens=9), 180),
        (BARE, Usage(input_tokens=1, output_tokens=1, cache_read_tokens=0, cache_write_tokens=0), 18),
    ],
)
def test_cost_is_exact_and_rounds_up(price: Price, usage: Usage, micro: int) -> None:
    """A usage is priced to the micro-USD, fractions up, thinking inside the output and tiers by the whole input."""
    assert cost(price, usage) == micro


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (None, Usage(input_tokens=1, output_tokens=1)),
        (SONNET, Usage(output_tokens=1)),
        (SONNET, Usage(input_tokens=1)),
        (SONNET, Usage(input_tokens=-1, output_tokens=1)),
        (SONNET, Usage(input_tokens=1, output_tokens=-1)),
        (SONNET, Usage(input_tokens=1, output_tokens=1, cache_write_tokens=1, cache_write_1h_tokens=2)),
        (BARE, Usage(input_tokens=1, output_tokens=1, cache_read_tokens=1)),
        (BARE, Usage(input_tokens=1, output_tokens=1, cache_write_tokens=1)),
    ],
)
def test_what_cannot_be_priced_is_none(price: Price | None, usage: Usage) -> None:
    """No price, a missing count, an absurd count or a cache count without a rate give `None`, never 0."""
    assert cost(price, usage) is None


def test_cost_ignores_the_callers_decimal_context() -> None:
    """A caller who computes with three digits gets the same money."""
    with localcontext() as context:
        context.prec = 3
        assert cost(SONNET, Usage(input_tokens=123_456_789, output_tokens=1)) == 370_370_382


@pytest.mark.parametrize(
    ("price", "given_input", "given_output", "caching", "micro"),
    [
        (SONNET, 1000, 100, "1h", 6000 + 1500),
        (SONNET, 1000, 100, "no", 3000 + 1500),
        (BARE, 1000, 100, "1h", 6000 + 1500),
        (TIERED, 200_000, 0, "1h", 1_200_000),
        (TIERED, 200_001, 10, "1h", 2_400_012 + 225),
        (SONNET, 0, 0, "1h", 0),
    ],
)
def test_worst_case(price: Price, given_input: int, given_output: int, caching: Lifetime, micro: int) -> None:
    """The worst case takes the dearest cache write in the dearest tier within reach."""
    assert worst_case(price, given_input, given_output, caching=caching) == micro


def test_worst_case_refuses_negative_bounds() -> None:
    """A negative bound is a mistake, not a discount."""
    with pytest.raises(ValueError, match="input -1, output 2"):
        worst_case(SONNET, -1, 2)


rates = st.decimals(min_value=D("0.001"), max_value=D(200), places=3)
tokens = st.integers(0, 300_000)


@settings(max_examples=150, deadline=None)
@given(
    base=st.tuples(rates, rates, rates, rates, rates),
    step=st.tuples(rates, rates, rates, rates, rates),
    above=st.integers(1, 300_000),
    used=st.tuples(tokens, tokens, tokens, tokens),
    hour=st.integers(0, 300_000) | st.none(),
    spare=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
)
def test_no_usage_within_bounds_costs_more_than_the_worst_case(base, step, above, used, hour, spare) -> None:
    """Whatever the rates, tiers and the split of the input, the bill stays within the bound."""
    names = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
    price = Price(
        **dict(zip(names, base, strict=True)), tiers=(Tier(above=above, **dict(zip(names, step, strict=True))),)
    )
    plain, output, read, written = used
    usage = Usage(
        input_tokens=plain,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=None if hour is None else min(hour, written),
    )
    billed = cost(price, usage)
    assert billed is not None
    assert billed <= worst_case(price, plain + read + written + spare[0], output + spare[1])


@settings(max_examples=150, deadline=None)
@given(money=st.integers(0, 10_000_000), given_input=st.integers(0, 400_000))
def test_affordable_output_is_the_most_that_fits(money: int, given_input: int) -> None:
    """One output token more than affordable no longer fits, and the affordable number does, if any does."""
    most = affordable_output(TIERED, money, given_input)
    assert worst_case(TIERED, given_input, most + 1) > money
    if most:
        assert worst_case(TIERED, given_input, most) <= money


@pytest.mark.parametrize("bad", [3, 3.0, True, "0", "-1", "NaN", "Infinity", "1e-", "three", None, "1000001", ["3"]])
def test_own_prices_are_quoted_positive_and_finite(bad: object) -> None:
    """What is no positive, finite, quoted rate is refused, with the field's name."""
    with pytest.raises(ValidationError, match="input"):
        PriceSpec.model_validate({"input": bad, "output": "15.00"})


@pytest.mark.parametrize("steps", [[0], [-5], [200, 100], [100, 100]])
def test_own_tiers_ascend(steps: list[int]) -> None:
    """Steps out of order would make the price depend on the order of a file."""
    tiers = [{"above": step, "input": "1", "output": "2"} for step in steps]
    with pytest.raises(ValidationError, match="tiers must ascend"):
        PriceSpec.model_validate({"input": "1", "output": "2", "tiers": tiers})


def test_own_price_as_a_price() -> None:
    """Every field of a price in a file comes through."""
    spec = PriceSpec.model_validate(
        {
            "input": "3.00",
            "output": "15.00",
            "cache_read": "0.30",
            "cache_write": "3.75",
            "cache_write_1h": "6.00",
            "tiers": [{"above": 200_000, "input": "6.00", "output": "22.50"}],
            "source": "contract 7",
            "as_of": "2026-11-01",
        }
    )
    assert spec.price() == Price(
        input=D(3),
        output=D(15),
        cache_read=D("0.3"),
        cache_write=D("3.75"),
        cache_write_1h=D(6),
        tiers=(Tier(above=200_000, input=D(6), output=D("22.5")),),
        source="contract 7",
        as_of=date(2026, 11, 1),
        speed="standard",
        inference_geo="global",
    )


def test_own_prices_come_first() -> None:
    """A price of one's own beats the snapshot, for dated releases too, and other models come from the snapshot."""
    own = PriceSpec.model_validate({"input": "1", "output": "2"})
    book = PriceBook({"claude-opus-5-5": own})
    expected = msgspec.structs.replace(own.price(), factor=GEO_FACTOR)
    assert book.price("claude-opus-5-5") == expected
    assert book.price("claude-opus-5-5-20261001") == expected
    other = book.price("claude-sonnet-5-5")
    assert other is not None
    assert other.source.startswith("genai-prices ")


def test_snapshot_prices_have_every_rate_and_a_source() -> None:
    """The snapshot's price has tiers, cache rates, a source and a day."""
    price = PriceBook().price("claude-haiku-5-5", at=datetime(2026, 11, 20, tzinfo=UTC))
    assert price is not None
    assert (price.input, price.output, price.cache_read) == (D("0.1"), D("0.5"), D("0.01"))
    assert (price.cache_write, price.cache_write_1h, price.speed) == (D("0.125"), D("0.2"), "standard")
    assert [(tier.above, tier.input, tier.output) for tier in price.tiers] == [(100_000, D("0.5"), D("2.5"))]
    assert price.source.startswith("genai-prices ")
    assert price.as_of is not None


def test_snapshot_prices_change_by_date() -> None:
    """A price that changed is looked up for the day of the request."""
    book = PriceBook()
    before = book.price("claude-opus-4-6", at=datetime(2026, 3, 1, tzinfo=UTC))
    after = book.price("claude-opus-4-6", at=datetime(2026, 4, 1, tzinfo=UTC))
    assert before is not None
    assert after is not None
    assert (len(before.tiers), len(after.tiers)) == (1, 0)


def test_a_downloaded_snapshot_has_its_own_day() -> None:
    """A user's newer snapshot is used, with its day; a model priced in other units than tokens has no price."""
    from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot

    by_the_second = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "groq"
        for model in provider.models
        if "whisper" in model.id
    )
    set_custom_snapshot(DataSnapshot(get_snapshot().providers, from_auto_update=True, timestamp=datetime(2026, 11, 19)))  # noqa: DTZ001
    try:
        price = PriceBook().price("claude-sonnet-5-5")
        assert price is not None
        assert price.as_of == date(2026, 11, 19)
        assert PriceBook().price(by_the_second) is None
    finally:
        set_custom_snapshot(None)


def test_bedrock_names_have_prices_of_their_own() -> None:
    """A model's name at another provider is looked up in that provider's list, not guessed from the vendor's."""
    book = PriceBook()
    there, here = book.price("us.anthropic.claude-opus-4-6-v1"), book.price("claude-opus-4-6")
    assert there is not None
    assert here is not None
    assert there.input > here.input


@pytest.mark.parametrize("model", ["claude-opus-9", "nope", "", None])
def test_unknown_models_have_no_price(model: str | None) -> None:
    """No source, no price: nothing is guessed from a similar name."""
    assert PriceBook().price(model) is None


def test_the_request_decides_speed_and_region() -> None:
    """Fast mode has its own price or none, and inference kept in one region costs a tenth more."""
    book = PriceBook()
    plain = book.for_request(Request({"model": "claude-opus-5-5"}))
    fast = book.for_request(Request({"model": "claude-opus-5-5", "speed": "fast"}))
    local = book.for_request(Request({"model": "claude-opus-5-5", "inference_geo": "us"}))
    assert plain is not None
    assert fast is not None
    assert local is not None
    assert (fast.output / plain.output, fast.speed, local.output / plain.output) == (2, "fast", D("1.1"))
    assert book.for_request(Request({"model": "claude-sonnet-5-5", "speed": "fast"})) is None
    assert book.for_request(None) is None


OWN = {"input": "3", "output": "16", "cache_read": "0.1", "cache_write": "5", "cache_write_1h": "8"}


@pytest.mark.parametrize(
    ("model", "spec", "request_fields", "rates"),
    [
        ("claude-opus-5-5", {}, {}, ("3", "16")),
        ("claude-opus-5-5", {}, {"inference_geo": "global"}, ("3", "16")),
        ("claude-opus-5-5", {}, {"inference_geo": "us"}, ("3.3", "17.6")),
        ("claude-opus-5-5", {"inference_geo": "any"}, {"inference_geo": "us"}, ("3", "16")),
        ("claude-opus-5-5", {}, {"speed": "fast"}, ("8", "40")),
        ("claude-opus-5-5", {"input": "5"}, {"speed": "fast"}, ("10", "40")),
        ("claude-opus-5-5", {"output": "30"}, {"speed": "fast", "inference_geo": "us"}, ("8.8", "66")),
        ("claude-opus-5-5@20261001", {}, {}, ("3.3", "17.6")),
        ("mine", {}, {}, ("3", "16")),
    ],
)
def test_an_own_price_by_the_published_rules(
    model: str, spec: dict[str, str], request_fields: dict[str, str], rates: tuple[str, str]
) -> None:
    """A region is a tenth dearer; another speed as many times dearer as the snapshot's, and no less than that."""
    book = PriceBook({model.partition("@")[0]: PriceSpec.model_validate(OWN | spec)})
    price = book.for_request(Request({"model": model, **request_fields}))
    assert price is not None
    assert (price.input, price.output) == (D(rates[0]), D(rates[1]))


def test_an_own_price_of_a_speed_that_nobody_publishes_stays_refused() -> None:
    """The price says for which speed it is, and the bound looks at that."""
    book = PriceBook({"mine": PriceSpec.model_validate(OWN)})
    price = book.for_request(Request({"model": "mine", "speed": "fast"}))
    assert price is not None
    assert (price.speed, price.factor) == ("standard", None)


@pytest.mark.parametrize(
    ("base_url", "output"),
    [
        ("https://eu.gateway.example", "16"),
        ("https://EU.gateway.example/v1/", "16"),
        ("https://api.anthropic.com", "20"),
        (None, "20"),
    ],
)
def test_an_own_price_may_be_for_one_endpoint(base_url: str | None, output: str) -> None:
    """It holds there only. Where the endpoint is not known, the dearer of both prices is a bound."""
    spec = PriceSpec.model_validate(OWN | {"base_url": "https://eu.gateway.example/"})
    price = PriceBook({"claude-opus-5-5": spec}).for_request(Request({"model": "claude-opus-5-5"}, base_url=base_url))
    assert price is not None
    assert price.output == D(output)


@pytest.mark.parametrize("base_url", ["gateway.example", "", "ftp://x", "https:///x"])
def test_an_endpoint_is_a_url(base_url: str) -> None:
    """With a scheme and a host."""
    with pytest.raises(ValidationError):
        PriceSpec.model_validate(OWN | {"base_url": base_url})


def test_a_cost_cap_on_an_unpriced_model_is_an_error_that_says_what_to_add() -> None:
    """The error names the model, the knob and the line to add."""
    assert unknown_price("claude-x", "caps.cost_usd") == (
        "unknown price for model 'claude-x', which caps.cost_usd needs; "
        'add prices: {claude-x: {input: "…", output: "…"}} in USD per million tokens'
    )
    assert "names no model" in unknown_price(None, "budgets")


def test_own_prices_do_not_load_the_snapshot() -> None:
    """genai-prices is loaded only when a model without own price is asked for."""
    code = (
        "import sys; from decimal import Decimal; from streamguard.pricing.book import PriceBook;"
        "from streamguard.pricing.price import Price;"
        "b = PriceBook({'m': Price(input=Decimal(1), output=Decimal(2))}); b.price('m');"
        "assert 'genai_prices' not in sys.modules; b.price('claude-opus-5-5');"
        "assert 'genai_prices' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "$0.00"), (42_100, "$0.0421"), (5_000_000, "$5.00"), (-1, "-$0.000001"), (1_500_000, "$1.50")],
)
def test_usd_for_people(micro: int, text: str) -> None:
    """Money is shown with cents and without needless zeros."""
    assert usd(micro) == text


def test_limits_round_down() -> None:
    """A limit finer than a micro-USD does not grow by rounding."""
    assert (micro_usd(D("0.04")), micro_usd(D("0.0000019"))) == (40_000, 1)


def test_prices_of_a_policy_are_frozen_and_hashable() -> None:
    """A policy's own prices are a mapping that can be compared, hashed, dumped and read again."""
    adapter = TypeAdapter(Prices)
    prices = adapter.validate_python({"m": {"input": "1", "output": "2"}})
    assert prices == {"m": PriceSpec(input=D(1), output=D(2))}
    assert hash(prices) == hash(adapter.validate_python({"m": {"input": "1", "output": "2"}}))
    assert adapter.validate_json(adapter.dump_json(prices)) == prices
    assert (len(Prices()), repr(Prices()), hash(Prices())) == (0, "Prices({})", hash(Prices()))
    with pytest.raises(ValidationError, match=r"m\.input"):
        adapter.validate_python({"m": {"input": 1, "output": "2"}})
