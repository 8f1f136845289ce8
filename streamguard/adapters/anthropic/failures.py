"""Failures of the outside, in this package's words: error bodies, statuses, headers and exceptions → `Failed`.

In charge of classification, by type and code. Message texts are kept for people and never read by the code, but for the
one case that has no code (see `_SPEND_LIMIT_TEXT`). It does not import the SDK: exceptions are told apart through
modules that are loaded when they can be raised.
"""

from __future__ import annotations

import email.utils
import json
import sys
from collections.abc import Mapping
from typing import Any

from streamguard.adapters.aws.errors import http_error_type
from streamguard.events import Failed
from streamguard.redaction import redacted

TYPES: dict[str, str] = {
    # https://platform.claude.com/docs/en/api/errors, and `anthropic.types.shared.ErrorType`
    "overloaded_error": "provider.overloaded",
    "rate_limit_error": "provider.rate_limited",
    "api_error": "provider.api_error",
    "timeout_error": "provider.timeout",
    "invalid_request_error": "provider.invalid_request",
    "authentication_error": "provider.authentication",
    "permission_error": "provider.permission",
    "not_found_error": "provider.not_found",
    "request_too_large": "provider.request_too_large",
    "billing_error": "provider.billing",
    # Servers that speak the same protocol: llama.cpp (tools/server), vLLM and gateways in OpenAI's words.
    "server_error": "provider.api_error",
    "internal_server_error": "provider.api_error",
    "unavailable_error": "provider.overloaded",
    "not_supported_error": "provider.invalid_request",
    "exceed_context_size_error": "provider.invalid_request",
    "insufficient_quota": "provider.spend_limit",
}
"""`error.type` → reason. It decides before the status does: an error inside a 200 stream is like any other."""

STATUSES: dict[int, str] = {
    400: "provider.invalid_request",
    401: "provider.authentication",
    402: "provider.billing",
    403: "provider.permission",
    404: "provider.not_found",
    408: "provider.timeout",
    413: "provider.request_too_large",
    422: "provider.invalid_request",
    429: "provider.rate_limited",
    431: "provider.request_too_large",
    503: "provider.overloaded",
    504: "provider.timeout",
    529: "provider.overloaded",
}
"""HTTP status → reason, where the body names no type that we know."""

REFUSED = frozenset({401, 402, 403, 404, 405, 413, 415, 422, 429, 431})
"""Statuses that say the request was refused before any work on it, whoever says so: nothing to bill."""

REFUSED_BY_PROVIDER = frozenset({400, 409, 503, 529})
"""Statuses that say so only with the provider's own error body: a gateway's 503 may mean that the answer was cut after
the request had gone out."""

REFUSALS = frozenset(
    {
        *("overloaded_error", "rate_limit_error", "invalid_request_error", "authentication_error", "billing_error"),
        *("permission_error", "not_found_error", "request_too_large", "not_supported_error"),
        *("exceed_context_size_error", "unavailable_error"),
    }
)
"""Types of errors that mean a refusal before any work."""

_BLOCKED_TEXT = ("output blocked", "content filtering policy")
"""A 400 that comes after the model has answered; it has no code. Whether it is billed is not published."""

_SPEND_LIMIT_CODES = ("spend_limit_reached", "spend_limit_exceeded", "insufficient_quota", "billing_hard_limit_reached")
# "You have reached your specified API usage limits": a 400 of type invalid_request_error, without any code.
_SPEND_LIMIT_TEXT = "usage limits"


