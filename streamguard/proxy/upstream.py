"""The one upstream: a fixed origin, asked over few connections; and a Messages request to it as a `Source`.

In charge of requests that leave the process. Scheme, host, port and path prefix come from the configuration, the rest
of the path from a route's constant. There are no redirects, no cookies, no environment: what is asked for here is all
that is asked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpcore2
import msgspec

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.stream import BodyStream
from streamguard.adapters.aws import bedrock
from streamguard.adapters.aws.event_stream import CONTENT_TYPE as AWS_STREAM
from streamguard.adapters.aws.signing import Signer
from streamguard.adapters.sse.content_encoding import Decompressor, UnreadableEncoding, decompressor
from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES
from streamguard.events import Delta, Event, Failed, Ping
from streamguard.http.client import Answer, HeaderList, Origin
from streamguard.http.network import Network
from streamguard.proxy.body import Asked, content_of
from streamguard.proxy.config import ProxyConfig
from streamguard.proxy.headers import WAITS, client_headers
from streamguard.proxy.key_mask import KeyMask
from streamguard.redaction import EXCERPT_BYTES, redacted
from streamguard.request import Request
from streamguard.source import CLOSE_LIMIT, Attempt, SourceFailed

MAX_STATUS: Final = 599
"""The last status that HTTP has (RFC 9110, 15)."""

MAX_IDLE_EVENTS: Final = 20_000
"""Events of an answer that are no output: starts and ends of blocks, pings, comments, what is unknown. A long answer of
many tool calls has a few hundred; they are kept until something is released."""

IDLE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of an answer without output, beside one event's: pings every second for a day take as many."""

ERROR_BYTES: Final = 65_536
"""The most of an error's body that is read and handed on."""

_CONNECTING: Final = (
    *(httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout, httpcore2.ProxyError),
    *(httpcore2.UnsupportedProtocol, httpcore2.LocalProtocolError),
)


_MESSAGES: Final = "/v1/messages"

_OF_THE_CODING: Final = frozenset({b"content-encoding", b"content-length"})
"""Headers that are not true of a body any more once it is decompressed."""


class Answered(msgspec.Struct, frozen=True):
    """An answer of the upstream's that is no stream: an error, mostly."""

    status: int
    headers: HeaderList
    """Those that a client gets."""
    body: bytes
    in_form: bool = False
    """Whether the body is an error in the provider's form, not some gateway's page."""
    says_when: bool = False
    """Whether it says when to come back, in whatever form."""


