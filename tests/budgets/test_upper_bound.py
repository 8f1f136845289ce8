"""Upper bounds of requests: what they count, and what has none."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.budgets.known_options import unbounded_beta
from streamguard.budgets.upper_bound import Bound, Unbounded, bound
from streamguard.pricing.input_upper import (
    CLIENT_TOOL_TOKENS,
    CONTEXT_WINDOW,
    FRAMING_BOUND,
    IMAGE_TOKENS,
    OPAQUE_TOKENS,
    PDF_PAGE_TOKENS,
    TOOLS_TOKENS,
)
from streamguard.pricing.price import Price, worst_case
from streamguard.request import Request

PRICE = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"))
PNG = b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1000, 1000)).decode()
PDF = b64encode(
    b"%PDF-1.7\n1 0 obj<</Type/Pages/Count 3/Kids[2 0 R 3 0 R 4 0 R]>>endobj\n"
    + b"".join(b"%d 0 obj<</Type/Page>>endobj\n" % number for number in (2, 3, 4))
).decode()
USER = {"role": "user", "content": "hello"}
PLAIN: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [USER]}


def with_content(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A request whose user message has these blocks."""
    return {**PLAIN, "messages": [{"role": "user", "content": list(blocks)}]}


PROVIDER_RUN = ("web_search_20260318", "code_execution_20260521", "mcp_toolset", "computer_20991231")
OWN = Price(input=Decimal(1), output=Decimal(1), speed="standard", inference_geo="global")


def inside(kind: str) -> dict[str, Any]:
    """A request that brings a tool in a message, in the content of a tool's result."""
    definition = {"type": "tool_definition", "definition": {"type": kind, "name": "t"}}
    return with_content({"type": "tool_result", "content": [{"type": "tool_addition", "tool": definition}]})


def bounded(body: dict[str, Any], price: Price | None = PRICE, **options: Any) -> Bound:
    """The bound of a body, which must have one."""
    found = bound(Request(body), price, **options)
    assert isinstance(found, Bound), found
    return found


MARGIN = 200
"""Tokens within which a bound of a small request is known here: marks of words, turns and blocks."""


def test_a_plain_request_is_bounded_by_its_text_and_max_tokens() -> None:
    """Input is the text plus framing, output is max_tokens, and the money is the worst case of both."""
    found = bounded(PLAIN)
    assert FRAMING_BOUND < found.input_tokens < FRAMING_BOUND + MARGIN
    assert found == Bound(
        input_tokens=found.input_tokens,
        output_tokens=100,
        micro_usd=worst_case(PRICE, found.input_tokens, 100, caching="no"),
    )


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
        ({**PLAIN, "tools": [{"type": "bash_20250124", "name": "bash"}]}, CLIENT_TOOL_TOKENS + TOOLS_TOKENS),
        ({**PLAIN, "tools": [{"name": "t", "input_schema": {"type": "object"}}]}, TOOLS_TOKENS),
        (
            {**PLAIN, "tools": [{"type": "custom", "name": "t", "input_schema": {"type": "object"}}]},
            TOOLS_TOKENS,
        ),
        (with_content({"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": "x"}}}), 0),
        (with_content({"type": "thinking", "thinking": "", "signature": "A" * 100}), OPAQUE_TOKENS * 102),
        (with_content({"type": "redacted_thinking", "data": "A" * 100}), OPAQUE_TOKENS * 102),
        (
            with_content({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}),
            64 + 5 * 36 * 36 // 4,
        ),
        (
            with_content({"type": "document", "source": {"type": "base64", "media_type": "x", "data": PDF}}),
            3 * PDF_PAGE_TOKENS,
        ),
    ],
)
def test_what_brings_more_than_its_text_counts_at_its_maximum(body: dict[str, Any], extra: int) -> None:
    """Images count by their size, documents by their pages, and what shows neither by documented maxima."""
    least = min(CONTEXT_WINDOW, FRAMING_BOUND + extra)
    assert least <= bounded({**body, "model": "claude-opus-5"}).input_tokens < least + 400


@pytest.mark.parametrize(("kind", "tokens"), [("image", IMAGE_TOKENS), ("document", CONTEXT_WINDOW)])
def test_base64_data_is_not_text(kind: str, tokens: int) -> None:
    """Data that is no picture and no document counts by the maximum; where no picture is meant, it is text."""
    source = {"type": "base64", "media_type": "x/y", "data": "A" * 50_000}
    assert bounded(with_content({"type": kind, "source": source})).input_tokens < FRAMING_BOUND + tokens + 500
    assert bounded(with_content({"type": "search_result", "source": source})).input_tokens > 50_000


