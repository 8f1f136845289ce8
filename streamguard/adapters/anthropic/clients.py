"""Clients of the `anthropic` SDK: which can be used, and copies with a connection pool of their own.

Connections belong to the event loop that opened them, and a synchronous client has none that a loop could use. What
is copied is what the SDK makes public. A client's own HTTP client (proxies, certificates, transports) cannot be copied:
where one is in use the caller says how to make another.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio

from streamguard.errors import ConfigError, Problem
from streamguard.files.extras import needs

POOL_CLOSE_LIMIT = 0.03
"""Seconds that closing a pool may take. A twin's is closed after its stream (`source.CLOSE_LIMIT`), both within the
0.1 s that a call may outlast its deadline."""


def is_async(client: Any) -> bool:
    """Whether it is one of the SDK's asynchronous clients."""
    return hasattr(client, "__aenter__")


def problems(client: Any, http_client: Callable[[], Any] | None) -> Iterator[Problem]:
    """Why a client cannot be used, if it cannot."""
    import anthropic

    if not hasattr(client, "messages") or not hasattr(client, "with_options"):
        yield Problem(problem=f"{type(client).__name__} is no client of the anthropic SDK: pass an `AsyncAnthropic`")
        return
    base = type(client) in (anthropic.Anthropic, anthropic.AsyncAnthropic)
    if base and not _has_credentials(client):
        yield Problem(problem="the client has no credentials: set ANTHROPIC_API_KEY or pass `api_key=`")
    yield from _unsendable(client)
    yield from _unsigned(client)
    if is_async(client):
        return
    if not isinstance(client, anthropic.Anthropic | anthropic.AnthropicBedrock):
        yield Problem(problem=f"{type(client).__name__} is synchronous: pass its asynchronous counterpart")
    elif any(not isinstance(entry, anthropic.Middleware) for entry in client.middleware):
        yield Problem(problem="the client has a synchronous middleware function: pass an `AsyncAnthropic`")
    elif http_client is None and _own_http_client(client) not in (None, "SyncHttpxClientWrapper"):
        yield Problem(problem=_NEEDS_HTTP_CLIENT)


_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
"""What a credential can be in a header: RFC 9110, 5.5, without what is obsolete."""


def _unsendable(client: Any) -> Iterator[Problem]:
    """Mistakes on this machine that would look like the provider's: nothing could be sent, however often one tries."""
    for name, variable in (("api_key", "ANTHROPIC_API_KEY"), ("auth_token", "ANTHROPIC_AUTH_TOKEN")):
        value = getattr(client, name, None)
        if isinstance(value, str) and value and _HEADER_VALUE.fullmatch(value) is None:
            yield Problem(
                problem=f"the client's {name} holds a line break, a blank at its end or another character that no "
                f"header can carry; see where it is set, such as {variable} in a file with Windows line ends"
            )
    mistake = url_mistake(str(getattr(client, "base_url", None) or "https://localhost"))
    if mistake is not None:
        yield Problem(problem=f"the client's base_url {mistake}; it must be like https://api.example.com")


def _unsigned(client: Any) -> Iterator[Problem]:
    """A client that signs its requests needs botocore, for which the SDK asks when it sends."""
    import anthropic

    if not isinstance(client, anthropic.AnthropicBedrock | anthropic.AsyncAnthropicBedrock) or client.api_key:
        return
    try:
        with needs("a client of Bedrock's that signs requests", "bedrock"):
            import botocore  # noqa: F401
    except ConfigError as error:
        yield from error.problems


def url_mistake(url: str) -> str | None:
    """What keeps a URL from being one of an API; `None` if nothing does. The URL itself is not repeated."""
    if re.search(r"[\s\x00-\x20\x7f]|%20|%0[0-9a-f]", url, re.IGNORECASE) is not None:
        return "holds a blank or a line break"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return "has no port from 1 to 65535" if "ort" in str(error) else "cannot be read"
    if parts.scheme not in ("http", "https"):
        return "begins with neither http:// nor https://"
    if not host:
        return "names no host"
    return "has no port from 1 to 65535" if port == 0 else None


def certificate_mistake(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the certificates that the environment names; `None` if nothing is."""
    for variable, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        place = environment.get(variable)
        if place and not is_there(place):
            return f"{variable} names {place}, which is not there"
    return None


@asynccontextmanager
async def isolated(client: Any, http_client: Callable[[], Any] | None) -> AsyncIterator[Any]:
    """A copy of `client` (of a synchronous one, an asynchronous twin) with a pool of its own, closed at exit.

    :raises ConfigError: the client has an HTTP client of its own making, and `http_client` does not make another.
    """
    pool = _new_pool(client, http_client)
    try:
        yield client.copy(http_client=pool) if is_async(client) else _twin(client, pool)
    finally:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + POOL_CLOSE_LIMIT):
            await pool.aclose()


_NEEDS_HTTP_CLIENT = (
    "the client has an `http_client` of its own, whose connections belong to one event loop: "
    "pass `http_client=`, a function that makes an `httpx2.AsyncClient` like it"
)


def _own_http_client(client: Any) -> str | None:
    """The class of the client's HTTP client; the SDK keeps it private, so it is used for refusals only."""
    inner = getattr(client, "_client", None)
    return type(inner).__name__ if inner is not None else None


def _new_pool(client: Any, http_client: Callable[[], Any] | None) -> Any:
    import anthropic

    if http_client is not None:
        return http_client()
    mistake = certificate_mistake(os.environ)
    if mistake is not None:
        raise ConfigError(mistake)
    inner = getattr(client, "_client", None)
    if type(inner) is anthropic.DefaultAioHttpClient:
        return anthropic.DefaultAioHttpClient()
    if is_async(client) and _own_http_client(client) not in (None, "AsyncHttpxClientWrapper"):
        raise ConfigError(_NEEDS_HTTP_CLIENT)
    return anthropic.DefaultAsyncHttpxClient()


_OF_AWS = ("api_key", "aws_secret_key", "aws_access_key", "aws_region", "aws_profile", "aws_session_token")
"""Who a Bedrock client is, by its own arguments."""


def _twin(client: Any, pool: Any) -> Any:
    import anthropic

    kind: Any = anthropic.AsyncAnthropic
    if isinstance(client, anthropic.AnthropicBedrock):
        kind = anthropic.AsyncAnthropicBedrock
        identity = {name: getattr(client, name, None) for name in _OF_AWS}
    else:
        # One credential at the most, in the SDK's own order.
        names = (name for name in ("api_key", "auth_token", "credentials") if getattr(client, name, None) is not None)
        identity = {name: getattr(client, name) for name in list(names)[:1]}
    twin = kind(
        **identity,
        base_url=client.base_url,
        timeout=client.timeout,
        max_retries=client.max_retries,
        default_query=client.default_query or None,
        http_client=pool,
        middleware=client.middleware,
    )
    # What a pristine client would not send, the caller or the credential's profile added.
    own = {"user-agent": client.user_agent, "x-stainless-async": "false", **_lowered(twin.default_headers)}
    added = {name: value for name, value in client.default_headers.items() if own.get(name.lower()) != value}
    return twin.with_options(default_headers=added) if added else twin


def _lowered(headers: Any) -> dict[str, Any]:
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() not in ("user-agent", "x-stainless-async")
    }


def _has_credentials(client: Any) -> bool:
    if any(getattr(client, name, None) is not None for name in ("api_key", "auth_token", "credentials")):
        return True
    return any(name.lower() in ("authorization", "x-api-key") for name in client.default_headers)
