"""Response headers become limits, whoever sends them; what cannot be true changes nothing but its own limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.adapters.anthropic.limits import limits_of
from streamguard.pace.limits import NAMES, Limit, Limits

DATE = {"date": "Tue, 01 Dec 2026 10:00:00 GMT"}


def anthropic(name: str, limit: Any, left: Any, reset: str | None = None) -> dict[str, str]:
    """The three headers of one of Anthropic's limits."""
    said = {"limit": str(limit), "remaining": str(left)} | ({} if reset is None else {"reset": reset})
    return {f"anthropic-ratelimit-{name}-{word}": value for word, value in said.items()}


FORMS = {
    "nothing": ({"content-type": "text/event-stream", "retry-after": "15"}, None),
    "Anthropic's four": (
        {
            **anthropic("requests", 1000, 999, "2026-12-01T10:00:01Z"),
            **anthropic("input-tokens", 2_000_000, 1_987_000),
            **anthropic("output-tokens", 400_000, 400_000, "2026-12-01T10:00:30Z"),
            **anthropic("tokens", 2_400_000, 2_387_000),
            **DATE,
        },
        Limits(
            requests=Limit(1000, 999, 1.0),
            input_tokens=Limit(2_000_000, 1_987_000),
            output_tokens=Limit(400_000, 400_000, 30.0),
        ),
    ),
    "names in any case": (
        {name.title(): value for name, value in anthropic("requests", 50, 0).items()},
        Limits(requests=Limit(50, 0)),
    ),
    "OpenAI's two": (
        {
            "x-ratelimit-limit-requests": "5000",
            "x-ratelimit-remaining-requests": "4999",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-limit-tokens": "160000",
            "x-ratelimit-remaining-tokens": "159976",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        Limits(requests=Limit(5000, 4999, 0.012), tokens=Limit(160_000, 159_976, 360.0)),
    ),
    "a provider's own through a gateway": (
        {f"llm_provider-{name}": value for name, value in anthropic("requests", 50, 3).items()},
        Limits(requests=Limit(50, 3)),
    ),
    "the provider's own before the gateway's": (
        {**anthropic("requests", 50, 3), "x-ratelimit-limit-requests": "9", "x-ratelimit-remaining-requests": "9"},
        Limits(requests=Limit(50, 3)),
    ),
    "more left than there is": (anthropic("requests", 50, 80), Limits(requests=Limit(50, 50))),
    "a reset that has passed": (
        {**anthropic("requests", 50, 50, "2026-12-01T09:59:00Z"), **DATE},
        Limits(requests=Limit(50, 50, 0.0)),
    ),
    "a reset without a date": (anthropic("requests", 50, 50, "2026-12-01T09:59:00Z"), Limits(requests=Limit(50, 50))),
    "negative": (anthropic("requests", 50, -1), None),
    "a limit of nothing": (anthropic("requests", 0, 0), None),
    "a fraction": (anthropic("requests", "50.5", 1), None),
    "doubled": (anthropic("requests", "50, 50", "3, 2"), None),
    "beyond belief": (anthropic("requests", 10**16, 3), None),
    "digits of another script": (anthropic("requests", "\u0665\u0660", "\u0663"), None),
    "half of one": ({"anthropic-ratelimit-requests-limit": "50"}, None),
    "one bad, one good": (
        {**anthropic("requests", "many", 1), **anthropic("output-tokens", 80_000, 79_000)},
        Limits(output_tokens=Limit(80_000, 79_000)),
    ),
}


@pytest.mark.parametrize(("headers", "expected"), FORMS.values(), ids=FORMS)
def test_headers_become_limits(headers: dict[str, str], expected: Limits | None) -> None:
    """Each form of headers, whole."""
    assert limits_of(headers) == expected


TEXTS = st.one_of(st.text(max_size=12), st.integers(-(10**20), 10**20).map(str), st.sampled_from(["1s", "1h2m3s", "∞"]))


@given(
    st.dictionaries(
        st.builds("anthropic-ratelimit-{}-{}".format, st.sampled_from(NAMES), st.sampled_from(["limit", "remaining"]))
        | st.builds(
            "x-ratelimit-{1}-{0}".format, st.sampled_from(NAMES), st.sampled_from(["limit", "remaining", "reset"])
        ),
        TEXTS,
        max_size=10,
    )
)
def test_headers_that_are_rubbish_never_raise(headers: dict[str, str]) -> None:
    """Whatever headers say, a limit is at least 1 and what is left lies between nothing and all of it."""
    found = limits_of(headers)
    assert found is None or all(limit.per_minute >= 1 and 0 <= limit.left <= limit.per_minute for _, limit in found)