class Upstream:
    """The upstream's origin and the connections to it. Belongs to one event loop.

    :param key: the proxy's own key, which is taken out of every answer.
    :param signer: signs requests, where the upstream is AWS.
    """

    def __init__(self, config: ProxyConfig, key: str | None = None, signer: Signer | None = None) -> None:
        self.mask = KeyMask(key)
        """Takes the proxy's own key out of what is said to clients."""
        self.bedrock = config.upstream_api == "bedrock"
        """Whether it speaks Bedrock's form of the Messages API."""
        self._signer = signer
        self.url = config.upstream
        parts = urlsplit(config.upstream)
        secure = parts.scheme == "https"
        self._prefix = parts.path.encode("ascii")
        self._netloc = parts.netloc.encode("idna") if ":" not in (parts.hostname or "") else parts.netloc.encode()
        self.origin = Origin(
            Network(public_only=config.upstream_addresses == "public"),
            (parts.hostname or "").encode("idna").decode("ascii"),
            parts.port or (443 if secure else 80),
            tls=httpcore2.default_ssl_context() if secure else None,
        )

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: HeaderList,
        content: bytes | None,
        *,
        connect: float | None = None,
    ) -> AsyncIterator[UpstreamAnswer]:
        """The response to one request, its head arrived. Leaving closes it.

        :param path: a route's constant.
        :param connect: seconds that a new connection may take; `None` for no limit.
        :raises SourceFailed: no connection, or no response head.
        """
        target = self._prefix + path.encode("ascii") + (b"?" + query if query else b"")
        length = [] if content is None else [(b"content-length", b"%d" % len(content))]
        try:
            asked = [(b"host", self._netloc), *headers, *length]
            response = await self.origin.send(method, target, asked, content, connect=connect)
        except Exception as error:
            own = failures.connect_failed(error, connect)
            raise SourceFailed(own or _unopened(error, self.mask)) from None
        async with response:
            if response.status > MAX_STATUS:
                message = f"the upstream answered with HTTP status {response.status}, which there is not"
                raise SourceFailed(Failed(reason="transport.decode", message=message, status=response.status))
            yield UpstreamAnswer(response, self.mask)

    async def _signed(self, method: str, path: str, headers: HeaderList, content: bytes) -> HeaderList:
        """The headers of a request to AWS: signed, or with a key."""
        headers = bedrock.headers_of(headers, signed=self._signer is not None)
        if self._signer is None:
            return headers
        kind = {"content-type": "application/json"}
        # Credentials of a role are fetched anew now and then.
        url = self.url + path
        more = await anyio.to_thread.run_sync(self._signer.headers, method, url, kind, content)
        return [*headers, *((name.lower().encode("ascii"), value.encode("ascii")) for name, value in more.items())]

    @asynccontextmanager
    async def invoke(
        self, body: Mapping[str, Any], headers: HeaderList, *, connect: float | None = None
    ) -> AsyncIterator[UpstreamAnswer]:
        """The response of Bedrock's to one Messages request, its head arrived. Leaving closes it.

        :param body: the request, as patched.
        :param connect: seconds that a new connection may take; `None` for no limit.
        :raises SourceFailed: no connection, no response head, or no model of that name.
        """
        path, content = bedrock.path_of(body.get("model")), bedrock.content_of(body, headers)
        signed = await self._signed("POST", path, headers, content)
        async with self.send("POST", path, b"", signed, content, connect=connect) as response:
            yield response

    async def aclose(self) -> None:
        """Close all connections."""
        await self.origin.aclose()


class UpstreamAnswer:
    """A response in plain bytes: decompressed, and without the proxy's key."""

    def __init__(self, answer: Answer, mask: KeyMask) -> None:
        self._answer, self._mask = answer, mask
        self.status = answer.status
        self.headers = mask.headers(answer.headers)
        """As they describe `pieces()`."""
        self.unreadable: UnreadableEncoding | None = None
        """What the body is compressed with, if that cannot be undone here; then its pieces are as they came."""
        encoding = b", ".join(value for name, value in answer.headers if name.lower() == b"content-encoding")
        self._inflate = None
        self._sse: int | None = None
        try:
            self._inflate = decompressor(encoding.decode("latin-1"))
        except UnreadableEncoding as error:
            self.unreadable = error
        if self._inflate is not None:
            self.headers = [(name, value) for name, value in self.headers if name.lower() not in _OF_THE_CODING]

    def pieces(self) -> AsyncIterator[bytes]:
        """The body, in the pieces in which it arrives.

        :raises SourceFailed: its compression is broken, or was cut.
        """
        pieces = self._read()
        if self._inflate is not None:
            pieces = _inflated(pieces, self._inflate)
        if self._sse is not None:
            pieces = bedrock.as_sse(pieces, self._sse)
        return self._mask.pieces(pieces)

    async def _read(self) -> AsyncIterator[bytes]:
        """The body as it comes. What is no HTTP is quoted by who reads it: the key may stand in the quotation."""
        try:
            async for piece in self._answer.pieces():
                yield piece
        except (httpcore2.ProtocolError, httpcore2.NetworkError) as error:
            raise type(error)(redacted(self._mask.text(str(error)), 300)) from None

    def read_as_sse(self, max_event_bytes: int) -> None:
        """Hand out an AWS event stream as server-sent events, and AWS's id of the request under the provider's name."""
        head = _mapping(self.headers)
        if (found := head.get("x-amzn-requestid")) and "request-id" not in head:
            self.headers = [*self.headers, (b"request-id", found.encode("latin-1"))]
        if head.get("content-type", "").partition(";")[0].strip().lower() == AWS_STREAM:
            self._sse = max_event_bytes
            others = [(name, value) for name, value in self.headers if name.lower() != b"content-type"]
            self.headers = [*others, (b"content-type", b"text/event-stream")]

    async def aclose(self) -> None:
        """Give the connection back, or close it."""
        await self._answer.aclose()


