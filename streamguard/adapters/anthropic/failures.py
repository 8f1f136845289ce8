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
from typing import Any, Final

from streamguard.adapters.anthropic.limits import limits_of
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
    "overloaded": "provider.overloaded",
    "service_unavailable_error": "provider.overloaded",
    "request_timeout_error": "provider.timeout",
    "rate_limit_exceeded": "provider.rate_limited",
    "invalid_api_key": "provider.authentication",
    # Bedrock, in its streams and in `x-amzn-errortype`.
    "throttlingexception": "provider.rate_limited",
    "modelnotreadyexception": "provider.overloaded",
    "modeltimeoutexception": "provider.timeout",
    "modelerrorexception": "provider.api_error",
    "modelstreamerrorexception": "provider.api_error",
    "internalserverexception": "provider.api_error",
    "serviceunavailableexception": "provider.overloaded",
    "validationexception": "provider.invalid_request",
    "accessdeniedexception": "provider.permission",
    "resourcenotfoundexception": "provider.not_found",
    "servicequotaexceededexception": "provider.rate_limited",
}
"""`error.type`, in lower case → reason. It decides before the status does, but for `GENERIC` and `TELLING`."""

GENERIC: Final = frozenset({"api_error", "server_error", "internal_server_error", "error"})
"""Types that gateways give to whatever went wrong: a status that says more decides."""

TELLING: Final = frozenset({401, 403, 429})
"""Statuses that decide whatever the type is: the key is wrong, or there were too many requests."""

STATUSES: dict[int, str] = {
    400: "provider.invalid_request",
    401: "provider.authentication",
    402: "provider.billing",
    403: "provider.permission",
    404: "provider.not_found",
    408: "provider.timeout",
    413: "provider.request_too_large",
    422: "provider.invalid_request",
    424: "provider.api_error",
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


def is_error(body: Mapping[str, Any], *, alone: bool = False) -> bool:
    """Return whether an object without a type is an error, in the words of some gateway.

    :param alone: whether nothing came behind it: then a lone `message` is no heartbeat's.
    """
    if any(body.get(name) for name in _ERRORS) or body.get("success") is False:
        return True
    status = next((_status(body.get(name)) for name in _STATUS if body.get(name) is not None), None)
    said = body.get("message") or body.get("title")
    return bool(said) and (status is not None or (alone and "message" in body))


_ERRORS: Final = ("error", "errors", "detail", "error_msg", "error_message", "errorMessage")
"""Members that only errors have."""


def last_words(said: object) -> Failed | None:
    """Return what a stream's last words mean that came in no form of the protocol, where the stream ends with them.

    :param said: an object, or text; `None` for none.
    :returns: the error that it is; a stream that broke off, with the words, if it is a sentence or a page; else `None`.
    """
    if isinstance(said, str):
        parsed = _parsed(said)
        said = parsed if isinstance(parsed, dict | list) else said
    if isinstance(said, dict | list):
        return from_body(said, status=200) if is_error(_first(said), alone=True) else None
    if not isinstance(said, str) or not (said[:1] == "<" or len(said.split()) > 1):
        return None
    what = f"the stream ended without its message_stop, and said last: {redacted(said, MESSAGE)!r}"
    return Failed(reason="transport.incomplete", message=what, status=200)


def from_body(body: object, *, status: int | None, headers: Mapping[str, str] | None = None) -> Failed:
    """Return what an error body means, of a response or of an `error` event inside a stream (then `status` is 200).

    Read are the forms of the provider and of gateways: `error`, `errors`, `detail` and `message` as an object, a list
    or a text, at the top or inside of `error`; and an event as the body of an error response. What is in none of them
    is told by the body's first `MESSAGE` characters.

    :param body: the parsed JSON, or the text where it is none.
    """
    headers = headers or {}
    if isinstance(body, str):
        body = _parsed(body)
    top = _first(body)
    error = _error(top)
    kind = _text(error.get("type"))
    if kind in ("error", "None", "null") or (kind is None and error is not top):
        kind = None if (own := _text(top.get("type"))) in ("error", "None", "null") else own
    kind = kind or http_error_type(headers)
    code = _text(_mapping(error.get("details")).get("error_code")) or _text(error.get("code")) or _text(top.get("code"))
    effective = status
    if status in (None, 200):
        # llama.cpp sends `code: 500`, a status, where others have a name; LiteLLM sends it as text.
        told = (_status(one.get(name)) for one in (error, top) for name in _STATUS)
        effective = next((one for one in told if one is not None), status)
    message = _said(error) or (_said(top) if error is not top else None)
    return Failed(
        reason=_reason(kind, code, effective, message or ""),
        message=redacted(message or _excerpt(body, status), MESSAGE),
        type=kind,
        status=status,
        code=code,
        retry_after=retry_after(headers),
        request_id=headers.get("request-id") or headers.get("x-amzn-requestid") or _text(top.get("request_id")),
        billable=not _refused(top, kind, status, message or ""),
        limits=limits_of(headers),
    )


def _refused(top: Mapping[str, Any], kind: str | None, status: int | None, message: str) -> bool:
    """Whether nothing can have been billed."""
    if status in REFUSED:
        return True
    own = kind in REFUSALS and isinstance(top.get("error"), Mapping)
    return status in REFUSED_BY_PROVIDER and own and not any(text in message.lower() for text in _BLOCKED_TEXT)


MESSAGE: Final = 500
"""Characters of a provider's words that are kept."""

_STATUS: Final = ("status_code", "statusCode", "code", "status", "originalStatusCode")
"""Where bodies have a status of their own."""

_DEPTH: Final = 4
"""Errors inside of errors that are looked into."""


def _parsed(text: str) -> object:
    """The JSON in a body of text: as it is, or as the data of an event; else the text."""
    said = text.strip()
    if said.startswith(("event:", "data:")):
        lines = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("data:")]
        said = "\n".join(lines)
    if said[:1] in ("{", "["):
        try:
            return json.loads(said)
        except (ValueError, RecursionError):
            return text
    return said or text