LONGEST_WAIT = 366 * 86_400.0
"""Seconds of the longest wait that is believed. Gateways send times since 1970, some in milliseconds."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait: `retry-after-ms`, else `retry-after` in seconds or as a date.

    A date is taken relative to the response's own `date`, so that no clock of ours takes part; without one it is
    unknown. What is negative, longer than `LONGEST_WAIT` or no number is unknown too; a date that has passed is 0.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / unit
        except ValueError:
            continue
        return seconds if 0 <= seconds <= LONGEST_WAIT else None
    until = email.utils.parsedate_tz(headers.get("retry-after") or "")
    now = email.utils.parsedate_tz(headers.get("date") or "")
    if until is None or now is None:
        return None
    try:
        seconds = float(max(0, email.utils.mktime_tz(until) - email.utils.mktime_tz(now)))
    except (OverflowError, ValueError):
        return None
    return seconds if seconds <= LONGEST_WAIT else None


def from_body(body: object, *, status: int | None, headers: Mapping[str, str] | None = None) -> Failed:
    """An error body, of a response or of an `error` event inside a stream (then `status` is 200).

    :param body: the parsed JSON, or the text where it is none.
    """
    headers = headers or {}
    error = _mapping(_mapping(body).get("error")) or _mapping(body)
    kind = _text(error.get("type")) or http_error_type(headers)
    if error is body and kind == "error":
        kind = None
    # llama.cpp sends `code: 500`, a status, where others have a name.
    own_code = error.get("code")
    code = _text(_mapping(error.get("details")).get("error_code")) or _text(own_code)
    effective = own_code if isinstance(own_code, int) and 400 <= own_code < 600 and status in (None, 200) else status
    message = _text(error.get("message")) or (_text(body) or "").strip()
    return Failed(
        reason=_reason(kind, code, effective, message),
        message=redacted(message) if message else f"an error without a message, HTTP status {status}",
        type=kind,
        status=status,
        code=code,
        retry_after=retry_after(headers),
        request_id=headers.get("request-id")
        or headers.get("x-amzn-requestid")
        or _text(_mapping(body).get("request_id")),
        billable=not _refused(body, kind, status, message),
    )


def _refused(body: object, kind: str | None, status: int | None, message: str) -> bool:
    """Whether nothing can have been billed."""
    if status in REFUSED:
        return True
    own = kind in REFUSALS and isinstance(_mapping(body).get("error"), Mapping)
    return status in REFUSED_BY_PROVIDER and own and not any(text in message.lower() for text in _BLOCKED_TEXT)


def _reason(kind: str | None, code: str | None, status: int | None, message: str) -> str:
    if code is not None and code.endswith(_SPEND_LIMIT_CODES):
        return "provider.spend_limit"
    if status == 400 and kind in (None, "invalid_request_error") and _SPEND_LIMIT_TEXT in message.lower():
        return "provider.spend_limit"
    if kind in TYPES:
        return TYPES[kind]
    if status in STATUSES:
        return STATUSES[status]
    if status is not None and status >= 500:
        return "provider.api_error"
    if status is not None and status >= 400:
        return "provider.invalid_request"
    return "provider.unknown"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def undecodable(what: str, data: bytes | str, *, limit: int = 120, request_id: str | None = None) -> Failed:
    """Bytes of a 200 answer that are not what they should be: `what` says so, and the first `limit` bytes stand by."""
    message = f"{what}: {redacted(data, limit)!r}"
    return Failed(reason="transport.decode", message=message, status=200, request_id=request_id)


def from_exception(error: BaseException, *, in_stream: bool) -> Failed | None:
    """What an exception of the SDK, of httpx2 or of aiohttp means; `None` if it is none of theirs.

    Before the response head, an error of connecting is `transport.connect`: nothing was sent. Any other break of the
    connection is `transport.reset`, be it in the middle of the request, before the head or in the stream; a body that
    ends without its final chunk is one too, whereas a body that ends in good order without `message_stop` is no failure
    of the transport and no exception.
    """
    anthropic = sys.modules.get("anthropic")
    if anthropic is not None and isinstance(error, anthropic.AnthropicError):
        return _from_sdk(anthropic, error, in_stream=in_stream)
    if isinstance(error, UnicodeDecodeError):
        return Failed(reason="transport.decode", message=f"the stream is no UTF-8: {error.reason}", status=200)
    if isinstance(error, json.JSONDecodeError):
        return Failed(reason="transport.decode", message=f"an event of the stream is no JSON: {error}", status=200)
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is None or not isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        return _broken(error, in_stream=in_stream) if isinstance(error, OSError) or _is_transport(error) else None
    if isinstance(error, httpx2.DecodingError):
        message = f"the body's compression is broken: {error}"
        return Failed(reason="transport.decode", message=message, status=200 if in_stream else None)
    connecting = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
    if not in_stream and isinstance(error, connecting | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        sent = _sent_by_aiohttp(error)
        return Failed(
            reason="transport.reset" if sent else "transport.connect",
            message=_words(error, "no connection"),
            sent=sent,
            billable=sent,
        )
    return _broken(error, in_stream=in_stream)


_OTHER_LOOP = (
    "the client has kept connections of another event loop; make a client inside of the loop that uses it, "
    "or call from threads through streamguard.sync"
)


def _from_sdk(anthropic: Any, error: BaseException, *, in_stream: bool) -> Failed | None:
    if isinstance(error, anthropic.APIStatusError):
        return from_body(error.body, status=error.status_code, headers=error.response.headers)
    if isinstance(error, anthropic.APIResponseValidationError):
        return Failed(reason="transport.decode", message=_words(error, "an event of the wrong form"), status=200)
    if isinstance(error, anthropic.APIConnectionError):
        cause = error.__cause__
        if type(cause) is RuntimeError and not in_stream:
            # asyncio writes before it notices: the request may have gone out all the same.
            return Failed(reason="transport.reset", message=f"{cause}: {_OTHER_LOOP}")
        named = from_exception(cause, in_stream=in_stream) if cause is not None else None
        return named or _broken(cause or error, in_stream=in_stream)
    if isinstance(error, anthropic.CredentialsError):
        message = _words(error, "no credentials")
        return Failed(reason="provider.authentication", message=message, sent=False, billable=False)
    return None


def _broken(error: BaseException, *, in_stream: bool) -> Failed:
    message = _words(error, "the connection broke")
    return Failed(reason="transport.reset", message=message, status=200 if in_stream else None)


def _is_transport(error: BaseException) -> bool:
    """Errors of the libraries below httpx2 that come through unmapped at times."""
    return type(error).__module__.partition(".")[0] in ("aiohttp", "anyio", "httpcore2", "h11", "h2", "ssl", "trio")


def _sent_by_aiohttp(error: BaseException) -> bool:
    """Whether the request may have been sent after all: aiohttp's transport calls any break a `ConnectError`."""
    names = {base.__name__ for base in type(error.__cause__).__mro__ if base.__module__.startswith("aiohttp")}
    return bool(names) and not names & {"ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError"}


def _words(error: BaseException, otherwise: str) -> str:
    return redacted(f"{type(error).__name__}: {str(error) or otherwise}", 300)
