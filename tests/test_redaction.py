"""What looks like a key is taken out of foreign text; in time that grows with the text and no faster."""

from __future__ import annotations

import time

import pytest

from streamguard.redaction import bare_address, redacted

SECRET = "hunter2CANARY"


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}@h:1/0",
        f"redis://user:{SECRET}@h:1/0",
        f"redis://user:{SECRET}@@h:1/0",
        f"redis://user:{SECRET}/x@h:1/0",
        f"redis://user:p#{SECRET}@h:1/0",
        f"https://{SECRET}@host/",
        f"https://h/?api_key={SECRET}&a=b",
        f"https://h/?key={SECRET}",
        f"https://h/?a=b&key={SECRET}",
        f"https://h/?token%3D{SECRET}",
        f"x-api-key: {SECRET}",
        f"X-Api-Key:{SECRET}",
        f"x-amz-security-token: {SECRET}",
        f"Authorization: {SECRET}",
        f"authorization: Bearer {SECRET}",
        f"Proxy-Authorization: Basic {SECRET}",
        f"'authorization': 'Token {SECRET}'",
        f"bearer {SECRET}",
        f"{{'x-api-key': '{SECRET}'}}",
        f'{{"api_key":"{SECRET}"}}',
        f'{{\\"api_key\\":\\"{SECRET}\\"}}',
        f'{{\\\\\\"token\\\\\\": \\\\\\"{SECRET}\\\\\\"}}',
        f"Cookie: a=b; session={SECRET}",
        f"set-cookie: sid={SECRET}; path=/",
        f"ANTHROPIC_API_KEY={SECRET}",
        f"AWS_SECRET_ACCESS_KEY = {SECRET}",
        f"client_secret={SECRET}",
        f"passwd={SECRET}",
        f"pwd: {SECRET}",
        f"password={SECRET}",
        f"passphrase: '{SECRET}'",
        f"sk-ant-api03-{SECRET}",
        f"AIzaSyD-{SECRET}1234567890abcdefghij",
        f"ghp_{SECRET}0123456789abcdef",
        f"xoxb-{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.x",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_key_is_taken_out(text: str) -> None:
    """In headers, addresses, JSON, escaped JSON, queries and environments; alone, and in the middle of other text."""
    for said in (text, f"it said: {text} and more", f"\n{text}\n"):
        found = redacted(said)
        assert SECRET not in found
        assert "[redacted]" in found


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"])
def test_a_key_of_aws_is_taken_out(key: str) -> None:
    """By its look alone."""
    assert redacted(f"no such key {key}.") == "no such key [redacted]."


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 1000000 is more than 64000",
        "input_tokens=100000, output_tokens: 12345",
        "unknown key: idel; did you mean idle?",
        "the token in STREAMGUARD_ADA is shorter than 16 characters",
        "https://api.anthropic.com/v1/messages?beta=true",
        "p.yaml:5:9: /timeouts/idel: unknown key",
        "write to me@example.org",
    ],
)
def test_what_people_need_to_read_stays(text: str) -> None:
    """Limits, counts, addresses and sentences about keys are none."""
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("rediss://user:hunter2@cache.example/3?ledger=a", "rediss://cache.example/3"),
        ("redis://:hunter2@h:1", "redis://h:1"),
        ("redis://u:hunter2/x@h:1/0", "redis://h:1/0"),
        ("redis://u:p@hunter2@h:1/0", "redis://h:1/0"),
        ("redis://h/0?password=hunter2", "redis://h/0"),
        ("redis://h/0?password=a@hunter2", "redis://…"),
        ("redis://h:hunter2/0", "redis://h…"),
        ("redis://h:99999999/0", "redis://h…"),
        ("redis://h:1/hunter2", "redis://h:1…"),
        ("redis://hunter2%40", "redis://…"),
        ("redis://[hunter2/0", "redis://…"),
        ("sqlite:run/budget.db", "sqlite:run/budget.db"),
        ("memory:", "memory:"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_password(url: str, shown: str) -> None:
    """Scheme, host, port and database; where anything else may be a part of the password, the scheme."""
    assert bare_address(url) == shown


PUMPS = ["-ey", "ey.", "token ", "token", " ", "://", "://a:b", "://:", "a@", "sk-", "bearer ", "cookie:", "api_", "\\"]
PUMPS += ["authorization", "?key", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "password='", "%3d", "-", "1.", "ghp_"]


@pytest.mark.slow
@pytest.mark.parametrize("pump", PUMPS)
def test_time_grows_with_the_text_and_no_faster(pump: str) -> None:
    """Four times the text takes about four times as long, whatever it is made of."""

    def seconds(size: int) -> float:
        text = pump * (size // len(pump))
        best = 1e9
        for _ in range(3):
            began = time.thread_time()
            redacted(text, size)
            best = min(best, time.thread_time() - began)
        return best

    short, long = seconds(8192), seconds(65_536)
    assert long < 0.02 or long / short < 24
