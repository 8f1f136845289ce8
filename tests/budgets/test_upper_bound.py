"""Upper bounds of requests: what they count, and what has none."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.budgets.upper_bound import (
    CLIENT_TOOL_TOKENS,
    CONTEXT_WINDOW,
    FRAMING_BOUND,
    IMAGE_TOKENS,
    Bound,
    Unbounded,
    bound,
)
from streamguard.pricing.price import Price, worst_case
from streamguard.request import Request

PRICE = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"))
USER = {"role": "user", "content": "hello"}
PLAIN: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [USER]}


def size(body: dict[str, Any]) -> int:
    """JSON bytes of a body."""
    return len(msgspec.json.encode({"system": None, **body}))


def with_content(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A request whose user message has these blocks."""
    return {**PLAIN, "messages": [{"role": "user", "content": list(blocks)}]}


def bounded(body: dict[str, Any], price: Price | None = PRICE, **options: Any) -> Bound:
    """The bound of a body, which must have one."""
    found = bound(Request(body), price, **options)
    assert isinstance(found, Bound), found
    return found


def test_a_plain_request_is_bounded_by_its_bytes_and_max_tokens() -> None:
    """Input is bytes plus framing, output is max_tokens, and the money is the worst case of both."""
    most = size(PLAIN) + FRAMING_BOUND
    assert bounded(PLAIN) == Bound(input_tokens=most, output_tokens=100, micro_usd=worst_case(PRICE, most, 100))


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        (with_content({"type": "image", "source": {"type": "url", "url": "u"}}), IMAGE_TOKENS),
        (
            with_content(
                {"type": "tool_result", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
            ),
            IMAGE_TOKENS,
        ),
        (with_content({"type": "document", "source": {"type": "url", "url": "u"}}), CONTEXT_WINDOW),
        (with_content({"type": "document", "source": {"type": "file", "file_id": "f"}}), CONTEXT_WINDOW),
        (with_content({"type": "container_upload", "file_id": "f"}), CONTEXT_WINDOW),
        (with_content({"type": "document", "source": {"type": "text", "data": "abc"}}), 0),
        ({**PLAIN, "tools": [{"type": "bash_20250124", "name": "bash"}]}, CLIENT_TOOL_TOKENS),
        ({**PLAIN, "tools": [{"name": "t", "input_schema": {"type": "object"}}]}, 0),
        ({**PLAIN, "tools": [{"type": "custom", "name": "t", "input_schema": {"type": "object"}}]}, 0),
        (with_content({"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": "x"}}}), 0),
    ],
)
def test_what_brings_more_than_its_bytes_counts_at_its_maximum(body: dict[str, Any], extra: int) -> None:
    """Images, files and provider-defined tools are counted by documented maxima; look-alikes in tool input are text."""
    assert bounded(body).input_tokens == size(body) + FRAMING_BOUND + extra


@pytest.mark.parametrize(("kind", "tokens"), [("image", IMAGE_TOKENS), ("document", CONTEXT_WINDOW)])
def test_base64_data_is_not_text(kind: str, tokens: int) -> None:
    """The data of an image or PDF is counted by the maximum, whatever its size; data of unknown blocks stays bytes."""
    source = {"type": "base64", "media_type": "x/y", "data": "A" * 50_000}
    assert bounded(with_content({"type": kind, "source": source})).input_tokens < FRAMING_BOUND + tokens + 500
    assert bounded(with_content({"type": "hologram", "source": source})).input_tokens > 50_000


def test_characters_that_grow_in_compatibility_form_count_grown() -> None:
    """A tokenizer that normalises first sees 33 bytes for the 3 of U+FDFA."""
    assert bounded(with_content({"type": "text", "text": "\ufdfa" * 1000})).input_tokens > 33_000


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=60), st.text(max_size=40))
def test_any_text_is_bounded_by_its_bytes(text: str, system: str) -> None:
    """One token has at least one byte, and the bound has all bytes, of lone surrogates too."""
    body = {**PLAIN, "system": system, "messages": [{"role": "user", "content": text}]}
    assert bounded(body).input_tokens >= len((text + system).encode("utf-8", "surrogatepass")) + FRAMING_BOUND


