"""Which headers go upstream, and which come back: allow-lists both ways.

Everything that is not on a list stays here: hop-by-hop headers and whatever `Connection` names, cookies, the client's
own credentials where the proxy has a key, and headers that would speak for another origin (CORS, HSTS, Alt-Svc).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_tz
from typing import Final

from streamguard.budgets.known_options import unbounded_beta
from streamguard.http.refusals import Refused
from streamguard.proxy.access import Headers

REQUEST: Final = frozenset({b"anthropic-version", b"anthropic-beta", b"user-agent"})
"""Request headers that are passed on."""

CREDENTIALS: Final = frozenset({b"x-api-key", b"authorization"})
"""Passed on only where the proxy has no key of its own; and then to the upstream, wherever the answer points."""

RESPONSE: Final = frozenset(
    {b"content-type", b"request-id", b"x-request-id", b"retry-after", b"retry-after-ms", b"x-should-retry"}
)
RESPONSE_PREFIXES: Final = (b"anthropic-", b"x-ratelimit-")
"""Response headers that are passed back."""

WAITS: Final = (b"retry-after", b"retry-after-ms")
"""How long to wait before the next request."""

_WAIT: Final = re.compile(rb"\d{1,8}(?:\.\d{1,9})?")
"""Up to three years, or a day in milliseconds. Gateways say times since 1970, and clients sleep for as long as they are
told."""

MAX_VALUE: Final = 8192
_VALUE: Final = re.compile(rb"[\x20-\x7e]{1,%d}" % MAX_VALUE)


def upstream_headers(
    headers: Headers, *, key: str | None, extra: Iterable[str] = (), content: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of the upstream request, but for `Host` and the body's length.

    :param key: the proxy's own key; None: the client's credentials are passed on.
    :param extra: names that the configuration adds.
    :param content: whether there is a body, which is JSON.
    :raises Refused: a header that is passed on cannot be; or there is no key at all.
    """
    wanted = REQUEST | {name.encode("ascii") for name in extra}
    out: list[tuple[bytes, bytes]] = []
    credentials: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"anthropic-beta":
            if known := _known_betas(_checked(name, value)):
                out.append((name, known))
        elif name in wanted:
            out.append((name, _checked(name, value)))
        elif name in CREDENTIALS and key is None:
            credentials.append((name, _checked(name, value)))
    if key is not None:
        credentials = [(b"x-api-key", key.encode("ascii"))]
    if not credentials:
        raise Refused("no_key")
    names = [name for name, _ in (*out, *credentials) if name != b"anthropic-beta"]
    if len(set(names)) < len(names):
        raise Refused("bad_header_value", "given twice")
    if content:
        out.append((b"content-type", b"application/json"))
    # A compressed stream is held back by compressors and hides where it was cut.
    return [*out, *credentials, (b"accept-encoding", b"identity")]


def _known_betas(value: bytes) -> bytes:
    """Those betas of which it is known that they leave the bill of a request as it is.

    A client chooses them, and a budget rests on what they do; others stay here.
    """
    names = [name.strip() for name in value.decode("ascii").split(",")]
    return ", ".join(name for name in names if name and unbounded_beta(name) is None).encode("ascii")


def client_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What of the upstream's response headers the client gets; names in lower case."""
    out = []
    for name, value in headers:
        lowered = name.lower()
        if (lowered in RESPONSE or lowered.startswith(RESPONSE_PREFIXES)) and _passes(lowered, value):
            out.append((lowered, value))
    return out


def _passes(name: bytes, value: bytes) -> bool:
    if name in WAITS and not _WAIT.fullmatch(value):
        return name == b"retry-after" and is_plain(value) and parsedate_tz(value.decode("ascii")) is not None
    return is_plain(value)


def is_plain(value: bytes) -> bool:
    """Whether a header's value is printable ASCII of a length that is passed on."""
    return _VALUE.fullmatch(value) is not None


def without(headers: Iterable[tuple[bytes, bytes]], names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers but for some."""
    return [(name, value) for name, value in headers if name not in names]


def _checked(name: bytes, value: bytes) -> bytes:
    if not _VALUE.fullmatch(value):
        raise Refused("bad_header_value", name.decode("ascii"))
    return value