@pytest.mark.parametrize(("model", "most"), [("claude-opus-5", 1_000_000), ("claude-haiku-4-5", 200_000)])
def test_a_window_bounds_the_input_of_models_that_have_one(model: str, most: int) -> None:
    """What is larger is refused, unbilled; of other vendors' models no window is known here."""
    body = {**PLAIN, "messages": [{"role": "user", "content": "a b " * 600_000}]}
    assert bounded({**body, "model": model}).input_tokens == most
    assert bounded({**body, "model": "gemma-3"}).input_tokens > 2_400_000


@pytest.mark.parametrize(
    ("control", "rate"),
    [(None, "3"), ({"type": "ephemeral"}, "3.75"), ({"type": "ephemeral", "ttl": "1h"}, "6"), ({"ttl": "1h"}, "6")],
)
def test_cache_writes_count_as_the_request_asks_for_them(control: object, rate: str) -> None:
    """No cache, no dearer input; the five-minute rate only where nothing longer is asked for."""
    block = (
        {"type": "text", "text": "x"} if control is None else {"type": "text", "text": "x", "cache_control": control}
    )
    found = bounded(with_content(block))
    assert found.micro_usd == math.ceil(Decimal(rate) * found.input_tokens + 1500)


def test_a_tool_counts_at_the_length_of_its_longest_rendering() -> None:
    """Templates indent definitions and escape what is not ASCII."""
    schema = {"type": "object", "properties": {"é": {"description": "é" * 1000}}}
    plain = bounded({**PLAIN, "tools": [{"name": "t", "input_schema": {"type": "object"}}]}).input_tokens
    assert bounded({**PLAIN, "tools": [{"name": "t", "input_schema": schema}]}).input_tokens > plain + 6000


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
        *((inside(tool), PRICE, "run by the provider") for tool in PROVIDER_RUN),
        (with_content({"type": "hologram", "data": "x"}), PRICE, "'hologram'"),
        (with_content({"type": "text", "text": "x", "tools": [{"type": "web_search_20260318"}]}), PRICE, "'tools'"),
        (with_content({"type": "mcp_tool_listing", "mcp_server_name": "x"}), PRICE, "'mcp_tool_listing'"),
        (with_content({"type": ["text"]}), PRICE, "['text']"),
        ({**PLAIN, "tools": [{"type": "bash_code_execution_20270101", "name": "b"}]}, PRICE, "run by the provider"),
        ({**PLAIN, "betas": ["fast-mode-2026-02-01", "free-lunch-2027"]}, PRICE, "'free-lunch-2027'"),
        ({**PLAIN, "inference_geo": "us"}, OWN, "inference_geo"),
        ({**PLAIN, "speed": "fast"}, OWN, "speed"),
        ({**PLAIN, "metadata": {"user_id": Decimal(1)}}, PRICE, "no plain JSON"),
        ({**PLAIN, "max_tokens": 10**18}, PRICE, "more than a ledger can count"),
        ({**PLAIN, "tools": [{"name": "t", "input_schema": {}, "servers": [{}]}]}, PRICE, "'servers' of a tool"),
        (with_content({"type": "text", "text": "x", "input": {"type": "web_search_20260318"}}), PRICE, "'input'"),
        (with_content({"type": "tool_addition", "tool": {"type": "code_execution_20260521"}}), PRICE, "code_execution"),
        (
            with_content({"type": "tool_use", "input": {}, "caller": {"type": "web_search_20260318"}}),
            PRICE,
            "'caller' of a block",
        ),
        (with_content({"type": "tool_addition", "format": {"type": "web_search_20260318"}}), PRICE, "'format'"),
        ({**PLAIN, "cache_control": {"type": "ephemeral", "ttl": "9d"}}, PRICE, "a cache of '9d'"),
        (with_content({"type": "text", "text": "x", "cache_control": {"ttl": "9d"}}), PRICE, "a cache of '9d'"),
        (
            {**PLAIN, "tools": [{"name": "t", "input_schema": {}, "cache_control": {"copies": 2}}]},
            PRICE,
            "a cache of '?'",
        ),
        ({**PLAIN, "service_tier": "priority"}, PRICE, "service_tier 'priority'"),
        ({**PLAIN, "model": "claude-opus-5", "service_tier": "turbo"}, PRICE, "service_tier 'turbo'"),
        (
            {**PLAIN, "model": "us.anthropic.claude-opus-5", "service_tier": "priority"},
            PRICE,
            "service_tier 'priority'",
        ),
        ({**PLAIN, "service_tier": ["priority"]}, PRICE, "service_tier ['priority']"),
        ({**PLAIN, "output_config": {"candidates": 8}}, PRICE, "'candidates' of output_config"),
        ({**PLAIN, "thinking": {"type": "parallel"}}, PRICE, "thinking of type 'parallel'"),
        ({**PLAIN, "tool_choice": {"type": "auto", "more": 1}}, PRICE, "'more' of tool_choice"),
        ({**PLAIN, "context_management": {"edits": [{"type": "clear_and_sum_20270101"}]}}, PRICE, "context_management"),
        ({**PLAIN, "betas": ["pdfs-and-advisors-2027-01-01"]}, PRICE, "'pdfs-and-advisors-2027-01-01'"),
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
    assert bounded(cached, **options).micro_usd == 40 * 3.75 + 60 * 15
    assert bounded(PLAIN, mode="calibrated", input_tokens=10**9, output_tokens=10**9).output_tokens == 100
    assert bounded({**PLAIN, "tools": [{"type": "web_search_20260318"}]}, **options).soft


