"""Bytes as they come, both ways: endpoints beside messages, and messages of routes without guards.

In charge of passing on one request and its response, and of how long that may take. What breaks upstream breaks here in
the same way: a body that was cut is cut for the client, never ended in good order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.events import Failed
from streamguard.http.client import HeaderList
from streamguard.http.refusals import error_body
from streamguard.proxy.answers.error_responses import status_of, type_of
from streamguard.proxy.answers.reply import Reply
from streamguard.proxy.config import PassThrough
from streamguard.proxy.headers import client_headers, is_plain
from streamguard.proxy.routes import Kind
from streamguard.proxy.upstream import Upstream, UpstreamAnswer
from streamguard.source import SourceFailed

_BODY_HEADERS: Final = (b"content-length", b"content-encoding")


class Clocks(msgspec.Struct, frozen=True):
    """How long an answer may take, in seconds."""

    first_byte: float
    """Until its head."""
    idle: float
    """Between two pieces of its body."""
    total: float
    """For all of it."""

    @classmethod
    def of(cls, config: PassThrough, *, kind: Kind, stream: bool) -> Clocks:
        """The clocks of an answer at an endpoint.

        :param stream: whether the client asks for a stream.
        """
        if kind != "messages":
            return cls(config.small, config.small, config.small)
        return cls(config.first_byte if stream else config.first_byte_json, config.idle, config.total)


async def relay(
    upstream: Upstream,
    reply: Reply,
    clocks: Clocks,
    *,
    method: str,
    path: str,
    query: bytes,
    headers: HeaderList,
    content: bytes | None,
) -> None:
    """Pass a request on, and the response back.

    :raises Cut: the response broke off: the client's connection must break off, too.
    """
    try:
        with (
            _late("timeout.total", f"the answer took longer than {clocks.total:g} s", clocks.total),
            _late(
                "timeout.connect", f"the upstream said nothing for {clocks.first_byte:g} s", clocks.first_byte
            ) as head,
        ):
            async with upstream.send(method, path, query, headers, content) as response:
                head.deadline = math.inf
                await _passed_on(response, reply, clocks)
    except SourceFailed as error:
        await _failed(reply, error.failed.reason, error.failed.message)
    except Exception as error:
        failed = failures.from_exception(error, in_stream=True)
        if failed is None:
            raise
        await _failed(reply, failed.reason, failed.message)


async def _passed_on(response: UpstreamAnswer, reply: Reply, clocks: Clocks) -> None:
    if 300 <= response.status < 400:
        raise SourceFailed(Failed(reason="provider.unknown", message="the upstream redirects, which is not followed"))
    body = [(name.lower(), value) for name, value in response.headers if name.lower() in _BODY_HEADERS]
    if odd := next((name for name, value in body if not is_plain(value)), None):
        message = f"the answer's {odd.decode('ascii')} has characters that are not passed on"
        raise SourceFailed(Failed(reason="transport.decode", message=message, status=response.status))
    idle = clocks.idle
    with _late("timeout.alive", "the upstream was silent for", idle) as clock:
        await reply.start(response.status, [*client_headers(response.headers), *body])
        # Moving a deadline costs more than a chunk does, so it is moved now and then.
        due = 0.0
        async for chunk in response.pieces():
            await reply.write(chunk)
            if (now := anyio.current_time()) > due:
                clock.deadline, due = now + idle, now + idle / 8
        clock.deadline = math.inf
        await reply.end()


@contextmanager
def _late(reason: str, message: str, seconds: float) -> Iterator[anyio.CancelScope]:
    """End the block after so many seconds. The message names `pass_through`, which says how many.

    :raises SourceFailed: it was ended.
    """
    with anyio.move_on_after(seconds) as clock:
        yield clock
    if clock.cancelled_caught:
        raise SourceFailed(Failed(reason=reason, message=f"{message} {seconds:g} s (pass_through)"))


class Cut(Exception):
    """A response that cannot be ended in good order."""


async def _failed(reply: Reply, reason: str, message: str) -> None:
    if reply.status is not None:
        raise Cut(f"{reason}: {message}")
    body = error_body(type_of(reason), message, {"reason": reason})
    await reply.whole(status_of(reason), [(b"content-type", b"application/json")], body)
