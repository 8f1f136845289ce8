"""Who may look at the live view, and who may act.

In charge of one decision per request, from its own words alone; it knows no route.

Without a token only this machine may look: the connection comes from a loopback address, and the `Host` it asks for is
one too, so that a name that a stranger's page resolves to 127.0.0.1 (DNS rebinding) is refused. With a token everything
but the page's own files, which hold nothing, needs `Authorization: Bearer`.

Acts need the header `x-streamguard: view` as well. A page of another origin can send it only after asking first, which
nobody here answers; and where the browser says from which site a request comes, it must be this one. A cookie is never
used, so there is nothing to ride on.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from streamguard.errors import ConfigError

SHORTEST_TOKEN: Final = 16
"""Characters a token must have: guessing 16 hexadecimal digits over HTTP takes longer than anybody has."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not answered."""

    status: int
    why: str


def checked_token(token: str | None) -> str | None:
    """The token, if it can be one.

    :raises ConfigError: it is too short, or cannot stand in a header.
    """
    if token is None:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"a token of the live view has at least {SHORTEST_TOKEN} printable ASCII characters without spaces, such as"
            f" {secrets.token_urlsafe(SHORTEST_TOKEN)}"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refused(scope: Mapping[str, Any], token: str | None, *, public: bool) -> Refusal | None:
    """Why a request (an ASGI scope) is refused; `None` if it is not.

    :param public: whether it asks for a file of the page's own.
    """
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if token is None:
        refusal = _not_from_here(scope, headers)
    else:
        refusal = None if public or _bears(headers, token) else Refusal(401, "the live view needs its token")
    if refusal is None and scope["method"] not in ("GET", "HEAD"):
        refusal = _from_elsewhere(headers)
    return refusal


def _not_from_here(scope: Mapping[str, Any], headers: Mapping[str, str]) -> Refusal | None:
    client = scope.get("client")
    if client is None or not is_loopback(str(client[0])):
        return Refusal(403, "without a token the live view answers this machine only")
    host = _host(headers.get("host", ""))
    if host is None or not is_loopback(host):
        return Refusal(403, "without a token the live view is asked for as localhost, 127.0.0.1 or [::1]")
    return None


def _bears(headers: Mapping[str, str], token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token.encode())


def _from_elsewhere(headers: Mapping[str, str]) -> Refusal | None:
    if headers.get("x-streamguard") != "view":
        return Refusal(403, "an act needs the header x-streamguard: view")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return Refusal(403, "an act comes from the live view's own page")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return Refusal(403, "an act comes from the live view's own page")
    return None


def _host(header: str) -> str | None:
    """The name in a `Host` header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
