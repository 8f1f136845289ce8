"""Errors of the outside are classified by type and code."""

from __future__ import annotations

from typing import Any

import anthropic
import anthropic.types.shared.error_type
import httpx2
import pytest

from streamguard.adapters.anthropic import failures
from streamguard.events import Failed
from streamguard.redaction import redacted
from streamguard.verdict import REASONS


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7200"}, 7200.0),
        ({"retry-after": "31622400"}, 31_622_400.0),
        ({"retry-after": "31622401"}, None),
        ({"retry-after": "1795000000"}, None),
        ({"retry-after": "1795000000000"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "99999999999999999999999"}, None),
        ({"retry-after-ms": "1795000000000"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": "Tue, 01 Dec 2026 00:00:00 GMT"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 +0200", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "Sat, 99 Nov 9999999999 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates against the response's own date; what makes no sense is unknown."""
    assert failures.retry_after(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (200, {"type": "overloaded_error"}, "provider.overloaded"),
        (529, {"type": "overloaded_error"}, "provider.overloaded"),
        (500, {"type": "overloaded_error"}, "provider.overloaded"),
        (200, {"type": "rate_limit_error"}, "provider.rate_limited"),
        (200, {"type": "api_error"}, "provider.api_error"),
        (200, {"type": "timeout_error"}, "provider.timeout"),
        (403, {"type": "permission_error"}, "provider.permission"),
        (402, {"type": "billing_error"}, "provider.billing"),
        (404, {"type": "not_found_error"}, "provider.not_found"),
        (413, {"type": "request_too_large"}, "provider.request_too_large"),
        (402, {"details": {"error_code": "linked_organization_spend_limit_reached"}}, "provider.spend_limit"),
        (429, {"details": {"error_code": "contract_spend_limit_reached"}}, "provider.spend_limit"),
        (429, {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}}, "provider.rate_limited"),
        (429, {"type": "x", "code": "project_spend_limit_exceeded"}, "provider.spend_limit"),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, "provider.spend_limit"),
        (200, {"message": "specified API usage limits", "type": "invalid_request_error"}, "provider.invalid_request"),
        (400, {"message": "specified API usage limits", "type": "overloaded_error"}, "provider.overloaded"),
        (200, {"code": 503, "type": "unheard_of"}, "provider.overloaded"),
        (500, {"code": 400, "type": "unheard_of"}, "provider.api_error"),
        (200, {"type": "unheard_of"}, "provider.api_error"),
        (418, {"type": "unheard_of"}, "provider.invalid_request"),
        (504, None, "provider.timeout"),
        (599, "plain text", "provider.api_error"),
        (302, "", "provider.unknown"),
        (None, [], "provider.unknown"),
    ],
)
def test_error_bodies(status: int | None, error: Any, reason: str) -> None:
    """The error's code decides, then its type, then the status; the text never, but for one error without a code."""
    body = {"type": "error", "error": error} if isinstance(error, dict) else error
    assert failures.from_body(body, status=status).reason == reason
    assert reason in REASONS


def test_every_error_type_of_the_sdk_has_a_reason() -> None:
    """The table knows the types that the SDK knows, but for those that the Messages API has no use for."""
    known = set(anthropic.types.shared.error_type.ErrorType.__args__)  # type: ignore[attr-defined]
    elsewhere = {"memory_precondition_failed_error", "memory_path_conflict_error", "conflict_error"}
    assert known - set(failures.TYPES) == elsewhere
    assert set(failures.TYPES.values()) | set(failures.STATUSES.values()) <= set(REASONS)


def test_an_error_body_may_be_the_error_itself() -> None:
    """Servers that leave the outer object out are understood."""
    failed = failures.from_body({"type": "rate_limit_error", "message": "slow"}, status=429)
    assert (failed.reason, failed.type, failed.message) == ("provider.rate_limited", "rate_limit_error", "slow")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key sk-ant-api03-AbC_d-123456 refused", "key [redacted] refused"),
        ("Authorization: Bearer abcdefgh12345 x", "[redacted]"),
        ('{"api_key": "abcdef123456", "a": 1}', '{"[redacted]", "a": 1}'),
        ("http://user:pa55word@proxy:3128 failed", "http://[redacted]@proxy:3128 failed"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "[redacted]"),
        ("a task-force of tokens: 12 of 13", "a task-force of tokens: 12 of 13"),
        (b"\xffx", "\\xffx"),
    ],
)
def test_what_looks_like_a_key_is_taken_out(text: str | bytes, expected: str) -> None:
    """Excerpts keep their sense and lose their secrets."""
    assert redacted(text) == expected


