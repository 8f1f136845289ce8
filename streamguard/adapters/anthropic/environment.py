"""The SDK's client as the environment says: where to, with which credentials, and what is said if there are none."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from streamguard.errors import JobError

NO_KEY = "none-needed-on-loopback"
"""Sent instead of a key to a server on this machine, which asks for none."""


DIRECT = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Places that no proxy of the environment stands before."""


def make_client(base_url: str | None, *, knob: str = "--base-url") -> Any:
    """An asynchronous client of the SDK, which never retries by itself.

    :param knob: what a person calls `base_url`.
    :raises JobError: there are no credentials for it, or nothing could be sent with what there is.
    """
    import anthropic

    from streamguard.adapters.anthropic.clients import certificate_mistake, problems, url_mistake

    url = base_url or os.environ.get("ANTHROPIC_BASE_URL")
    mistake = None if url is None else url_mistake(url)
    if mistake is not None:
        raise JobError(f"{knob if base_url else 'ANTHROPIC_BASE_URL'} {mistake}: must be like https://api.example.com")
    if (mistake := certificate_mistake(os.environ)) is not None:
        raise JobError(mistake)
    options: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
    if url is not None and is_loopback(url) and not has_credentials():
        options["api_key"] = NO_KEY
    here = url is not None and is_loopback(url)
    options["http_client"] = _http_client(anthropic)(**({"mounts": dict.fromkeys(DIRECT)} if here else {}))
    try:
        client = anthropic.AsyncAnthropic(max_retries=0, **options)
    except anthropic.AnthropicError as error:
        raise JobError(f"the client cannot be made: {error}") from error
    found = list(problems(client, None))
    if found and has_credentials():
        raise JobError(found)
    if found:
        raise JobError(f"no credentials: set ANTHROPIC_API_KEY (a {knob} on this machine can do without)")
    return client


def _http_client(anthropic: Any) -> Any:
    """The kind of HTTP client: the SDK's aiohttp one where aiohttp is installed, since it reads a stream for a fraction
    of the CPU."""
    there = importlib.util.find_spec("aiohttp") is not None
    return anthropic.DefaultAioHttpClient if there else anthropic.DefaultAsyncHttpxClient


def has_uvloop() -> bool:
    """Whether uvloop is installed: an event loop that wakes up for less."""
    return importlib.util.find_spec("uvloop") is not None


def has_credentials() -> bool:
    """Whether the environment has a key or a token of the provider's."""
    return any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"))


def checked_url(url: str | None, *, knob: str = "--base-url") -> str | None:
    """The URL, if it can be one of an API.

    :raises JobError: it cannot.
    """
    if url is None:
        return None
    from streamguard.adapters.anthropic.clients import url_mistake

    mistake = url_mistake(url)
    if mistake is not None:
        raise JobError(f"{knob} {mistake}: it must be like https://api.example.com")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query:
        raise JobError(f"{knob} must have no user, password or query: they would end up in logs")
    return url


def is_loopback(url: str) -> bool:
    """Whether it is this machine's."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
