"""Bytes as they come, both ways: endpoints beside messages, and messages of routes without guards.

In charge of passing on one request and its response. What breaks upstream breaks here in the same way: a body that was
cut is cut for the client, never ended in good order.
"""

from __future__ import annotations

from typing import Final

import anyio

from streamguard.adapters.anthropic import failures
from streamguard.http.client import HeaderList
from streamguard.http.refusals import error_body
from streamguard.proxy.answers.error_responses import status_of, type_of
from streamguard.proxy.answers.reply import Reply
from streamguard.proxy.headers import client_headers
from streamguard.proxy.upstream import Upstream
from streamguard.source import SourceFailed

SECONDS: Final = 600.0
"""For which the upstream may be silent, before its head and between bytes: the SDKs' own default."""

_BODY_HEADERS: Final = (b"content-length", b"content-encoding")


async def relay(
    upstream: Upstream,
    reply: Reply,
    *,
    method: str,
    path: str,
    query: bytes,
    headers: HeaderList,
    content: bytes | None,
    seconds: float = SECONDS,
) -> None:
    """Pass a request on, and the response back.

    :param seconds: for which the upstream may be silent.
    :raises Cut: the response broke off: the client's connection must break off, too.
    """
    try:
        with anyio.fail_after(seconds) as clock:
            async with upstream.send(method, path, query, headers, content) as response:
                kept = [(name.lower(), value) for name, value in response.headers]
                body = [(name, value) for name, value in kept if name in _BODY_HEADERS]
                if 300 <= response.status < 400:
                    await _failed(reply, "provider.unknown", "the upstream redirects, which is not followed")
                    return
                await reply.start(response.status, [*client_headers(response.headers), *body])
                # Moving a deadline costs more than a chunk does, so it is moved now and then.
                due = 0.0
                async for chunk in response.pieces():
                    await reply.write(chunk)
                    if (now := anyio.current_time()) > due:
                        clock.deadline, due = now + seconds, now + seconds / 8
                await reply.end()
    except SourceFailed as error:
        await _failed(reply, error.failed.reason, error.failed.message)
    except TimeoutError:
        await _failed(reply, "timeout.alive", f"the upstream was silent for {seconds:g} s")
    except Exception as error:
        failed = failures.from_exception(error, in_stream=True)
        if failed is None:
            raise
        await _failed(reply, failed.reason, failed.message)


class Cut(Exception):
    """A response that cannot be ended in good order."""


async def _failed(reply: Reply, reason: str, message: str) -> None:
    if reply.status is not None:
        raise Cut(f"{reason}: {message}")
    body = error_body(type_of(reason), message, {"reason": reason})
    await reply.whole(status_of(reason), [(b"content-type", b"application/json")], body)