def test_an_excerpt_is_bounded_and_keeps_no_half_of_a_key() -> None:
    """Long texts are cut, and a key at the cut is redacted as well."""
    assert redacted("x" * 90, 50) == "x" * 50 + "…"
    assert redacted("x " * 15 + "sk-ant-api03-" + "s" * 50, 50) == "x " * 15 + "[redacted]…"


REQUEST = httpx2.Request("POST", "http://x/")


def caused(cause: Exception) -> Exception:
    """The SDK's connection error over `cause`."""
    error = anthropic.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "before", "within"),
    [
        (httpx2.ConnectError("refused"), ("transport.connect", False), ("transport.reset", True)),
        (httpx2.ConnectTimeout("slow"), ("transport.connect", False), ("transport.reset", True)),
        (httpx2.PoolTimeout("full"), ("transport.connect", False), ("transport.reset", True)),
        (httpx2.ProxyError("407"), ("transport.connect", False), ("transport.reset", True)),
        (httpx2.WriteError(""), ("transport.reset", True), ("transport.reset", True)),
        (httpx2.ReadError(""), ("transport.reset", True), ("transport.reset", True)),
        (httpx2.ReadTimeout(""), ("transport.reset", True), ("transport.reset", True)),
        (httpx2.RemoteProtocolError("cut"), ("transport.reset", True), ("transport.reset", True)),
        (httpx2.StreamClosed(), ("transport.reset", True), ("transport.reset", True)),
        (httpx2.DecodingError("gzip"), ("transport.decode", True), ("transport.decode", True)),
        (ConnectionResetError(104, "reset"), ("transport.reset", True), ("transport.reset", True)),
        (anthropic.CredentialsError("none"), ("provider.authentication", False), ("provider.authentication", False)),
    ],
)
def test_exceptions_are_told_apart_by_type(error: Exception, before: Any, within: Any) -> None:
    """Before the head and within the stream, bare and wrapped, a break has its reason and whether it was sent."""
    for case in (error, caused(error)):
        for in_stream, expected in ((False, before), (True, within)):
            failed = failures.from_exception(case, in_stream=in_stream)
            assert isinstance(failed, Failed)
            assert (failed.reason, failed.sent) == expected
            assert failed.message


def test_a_break_that_aiohttp_calls_a_connect_error_was_sent() -> None:
    """aiohttp's transport names any break a `ConnectError`; its cause tells whether a connection ever stood."""
    aiohttp = pytest.importorskip("aiohttp")
    for cause, expected in (
        (aiohttp.ServerDisconnectedError(), ("transport.reset", True, True)),
        (aiohttp.ClientOSError(104, "reset"), ("transport.reset", True, True)),
        (aiohttp.ConnectionTimeoutError("slow"), ("transport.connect", False, False)),
        (aiohttp.ClientConnectorError(None, OSError(111, "refused")), ("transport.connect", False, False)),
    ):
        error = httpx2.ConnectError("broken")
        error.__cause__ = cause
        failed = failures.from_exception(caused(error), in_stream=False)
        assert failed is not None
        assert (failed.reason, failed.sent, failed.billable) == expected


@pytest.mark.parametrize("error", [ValueError("x"), LookupError(), anthropic.AnthropicError("x"), RuntimeError()])
def test_what_is_nobodys_error_stays_an_exception(error: Exception) -> None:
    """Errors of neither the SDK's transport nor the provider have no name here."""
    assert failures.from_exception(error, in_stream=True) is None


@pytest.mark.parametrize(
    ("status", "body", "billable"),
    [
        (503, "upstream connect error or disconnect/reset before headers", True),
        (503, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, False),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, False),
        (529, {"message": "try later"}, True),
        (409, "conflict", True),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: required"}}, False),
        (
            400,
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"},
            },
            True,
        ),
        (429, "slow down", False),
        (401, "", False),
        (500, {"type": "error", "error": {"type": "api_error", "message": "m"}}, True),
    ],
)
def test_a_refusal_is_free_only_where_the_provider_means_one(status: int, body: object, billable: bool) -> None:
    """A gateway's word on the request is none on the bill, and an answer that was blocked had been made."""
    assert failures.from_body(body, status=status).billable is billable