def test_a_tool_of_the_callers_own_may_come_in_a_message() -> None:
    """It is input like any other, with the provider's prompts for tools."""
    definition = {"type": "tool_definition", "definition": {"name": "t", "input_schema": {"type": "object"}}}
    found = bounded(with_content({"type": "tool_addition", "tool": definition}))
    assert found.input_tokens > FRAMING_BOUND + TOOLS_TOKENS


@pytest.mark.parametrize(
    ("betas", "unknown"),
    [
        (None, None),
        ("", None),
        ("pdfs-2024-09-25, fast-mode-2026-02-01", None),
        (["pdfs-2024-09-25,advisor-tool-2026-03-01"], "advisor-tool-2026-03-01"),
        (["COMPACT-2026-01-12"], "COMPACT-2026-01-12"),
        (["claude-code-20250219", "effort-2027-02-01"], None),
        (["effort-2025-11-24x"], "effort-2025-11-24x"),
        (["\uff50dfs-2024-09-25"], "\uff50dfs-2024-09-25"),
        (7, "7"),
    ],
)
def test_betas_are_known_by_name(betas: object, unknown: str | None) -> None:
    """A beta whose effect on the bill is not known is named, wherever it stands in a header or a list."""
    assert unbounded_beta(betas) == unknown


@pytest.mark.parametrize(
    ("counted", "tokens"), [(400, 400 + 20 + FRAMING_BOUND), (10, None), (10**6, None), (None, None)]
)
def test_a_count_of_the_providers_own_bounds_the_input(counted: int | None, tokens: int | None) -> None:
    """With a margin; one that cannot be so few is none, and one beyond the proven bound changes nothing."""
    body = with_content({"type": "text", "text": "The quick brown fox. " * 100})
    proven = bounded(body)
    found = bounded(body, counted=counted)
    assert found.input_tokens == (proven.input_tokens if tokens is None else tokens)
    assert not found.soft


@pytest.mark.parametrize("tier", ["auto", "standard_only", "priority", "flex", "batch", None])
def test_no_tier_of_anthropics_is_dearer_than_the_list_price(tier: str | None) -> None:
    """`priority` is paid beforehand, and the others are cheaper or the same."""
    body = {**PLAIN, "model": "claude-opus-5"}
    money = {bounded(one).micro_usd or 0 for one in (body, {**body, "service_tier": tier})}
    assert max(money) - min(money) < 200


def test_who_called_a_tool_is_input_like_any_other() -> None:
    """Code that the provider ran before may have called it."""
    caller = {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}
    assert bounded(with_content({"type": "tool_use", "id": "t", "name": "n", "input": {}, "caller": caller}))


def test_what_only_the_provider_can_read_counts() -> None:
    """Prose packed three to one comes to 0.6 tokens a character; the bound is far above."""
    hidden = {"type": "redacted_thinking", "data": "QUJD" * 10_000}
    assert bounded(with_content(hidden)).input_tokens > 40_000


def test_citations_add_to_each_sentence() -> None:
    """A document that is to be cited is cut into sentences, and each has words of the provider's around it."""
    source = {"type": "text", "media_type": "text/plain", "data": "A b. C d. " * 1000}
    plain = bounded(with_content({"type": "document", "source": source})).input_tokens
    cited = bounded(with_content({"type": "document", "source": source, "citations": {"enabled": True}})).input_tokens
    assert cited > plain + 2000 * 16


def test_betas_beside_the_body_count_too() -> None:
    """A header changes the bill as a field does."""
    assert isinstance(bound(Request(PLAIN, betas=["compact-2026-01-12"]), PRICE), Unbounded)
