"""A rate limit at the end of a call: a time to wait for, and no verdict."""

from __future__ import annotations

import pytest

from streamguard import Policy, Retry, Rule
from streamguard.testing import status, wire
from tests.proxy.running import TOTAL, Running, error_of, with_proxy


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "passed"),
    [
        ("retry-after", "0", True),
        ("retry-after", "Wed, 01 Jan 2031 00:00:00 GMT", True),
        ("retry-after-ms", "200", True),
        ("retry-after", "1795000000000", False),
        ("retry-after", "-5", False),
        ("retry-after", "1e999", False),
        ("retry-after", "soon", False),
    ],
)
def test_a_rate_limit_that_says_when_to_come_back_stays_one(name: str, value: str, passed: bool, stream: bool) -> None:
    """429 after the policy's own attempts; what nobody can wait for is not handed on."""

    async def test(running: Running) -> None:
        response = await running.ask(stream=stream)
        assert (response.status_code, error_of(response.content)["type"]) == (429, "rate_limit_error")
        assert response.headers["x-should-retry"] == "false"
        assert (response.headers.get(name) == value) is passed

    rule = Rule(when=["provider.rate_limited"])
    policy = Policy(deliver="committed", timeouts=TOTAL, retry=Retry(attempts=2, rules=(rule,)))
    refusal = status(429, {name: value}, wire.error_body("rate_limit_error", "slow down"))
    with_proxy([[refusal]], test, policy)
