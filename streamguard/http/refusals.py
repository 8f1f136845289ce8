"""What the proxy refuses by itself, before anything is sent upstream: every case by name, with its status.

Plain data. A refusal's body has the form of the provider's own errors, so that SDKs raise what they raise anyway; its
name stands in the response's `x-streamguard-refused`, in the metrics and in the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    414: "invalid_request_error",
    415: "invalid_request_error",
    417: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    505: "invalid_request_error",
    529: "overloaded_error",
}
"""HTTP status → the provider's type of error (https://platform.claude.com/docs/en/api/errors)."""

PHRASES: Final[Mapping[int, str]] = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
"""The statuses that are answered before there is a request."""

REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    # The message itself: framing
    "bad_line_end": (400, "a line of the request's head does not end in CR LF"),
    "bad_request_line": (400, "the request line is not `METHOD /path HTTP/1.1`"),
    "bad_target": (400, "the request's target is no plain path: absolute URLs, `*` and authorities are not taken"),
    "bad_version": (505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
    "bad_method": (405, "this method is not taken"),
    "bad_header": (400, "a header line is malformed"),
    "folded_header": (400, "a header is continued on a second line (obsolete line folding)"),
    "bad_host": (400, "the request needs exactly one Host header"),
    "bad_content_length": (400, "Content-Length is no plain number, or is given more than once"),
    "bad_transfer_encoding": (400, "Transfer-Encoding must be `chunked`, once, in HTTP/1.1"),
    "two_lengths": (400, "Content-Length and Transfer-Encoding contradict each other"),
    "bad_chunk": (400, "a chunk of the body is malformed: sizes are hexadecimal, without extensions"),
    "bad_trailer": (400, "the body has trailers, which are not taken"),
    "tiny_chunks": (400, "the body comes in too many tiny chunks"),
    "bodyless_method": (400, "a request of this method has no body"),
    "head_too_large": (431, "the request's head is too large"),
    "too_many_headers": (431, "the request has too many headers"),
    "target_too_long": (414, "the request's target is too long"),
    "body_too_large": (413, "the request's body is too large"),
    "slow_head": (408, "the request's head did not arrive in time"),
    "slow_body": (408, "the request's body did not arrive in time"),
    "too_many_connections": (503, "too many clients are connected"),
    "bad_expectation": (417, "only `Expect: 100-continue` is understood"),
    # Who asks, and from where: access
    "wrong_host": (421, "this Host is not served here; name it under `hosts` of the proxy's configuration"),
    "cross_origin": (403, "requests of web pages from elsewhere are not taken"),
    "no_token": (401, "a client token is needed: `x-streamguard-token`, or `x-api-key` or `authorization: Bearer`"),
    "wrong_token": (401, "the client token is not known"),
    "not_operator": (403, "this needs an operator's token"),
    # What is asked: routes, headers and body
    "no_such_path": (404, "this path is not served here"),
    "wrong_method": (405, "this path does not take this method"),
    "bad_query": (400, "the query has characters that are not taken, or is too long"),
    "bad_content_type": (415, "the body must be `application/json`"),
    "bad_content_encoding": (415, "the body may be plain or gzip"),
    "bad_compression": (400, "the body's gzip compression is broken"),
    "bad_json": (400, "the body is no JSON object"),
    "too_many_values": (400, "the body has too many JSON values"),
    "duplicate_name": (400, "a name stands twice in one object of the body, which readers would read differently"),
    "bad_request": (400, "the body is no Messages request"),
    "bad_header_value": (400, "a header that is passed on has characters that are not taken, or is given twice"),
    "no_key": (401, "the proxy has no key of its own, and the request brings none (`x-api-key`)"),
    "unknown_policy": (400, "this policy cannot be chosen by header"),
    "too_many_requests": (429, "this client has too many requests under way"),
    "no_memory": (503, "the requests under way take all the memory there is for their bodies"),
    "draining": (503, "the proxy is shutting down"),
}
"""Name → status and what is wrong, in one sentence."""


class Refused(Exception):
    """A request that is not taken. Nothing of it was sent upstream."""

    def __init__(self, name: str, detail: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.status, said = REFUSALS[name]
        self.message = f"{said}: {detail}" if detail else said
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def body(self) -> bytes:
        """The response's body."""
        return error_body(TYPES[self.status], self.message, {"refused": self.name})


def error_body(kind: str, message: str, streamguard: Mapping[str, object], request_id: str | None = None) -> bytes:
    """An error in the provider's form; what is ours stands in `error.details.streamguard`."""
    error = {"type": kind, "message": message, "details": {"streamguard": dict(streamguard)}}
    body: dict[str, object] = {"type": "error", "error": error}
    if request_id is not None:
        body["request_id"] = request_id
    # ASCII, so that no text of a model or provider can hide anything in a log or terminal.
    return json.dumps(body).encode("ascii")