def _first(body: object) -> Mapping[str, Any]:
    """The object of a body; of a list, the first one."""
    if isinstance(body, list):
        body = next((one for one in body if isinstance(one, Mapping)), body[0] if body else None)
    if isinstance(body, str):
        return {"message": body}
    return _mapping(body)


def _error(top: Mapping[str, Any]) -> Mapping[str, Any]:
    """The innermost object that says what is wrong."""
    error = top
    for _ in range(_DEPTH):
        inner = next((found for name in _SAYS if (found := _first_object(error.get(name)))), None)
        if inner is None:
            break
        error = inner
    return error


_SAYS: Final = ("error", "errors", "detail", "message")


def _first_object(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, list):
        value = next((one for one in value if isinstance(one, Mapping)), None)
    return value if isinstance(value, Mapping) and value else None


def _said(error: Mapping[str, Any]) -> str | None:
    """The words of an error object."""
    for name in _WORDS:
        value = error.get(name)
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            value = "; ".join(value)
        if (text := _text(value)) is not None:
            return text.strip()
    return None


_WORDS: Final = (
    *("message", "error", "detail", "errors", "msg", "error_description", "title", "originalMessage"),
    *("error_msg", "error_message", "errorMessage", "text"),
)
"""Members that hold the words of an error, the surest first."""


def _excerpt(body: object, status: int | None) -> str:
    """What to say of a body that is in no form that is known."""
    if body in (None, "", {}, []):
        return f"an empty error, HTTP status {status}"
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    return text.strip() or f"an empty error, HTTP status {status}"


def _status(value: object) -> int | None:
    """An HTTP status of an error, as a number or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None


def _reason(kind: str | None, code: str | None, status: int | None, message: str) -> str:
    if code is not None and code.endswith(_SPEND_LIMIT_CODES):
        return "provider.spend_limit"
    if status == 400 and kind in (None, "invalid_request_error") and _SPEND_LIMIT_TEXT in message.lower():
        return "provider.spend_limit"
    kind = (kind or "").lower()
    known = TYPES.get(kind)
    if known in (None, "provider.invalid_request") and code is not None:
        known = TYPES.get(code.lower(), known)
    if status in TELLING and known not in _AS_TELLING.get(status, ()):
        return STATUSES[status]
    if known is not None and not (kind in GENERIC and status in STATUSES):
        return known
    if status in STATUSES:
        return STATUSES[status]
    if status is not None and 400 <= status < 500:
        return "provider.invalid_request"
    # Of a server, or inside an answer that had begun well: what can be asked again.
    return "provider.api_error" if status is not None and not 300 <= status < 400 else "provider.unknown"


_AS_TELLING: Final[Mapping[int | None, tuple[str, ...]]] = {
    401: ("provider.authentication", "provider.permission"),
    403: ("provider.permission", "provider.authentication", "provider.billing"),
    429: ("provider.rate_limited", "provider.spend_limit", "provider.overloaded", "provider.billing"),
}
"""Types that say more of such a status than it does itself."""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def undecodable(what: str, data: bytes | str, *, limit: int = 120, request_id: str | None = None) -> Failed:
    """Bytes of a 200 answer that are not what they should be: `what` says so, and the first `limit` bytes stand by."""
    message = f"{what}: {redacted(data, limit)!r}"
    return Failed(reason="transport.decode", message=message, status=200, request_id=request_id)


def connect_failed(error: BaseException, connect: float | None) -> Failed | None:
    """What a limit on connecting means that an HTTP client kept for us; `None` for any other exception.

    :param connect: the limit, in seconds.
    """
    causes = [error]
    while len(causes) < _DEPTH and causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if connect is None:
        return None
    knob = f"timeouts.connect is {connect:g} s"
    if any(_is_named(cause, "PoolTimeout") for cause in causes):
        message = (
            f"nothing was sent: no connection of the client's own pool was free for {connect:g} s ({knob}); give its "
            "HTTP client more (httpx2.Limits(max_connections=…)), or run fewer calls at once"
        )
        return Failed(reason="transport.pool", message=message, sent=False, billable=False)
    if any(_is_named(cause, "ConnectTimeout") for cause in causes):
        message = f"no connection for {connect:g} s ({knob})"
        return Failed(reason="timeout.connect", message=message, sent=False, billable=False)
    return None


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


def _is_named(error: BaseException, name: str) -> bool:
    """Whether it is an exception of this name of the client's, or of the library below it."""
    modules = (sys.modules.get(module) for module in ("httpx2", "httpcore2"))
    return any(module is not None and isinstance(error, getattr(module, name)) for module in modules)


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
