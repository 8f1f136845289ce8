"""Bedrock's errors in the provider's form: exceptions inside a stream, and bodies of HTTP errors.

Plain data and pure functions. The names are those of the service model of `bedrock-runtime` (botocore 1.44). Names
differ in their first letter between a stream (`throttlingException`) and HTTP (`ThrottlingException`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

TYPES: Final[Mapping[str, str]] = {
    "accessdeniedexception": "permission_error",
    "internalserverexception": "api_error",
    "modelerrorexception": "api_error",
    "modelnotreadyexception": "overloaded_error",
    "modelstreamerrorexception": "api_error",
    "modeltimeoutexception": "timeout_error",
    "resourcenotfoundexception": "not_found_error",
    "servicequotaexceededexception": "rate_limit_error",
    "serviceunavailableexception": "overloaded_error",
    "throttlingexception": "rate_limit_error",
    "validationexception": "invalid_request_error",
}
"""AWS's name of an exception, in lower case → the provider's type of error."""

BY_STATUS: Final = {429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error"}
"""Status that the model itself answered with → the provider's type of error."""


def error_event(name: str, said: Mapping[str, Any]) -> bytes:
    """Return the data of an `error` event for an exception inside a stream.

    :param name: AWS's name of the exception.
    :param said: its fields.
    """
    status = said.get("originalStatusCode")
    kind = TYPES.get(name.lower(), "api_error")
    if kind == "api_error" and isinstance(status, int):
        kind = BY_STATUS.get(status, kind)
    words = [text for key in ("message", "originalMessage") if isinstance(text := said.get(key), str) and text]
    message = ": ".join(dict.fromkeys(words)) or "no message"
    error = {"type": kind, "message": f"{message} ({name})" if name else message}
    return json.dumps({"type": "error", "error": error}).encode("ascii")


def http_error_type(headers: Mapping[str, str]) -> str | None:
    """Return the provider's type of an HTTP error of AWS; `None` if the response names none that is known.

    :param headers: the response's; `x-amzn-errortype` is like `ThrottlingException:http://internal.amazon.com/…`.
    """
    name = headers.get("x-amzn-errortype", "").partition(":")[0].strip().lower()
    return TYPES.get(name)
