"""Where a job's rows and the key may go: to the provider, and to whom the operator names.

In charge of one question: files come from elsewhere, and a line in one of them must not send a key to a stranger. What
the command line and the environment name is the operator's word; what a job file, a policy or a journal names is shown,
and needs that word.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec

from streamguard.adapters.anthropic.environment import has_credentials, is_loopback
from streamguard.errors import Problem
from streamguard.policy.model import Policy

PROVIDER: Final = "api.anthropic.com"
"""The provider's own host, which is always allowed."""


class Place(msgspec.Struct, frozen=True):
    """An address that a file names."""

    url: str
    file: str
    pointer: str

    @property
    def host(self) -> str:
        """Its host."""
        return _host(self.url)


def named(policy: Policy, file: str) -> Iterator[Place]:
    """The addresses that a policy's rules name."""
    for index, rule in enumerate(policy.retry.rules):
        if rule.base_url is not None:
            yield Place(rule.base_url, file, f"/retry/rules/{index}/base_url")


class Allowed:
    """The hosts that the operator allows.

    :param hosts: by `--allow-host`: `HOST`, or `HOST:PORT` for that port alone.
    :param base_url: by `--base-url`.
    """

    def __init__(self, hosts: Iterable[str] = (), base_url: str | None = None) -> None:
        own = [PROVIDER, *(_host(url) for url in (base_url, os.environ.get("ANTHROPIC_BASE_URL")) if url)]
        self._hosts = frozenset(host.lower() for host in (*own, *hosts))

    def __contains__(self, place: Place) -> bool:
        """Whether rows and the key may go there. To this machine rows may, where there is no key."""
        port = urlsplit(place.url).port
        bracketed = f"[{place.host}]" if ":" in place.host else place.host
        if {place.host, f"{bracketed}:{port}"} & self._hosts:
            return True
        return is_loopback(place.url) and not has_credentials()

    def problems(self, places: Iterable[Place]) -> Iterator[Problem]:
        """What is wrong with addresses that files name."""
        for place in places:
            if place not in self:
                what = f"{place.url} would get the rows and the key; if you trust it, say --allow-host {place.host}"
                yield Problem(file=place.file, pointer=place.pointer, problem=what)

    def notices(self, places: Iterable[Place]) -> Iterator[str]:
        """What is worth knowing about addresses that files name."""
        for place in places:
            yield f"{place.file}: {place.pointer}: rows and the key go to {place.url}"
            if urlsplit(place.url).scheme == "http" and not is_loopback(place.url):
                yield f"{place.file}: {place.pointer}: in plain http: whoever is on the way reads rows and key"


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
