"""What is served: every path by name, and which policy a request gets.

In charge of the allow-list of paths, and of choosing the policy: by the header where that is allowed, then by the first
route that matches, else the default. What is not in this file's table is not served.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from streamguard.http.refusals import Refused
from streamguard.proxy.access import Headers, value
from streamguard.proxy.config import ProxyConfig
from streamguard.redaction import redacted

CHOOSE: Final = "x-streamguard-policy"
"""The request header that names a policy."""

GROUP: Final = "x-streamguard-group"
"""The request header that names the run a call is a step of; for the live view and the records."""

Kind = Literal["messages", "count_tokens", "models"]

_QUERY: Final = re.compile(rb"[A-Za-z0-9._~%=&:+-]{0,1024}")
_MODEL: Final = re.compile(r"/v1/models(?:/[A-Za-z0-9][A-Za-z0-9._:@-]{0,199})?")

METHODS: Final[Mapping[Kind, str]] = {"messages": "POST", "count_tokens": "POST", "models": "GET"}
_PATHS: Final[Mapping[str, Kind]] = {"/v1/messages": "messages", "/v1/messages/count_tokens": "count_tokens"}


_UNVERSIONED: Final = frozenset({"/messages", "/messages/count_tokens", "/models"})

_CAUSES: Final[Mapping[re.Pattern[str], str]] = {
    re.compile(r"/(chat/completions|completions|responses|embeddings)/?$"): (
        "This is a path of OpenAI's API: choose Anthropic as the client's provider"
    ),
    re.compile(r"/v1/.*/v1(/|$)|/v1/messages/.*messages"): (
        "The client adds a path to its base URL: give it the proxy's address alone"
    ),
    re.compile(r"//|/$"): "A slash is too many: leave the one at the end of the base URL out",
    re.compile(r"^/(v1)?$"): "This is a base URL: the client has to add /v1/messages to it",
    re.compile(r"/(messages/batches|files|skills|agents|complete)(/|$)"): (
        "This endpoint is not passed on: ask the provider itself for it"
    ),
}
"""How a path that is not served looks → why it was asked for, as a rule."""


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint of the upstream's that a request is for."""

    kind: Kind
    path: str
    """As the upstream is asked: a constant, or a model's name of harmless characters after one."""
    prefix: str
    """The route's prefix that stood before it."""


class Routes:
    """The table of a configuration."""

    def __init__(self, config: ProxyConfig, default: str) -> None:
        self._routes = config.routes
        self._by_header = frozenset(config.by_header)
        self._default = default
        self._prefixes = sorted({route.path for route in config.routes if route.path}, key=len, reverse=True)

    def endpoint(self, method: str, path: str) -> Endpoint:
        """The endpoint of a request.

        :raises Refused: there is none, or it does not take the method.
        """
        prefix = next((prefix for prefix in self._prefixes if path.startswith(prefix + "/")), "")
        rest = _one_version(path.removeprefix(prefix))
        kind: Kind | None = _PATHS.get(rest) or ("models" if _MODEL.fullmatch(rest) else None)
        if kind is None:
            raise Refused("no_such_path", _way_out(path, self._prefixes))
        if method != METHODS[kind]:
            raise Refused("wrong_method", headers={"allow": METHODS[kind]})
        return Endpoint(kind, rest, prefix)

    def policy(self, headers: Headers, prefix: str, model: str | None) -> str:
        """The name of the policy for a request.

        :raises Refused: it names one that it may not choose.
        """
        chosen = value(headers, CHOOSE.encode())
        if chosen is not None or any(name == CHOOSE.encode() for name, _ in headers):
            if chosen not in self._by_header:
                raise Refused("unknown_policy", headers={"vary": CHOOSE})
            return chosen
        return next((route.policy for route in self._routes if route.matches(prefix, model)), self._default)


def _one_version(path: str) -> str:
    """Return the path with `/v1` once: base URLs have it or lack it, and clients add it or not. What goes upstream is
    one of the served paths all the same.
    """
    while path.startswith("/v1/v1/"):
        path = path.removeprefix("/v1")
    return path if path.startswith("/v1/") or path not in _UNVERSIONED else "/v1" + path


def _way_out(path: str, prefixes: Sequence[str]) -> str:
    """Say what was asked for, what is served, and the usual cause."""
    served = "POST /v1/messages, POST /v1/messages/count_tokens, GET /v1/models"
    under = f", each also under {', '.join(prefixes)}" if prefixes else ""
    cause = next((cause for ending, cause in _CAUSES.items() if ending.search(path)), None)
    found = f"{redacted(path, 200)!r}. Served are {served}{under}"
    return found if cause is None else f"{found}. {cause}"


def checked_query(query: bytes) -> bytes:
    """A query that is passed on.

    :raises Refused: it has characters that need not be there.
    """
    if not _QUERY.fullmatch(query):
        raise Refused("bad_query")
    return query


def group_of(headers: Headers) -> str | None:
    """The run that a call belongs to: a short plain name, or nothing."""
    given = value(headers, GROUP.encode())
    return given if given is not None and re.fullmatch(r"[\w .:@/-]{1,100}", given, re.ASCII) else None
