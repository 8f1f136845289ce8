"""Who asks: the client's token, and whether a web page is behind the request.

In charge of turning a request's head into a `Caller` or a refusal. A proxy on loopback is reached by every page that a
browser on this machine shows, by name (DNS rebinding) or by form; hence the checks of Host and Origin, which no other
client notices.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from streamguard.http.refusals import Refused
from streamguard.proxy.config import ProxyConfig

OWN: Final = "x-streamguard-token"
"""The header for a client's token; where the proxy has the provider's key, the usual two are read as well."""

LOCAL: Final = "local"
"""What everybody is called where nobody needs a token."""

MOST_CREDENTIALS: Final = 3
"""Headers of a request that are tried as a client's token to guess who asks; honest ones have one."""

_CREDENTIAL: Final = re.compile(
    rb"\r\n(?:x-streamguard-token|x-api-key|authorization):[ \t]*(?:bearer +)?([^\r\n]{1,512})(?=\r)", re.IGNORECASE
)

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""


class Caller(msgspec.Struct, frozen=True):
    """Somebody who may ask."""

    name: str
    operator: bool = False


class Access:
    """Judges heads of requests.

    :param tokens: client's name → token.
    :param has_key: whether the proxy has the provider's key, so that clients bring none.
    """

    def __init__(self, config: ProxyConfig, tokens: Mapping[str, str], *, has_key: bool) -> None:
        self._callers = {
            _digest(tokens[client.name]): Caller(client.name, client.operator) for client in config.clients
        }
        self._has_key = has_key
        self._origins = frozenset(config.origins)
        own = config.listen.host
        hosts = {*config.hosts, f"[{own}]" if ":" in own else own.lower()}
        if config.listen.loopback:
            hosts |= {"localhost", "127.0.0.1", "[::1]"}
        # A name that only others know the proxy by is not refused: there, the token protects.
        self._hosts = frozenset(hosts) if config.listen.loopback or config.hosts else None

    def caller(self, headers: Headers) -> Caller:
        """Who asks.

        :raises Refused: nobody who may.
        """
        self.check_place(headers)
        if not self._callers:
            return Caller(LOCAL, operator=True)
        token = self._token(headers)
        if token is None:
            raise Refused("no_token", headers={"www-authenticate": "Bearer"})
        found = self._known(token)
        if found is None:
            raise Refused("wrong_token", headers={"www-authenticate": "Bearer"})
        return found

    def guess(self, first: bytes) -> str | None:
        """Who seems to ask, by the first bytes of a connection: for its turn, and for nothing else."""
        if not self._callers:
            return LOCAL
        for found in islice(_CREDENTIAL.finditer(first), MOST_CREDENTIALS):
            caller = self._known(found[1].strip().decode("latin-1"))
            if caller is not None:
                return caller.name
        return None

    def is_operator(self, headers: Headers) -> bool:
        """Whether the request bears an operator's token (`authorization: Bearer`, as the live view's page sends it)."""
        caller = self._known(_bearer(headers) or "")
        return caller is not None and caller.operator

    def _known(self, token: str) -> Caller | None:
        presented = _digest(token)
        found = None
        # All are compared, whichever it is, so that the time says nothing.
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, presented):
                found = caller
        return found

    def check_place(self, headers: Headers) -> None:
        """Refuse requests under a name that is not ours, and those that a foreign web page makes a browser send.

        :raises Refused: it is one of them.
        """
        host = value(headers, b"host") or ""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts is not None and name.lower() not in self._hosts:
            raise Refused("wrong_host")
        origin = value(headers, b"origin")
        if origin is not None:
            if origin not in self._origins and origin.partition("://")[2] != host:
                raise Refused("cross_origin")
        elif value(headers, b"sec-fetch-site") in ("cross-site", "same-site"):
            raise Refused("cross_origin")

    def _token(self, headers: Headers) -> str | None:
        own = value(headers, OWN.encode())
        if own is not None or not self._has_key:
            return own
        return value(headers, b"x-api-key") or _bearer(headers)


def value(headers: Headers, name: bytes) -> str | None:
    """A header's value; of several, none: who sends two credentials may mean either."""
    found = [value for key, value in headers if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = (value(headers, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