async def _inflated(pieces: AsyncIterator[bytes], inflate: Decompressor) -> AsyncIterator[bytes]:
    async for piece in pieces:
        inflate.feed(piece)
        while data := inflate.more():
            yield data
            # A small piece may hold a thousand times its size: everybody else's turn.
            await anyio.lowlevel.checkpoint()
        if data is None:
            raise SourceFailed(_badly_compressed(f"the body's {inflate.name} compression is broken"))
    if inflate.cut:
        raise SourceFailed(_badly_compressed(f"the body's {inflate.name} compression ended before its end mark"))


def _badly_compressed(message: str) -> Failed:
    return Failed(reason="transport.decode", message=message, status=200)


class UpstreamSource:
    """A client's Messages request as a source: sent anew, as a stream, for each attempt."""

    sees_bytes = True
    times_connection = True
    one_at_a_time = True
    """It keeps the last attempt's headers."""

    def __init__(
        self,
        upstream: Upstream,
        asked: Asked,
        *,
        query: bytes,
        headers: HeaderList,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._upstream = upstream
        self._asked = asked
        self._query = query
        self._headers = [*headers, (b"accept", b"text/event-stream")]
        self._max_event_bytes = max_event_bytes
        self._request = asked.request.to(upstream.url)
        self.refused: Answered | None = None
        """What the upstream answered the last attempt with, if that was no stream."""
        self.headers: HeaderList = []
        """Of the last attempt's response, those that a client gets."""

    @property
    def request(self) -> Request:
        """The request as the client made it."""
        return self._request

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[UpstreamStream]:
        """Send the attempt's request, and wait for the response head.

        :raises SourceFailed: no connection, an HTTP status other than 200, or an answer that is no event stream.
        """
        if attempt.base_url is not None:
            raise SourceFailed(_unsent("a proxy asks its one upstream only (retry.rules[].base_url)"))
        self.refused, self.headers = None, []
        changed = attempt.request is not None and attempt.request is not self._request
        body = attempt.request.body if attempt.request and changed else self._asked.body
        async with self._answer(body, attempt.connect) as response:
            self.headers = client_headers(response.headers)
            if failed := await self._refusal(response):
                raise SourceFailed(failed)
            stream = UpstreamStream(response, self._max_event_bytes)
            try:
                if failed := await stream.refusal():
                    self.refused = Answered(response.status, self.headers, stream.seen, _in_form(stream.seen))
                    raise SourceFailed(failed)
                yield stream
            finally:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
                    await stream.aclose()

    @asynccontextmanager
    async def _answer(self, body: Mapping[str, Any], connect: float | None) -> AsyncIterator[UpstreamAnswer]:
        """The response to the request that `body` is, of whichever upstream."""
        if not self._upstream.bedrock:
            content = await content_of(self._asked, body)
            sent = self._upstream.send("POST", _MESSAGES, self._query, self._headers, content, connect=connect)
            async with sent as response:
                yield response
            return
        async with self._upstream.invoke(body, self._headers, connect=connect) as response:
            response.read_as_sse(self._max_event_bytes)
            yield response

    async def _refusal(self, response: UpstreamAnswer) -> Failed | None:
        """Why an answer is no event stream, if it is none; its body is kept for the client."""
        headers = _mapping(response.headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if 200 <= response.status < 300 and (not response.unreadable or kind in ("", "text/event-stream")):
            return None  # the stream looks at it
        body = str(response.unreadable).encode() if response.unreadable else await beginning(response, ERROR_BYTES)
        says_when = any(name.lower() in WAITS for name, _ in response.headers)
        self.refused = Answered(response.status, self.headers, body, _in_form(body), says_when)
        if 300 <= response.status < 400:
            message = f"the upstream redirects (HTTP status {response.status}), which is not followed"
            return Failed(reason="provider.unknown", message=message, status=response.status, billable=False)
        if response.status >= 300:
            text = body.decode("utf-8", "replace")
            return failures.from_body(text, status=response.status, headers=headers)
        what = f"the answer is {kind}, no event stream"
        return failures.undecodable(what, body, limit=EXCERPT_BYTES, request_id=headers.get("request-id"))


def _in_form(body: bytes) -> bool:
    """Whether an error body has the provider's form."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and isinstance(parsed.get("error"), dict)


class UpstreamStream(BodyStream):
    """An open event stream of the upstream."""

    def __init__(self, response: UpstreamAnswer, max_event_bytes: int) -> None:
        super().__init__(_Opened(response), beta=False, max_event_bytes=max_event_bytes)
        self._idle = self._idle_bytes = 0
        # An event that is not complete is no output either.
        self._most_idle_bytes = max_event_bytes + IDLE_BYTES

    def message(self) -> dict[str, Any] | None:
        """The message as the wire has it, as far as it has come: JSON to be, with every field."""
        return self._assembly.message()

    def _decoded(self, data: bytes) -> list[Event]:
        """The events of some bytes. A comment of its own is a keep-alive too, and passes at once as pings do.

        Of an upstream that sends events without output for ever no more are taken than memory is there for.
        """
        events = super()._decoded(data)
        idle = sum(type(event) is not Delta for event in events)
        self._idle += idle
        # Events of which nothing is made, such as empty deltas, are kept for the message all the same.
        self._idle_bytes = 0 if idle < len(events) else self._idle_bytes + len(data)
        if self._idle > MAX_IDLE_EVENTS or self._idle_bytes > self._most_idle_bytes:
            said = (
                f"the answer has more than {MAX_IDLE_EVENTS} events, or {self._most_idle_bytes} bytes, without output"
            )
            return [Failed(reason="transport.decode", message=said, status=200)]
        if not events and data[:1] == b":" and data[-2:] in (b"\n\n", b"\r\r", b"\r\n"):
            return [Ping()]
        return events


class _Opened:
    """The response, as `BodyStream` reads one."""

    def __init__(self, response: UpstreamAnswer) -> None:
        self._response = response
        self.headers = _mapping(response.headers)
        self.aiter_bytes = self.aiter_raw = response.pieces

    @property
    def http_response(self) -> _Opened:
        return self

    async def close(self) -> None:
        await self._response.aclose()


async def beginning(response: UpstreamAnswer, most: int) -> bytes:
    """The first `most` bytes of a body. What breaks it ends it."""
    data = b""
    try:
        async for chunk in response.pieces():
            data += chunk
            if len(data) >= most:
                break
    except SourceFailed:
        pass
    except Exception as error:
        if failures.from_exception(error, in_stream=True) is None:
            raise
    return data[:most]


def _mapping(headers: HeaderList) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _unopened(error: Exception, mask: KeyMask) -> Failed:
    """What an exception before the response head means."""
    words = redacted(mask.text(f"{type(error).__name__}: {error or 'no connection'}"), 300)
    if isinstance(error, _CONNECTING):
        return _unsent(words)
    failed = failures.from_exception(error, in_stream=False)
    if failed is None:
        raise error
    return failed


def _unsent(message: str) -> Failed:
    return Failed(reason="transport.connect", message=message, sent=False, billable=False)
