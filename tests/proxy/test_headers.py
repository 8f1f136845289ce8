"""Headers: what goes upstream, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.http.refusals import Refused
from streamguard.proxy.headers import client_headers, upstream_headers, without

KEY = (b"x-api-key", b"theirs")


def test_what_goes_upstream_is_listed() -> None:
    """The version, the betas that leave the bill as it is, the agent, credentials, and what the configuration adds."""
    sent = upstream_headers(
        [
            (b"anthropic-version", b"2023-06-01"),
            (b"anthropic-beta", b"pdfs-2024-09-25, free-lunch-2027"),
            (b"anthropic-beta", b"fast-mode-2026-02-01"),
            (b"anthropic-beta", b"advisor-tool-2026-03-01"),
            (b"user-agent", b"me"),
            (b"x-mine", b"1"),
            (b"x-other", b"2"),
            (b"cookie", b"c"),
            KEY,
        ],
        key=None,
        extra=["x-mine"],
        content=True,
    )
    assert sent == [
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"pdfs-2024-09-25"),
        (b"anthropic-beta", b"fast-mode-2026-02-01"),
        (b"user-agent", b"me"),
        (b"x-mine", b"1"),
        (b"content-type", b"application/json"),
        KEY,
        (b"accept-encoding", b"identity"),
    ]


def test_the_proxys_own_key_stands_alone() -> None:
    """Whatever credentials a client sends, in whichever header."""
    sent = upstream_headers([KEY, (b"authorization", b"Bearer x")], key="ours", content=False)
    assert sent == [(b"x-api-key", b"ours"), (b"accept-encoding", b"identity")]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([], "no_key"),
        ([KEY, KEY], "bad_header_value"),
        ([KEY, (b"user-agent", b"a"), (b"user-agent", b"b")], "bad_header_value"),
        ([KEY, (b"user-agent", b"caf\xe9")], "bad_header_value"),
        ([KEY, (b"anthropic-beta", b"a\tb")], "bad_header_value"),
        ([KEY, (b"anthropic-beta", b"a" * 8193)], "bad_header_value"),
        ([(b"x-api-key", b"")], "bad_header_value"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(headers: list[tuple[bytes, bytes]], name: str) -> None:
    """By its name, before anything is sent."""
    with pytest.raises(Refused) as caught:
        upstream_headers(headers, key=None, content=True)
    assert caught.value.name == name


@given(value=st.binary(max_size=60))
def test_no_value_brings_a_header_of_its_own(value: bytes) -> None:
    """Header injection: what is passed on has no CR, LF or NUL, whatever the client sent; the rest is refused."""
    try:
        sent = upstream_headers([KEY, (b"anthropic-beta", value)], key=None, content=True)
    except Refused:
        return
    assert all(32 <= byte < 127 for _, passed in sent for byte in passed)


def test_what_comes_back_is_listed() -> None:
    """What clients read; no cookies, no words for another origin, no framing."""
    back = client_headers(
        [
            (b"Content-Type", b"text/event-stream"),
            (b"Request-Id", b"req_1"),
            (b"Anthropic-Ratelimit-Requests-Remaining", b"9"),
            (b"Retry-After", b"3"),
            (b"X-Should-Retry", b"true"),
            (b"x-ratelimit-reset", b"1"),
            (b"Set-Cookie", b"a=b"),
            (b"Access-Control-Allow-Origin", b"*"),
            (b"Strict-Transport-Security", b"max-age=1"),
            (b"Alt-Svc", b"h3"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Connection", b"request-id"),
            (b"anthropic-odd", b"caf\xe9"),
        ]
    )
    assert back == [
        (b"content-type", b"text/event-stream"),
        (b"request-id", b"req_1"),
        (b"anthropic-ratelimit-requests-remaining", b"9"),
        (b"retry-after", b"3"),
        (b"x-should-retry", b"true"),
        (b"x-ratelimit-reset", b"1"),
    ]
    assert without(back, [b"content-type", b"request-id"])[0][0] == b"anthropic-ratelimit-requests-remaining"