@pytest.mark.parametrize(
    ("thinking", "output"),
    [
        ({"type": "enabled", "budget_tokens": 4000}, 4100),
        ({"type": "disabled"}, 100),
        ({"type": "adaptive"}, 100),
    ],
)
def test_a_thinking_budget_comes_on_top(thinking: dict[str, Any], output: int) -> None:
    """Interleaved thinking may spend its budget beyond max_tokens, and its header cannot be seen here."""
    assert bounded({**PLAIN, "thinking": thinking}).output_tokens == output


@pytest.mark.parametrize(
    ("body", "price", "why"),
    [
        (None, PRICE, "does not show its request"),
        (PLAIN, None, "the price of model 'm' is unknown"),
        ({**PLAIN, "speed": "fast"}, Price(input=Decimal(1), output=Decimal(1), speed="standard"), "asks for 'fast'"),
        ({key: value for key, value in PLAIN.items() if key != "max_tokens"}, PRICE, "max_tokens"),
        ({**PLAIN, "max_tokens": True}, PRICE, "max_tokens"),
        ({**PLAIN, "max_tokens": -1}, PRICE, "max_tokens"),
        ({**PLAIN, "thinking": {"type": "enabled"}}, PRICE, "budget_tokens"),
        (
            {**PLAIN, "tools": [{"type": "web_search_20260318", "name": "web_search", "max_uses": 2}]},
            PRICE,
            "web_search",
        ),
        ({**PLAIN, "tools": [{"type": "code_execution_20260521", "name": "c"}]}, PRICE, "code_execution"),
        ({**PLAIN, "tools": ["x"]}, PRICE, "unknown"),
        ({**PLAIN, "fallbacks": ["m2"]}, PRICE, "fallbacks"),
        ({**PLAIN, "mcp_servers": [{}]}, PRICE, "mcp_servers"),
        ({**PLAIN, "invented_tomorrow": 1}, PRICE, "invented_tomorrow"),
        ({**PLAIN, "context_management": {"edits": [{"type": "compact_20260112"}]}}, PRICE, "context_management"),
        ({**PLAIN, "metadata": {"x": Decimal(1)}}, PRICE, "no plain JSON"),
        ({**PLAIN, "max_tokens": 10**18}, PRICE, "more than a ledger can count"),
    ],
)
def test_what_cannot_be_bounded_is_refused_with_its_reason(
    body: dict[str, Any] | None, price: Price | None, why: str
) -> None:
    """Unknown prices, missing limits and whatever may be billed more than once have no bound."""
    found = bound(None if body is None else Request(body), price)
    assert isinstance(found, Unbounded)
    assert why in found.why


def test_deep_nesting_is_refused_not_a_crash() -> None:
    """A body too deep to measure has no known size."""
    deep: Any = "x"
    for _ in range(200_000):
        deep = [deep]
    request = Request(PLAIN)
    request.body = {**PLAIN, "messages": deep}
    found = bound(request, PRICE)
    assert isinstance(found, Unbounded)


def test_clearing_the_context_is_bounded() -> None:
    """Edits that only remove input do not make the provider sample again."""
    assert bounded({**PLAIN, "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}})


def test_tokens_alone_need_no_price() -> None:
    """A token budget works for models that nobody priced."""
    most = bounded(PLAIN, None, needs_price=False)
    assert (most.micro_usd, most.tokens, most.of("tokens")) == (None, most.input_tokens + 100, most.input_tokens + 100)


def test_calibrated_takes_estimates_and_says_that_it_is_soft() -> None:
    """Estimates lower the bound but never raise it, and cache writes count only where caching is asked for."""
    options: dict[str, Any] = {"mode": "calibrated", "input_tokens": 40, "output_tokens": 60}
    assert bounded(PLAIN, **options) == Bound(input_tokens=40, output_tokens=60, micro_usd=40 * 3 + 60 * 15, soft=True)
    cached = with_content({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})
    assert bounded(cached, **options).micro_usd == 40 * 6 + 60 * 15
    assert bounded(PLAIN, mode="calibrated", input_tokens=10**9, output_tokens=10**9).output_tokens == 100
    assert bounded({**PLAIN, "tools": [{"type": "web_search_20260318"}]}, **options).soft
