"""A request in the SDK's middleware chain as a source: each attempt asks the rest of the chain again.

In charge of: the streaming request that is made of the caller's own, the response head, and the SDK's own error beside
ours. The SDK, and the middleware further in, send the request and own authentication, hooks and the connection pool;
the answer's bytes are read here. It knows neither policies nor what the caller gets in the end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anthropic
import anyio
import httpx2

from streamguard.adapters.anthropic import failures
from streamguard.adapters.anthropic.stream import BodyStream
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.errors import ConfigError
from streamguard.events import Failed
from streamguard.request import Request
from streamguard.source import CLOSE_LIMIT, Attempt, SourceFailed

RAW_HEADER: Final = "x-stainless-raw-response"
"""How the SDK notes that a caller wants the response itself; its value is `raw` or `stream`."""

NO_ANSWER: Final = 300
"""The first status that is no answer: a redirect that the client has not followed is none either."""

CallNext = Callable[[anthropic.APIRequest], Awaitable[Any]]


class Guarded(anthropic.AsyncStream[Any]):
    """Never made: it marks the requests of a guard, for a second guard in the same chain to see."""


class GuardedSync(anthropic.Stream[Any]):
    """The same for the synchronous client."""


class MessageStream(BodyStream):
    """An open answer, whose message stays the JSON that it is."""

    def message(self) -> Any:
        """The message as the wire has it, as far as it has come; `None` before it started."""
        return self._assembly.message()

    @property
    def kept(self) -> list[Any]:
        """What came so far; see `anthropic_events.Kept`."""
        return self._translator.kept


class ChainSource:
    """One call of the SDK's caller, asked anew for each attempt.

    :param request: as the middleware got it.
    :param call_next: the rest of the chain.
    :param log: keeps the raw frames, for a caller who reads bytes.
    """

    sees_bytes = True
    times_connection = True
    one_at_a_time = True
    """It keeps the last attempt's response."""

    def __init__(
        self,
        request: anthropic.APIRequest,
        call_next: CallNext,
        *,
        max_event_bytes: int,
        log: FrameLog | None = None,
    ) -> None:
        body = request.json
        assert isinstance(body, Mapping)  # whoever makes a source has looked
        self.request = Request(
            {name: value for name, value in body.items() if name != "stream"},
            betas=[str(value) for name, value in request.headers.items() if name.lower() == "anthropic-beta"],
            base_url=url.partition("/v1/messages")[0] if (url := str(request.url)).startswith("http") else None,
        )
        self._asked = request
        self._call_next = call_next
        self._max_event_bytes = max_event_bytes
        self._log = log
        self._connecting: float | None = None
        self.response: Any = None
        """The last attempt's response, as the rest of the chain gave it."""
        self.stream: MessageStream | None = None
        """The last attempt's answer."""
        self.sdk_error: BaseException | None = None
        """What the SDK would have raised, or has, for the last attempt that failed before its stream."""
        self.foreign: Exception | None = None
        """An exception from further in that is no failure of the provider or the connection: the caller's to see."""

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[MessageStream]:
        """Ask the rest of the chain, once, and wait for the response head.

        :raises SourceFailed: no connection, an HTTP status from 300, or an answer that is no event stream.
        """
        self.response, self.stream, self.sdk_error = None, None, None
        response = await self._asked_for(self.upstream(attempt))
        stream = self._stream_of(response)
        try:
            await self._check(response, stream)
            self.response, self.stream = response, stream
            yield stream
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
                await stream.aclose()

    def _stream_of(self, response: Any) -> MessageStream:
        """The answer of a response, its frames logged where somebody reads bytes."""
        stream = MessageStream(response, beta=False, max_event_bytes=self._max_event_bytes)
        if self._log is not None:
            self._log.begin()
            stream.tap(self._log)
        return stream

    def upstream(self, attempt: Attempt) -> anthropic.APIRequest:
        """The request of an attempt: the caller's own, patched and streaming."""
        asked = self._asked
        body = (attempt.request or self.request).body
        options = asked.options.model_copy()
        options.json_data = {**body, "stream": True}
        options.post_parser = anthropic.NotGiven()  # for the finished message, not for a stream of events
        headers = dict(asked.headers)
        if not any(name.lower() == "accept-encoding" for name in headers):
            # A compressed stream saves little, is held back by compressors, and hides where it was cut.
            headers["accept-encoding"] = "identity"
        options.headers = headers
        self._connecting = attempt.connect
        if attempt.connect is not None:
            options.timeout = _connecting_within(options.timeout, attempt.connect)
        if attempt.base_url is not None:
            options.url = attempt.base_url.rstrip("/") + asked.url
        return anthropic.APIRequest(
            options=options,
            cast_to=asked.cast_to,
            stream=True,
            stream_cls=self.marker,
            retries_taken=attempt.number - 1,
        )

    marker: type[Any] = Guarded

    async def _asked_for(self, request: anthropic.APIRequest) -> Any:
        try:
            response = await self._call_next(request)
        except Exception as error:
            raise self._failed(error) from None
        return self._looked_at(response)

    def _failed(self, error: Exception) -> SourceFailed:
        """What an exception of the rest of the chain means."""
        for cause in _causes(error):
            own = failures.connect_failed(cause, self._connecting)
            failed = own or failures.from_exception(cause, in_stream=False)
            if failed is not None:
                self.sdk_error = error
                return SourceFailed(failed)
        if isinstance(error, anthropic.AnthropicError):
            # The SDK's word for "ask again", for one: when to do that is the policy's business.
            self.sdk_error = error
        else:
            self.foreign = error
        return SourceFailed(Failed(reason="source.error", message=f"{type(error).__name__}: {error}"))

    def _looked_at(self, response: Any) -> Any:
        if hasattr(response, "http_response"):
            return response
        self.foreign = ConfigError(
            f"a middleware inside of GuardMiddleware answers with a {type(response).__name__}, which is no response "
            "and cannot be guarded: put GuardMiddleware after it in the list"
        )
        raise SourceFailed(Failed(reason="source.error", message=str(self.foreign), sent=False, billable=False))

    async def _check(self, response: Any, stream: MessageStream) -> None:
        http = response.http_response
        if http.status_code >= NO_ANSWER:
            await http.aread()
            self.refuse(response)
        await self.look_at(stream)

    def refuse(self, response: Any) -> None:
        """Raise what an error response means; its body has been read.

        :raises SourceFailed: always.
        """
        self.sdk_error = status_error(response)
        failed = failures.from_exception(self.sdk_error, in_stream=False)
        raise SourceFailed(failed or Failed(reason="provider.unknown", message=str(self.sdk_error)))

    async def look_at(self, stream: MessageStream) -> None:
        """Look whether an answer of status 200 can be read.

        :raises SourceFailed: it is no event stream and no whole message.
        """
        if failed := await stream.refusal():
            raise SourceFailed(failed)


READ_LIMIT: Final = 600.0
"""Seconds of a read by the SDK's own default, where a request says nothing else."""


def _connecting_within(given: Any, connect: float) -> httpx2.Timeout:
    """The timeouts of a request, with the policy's limit on connecting."""
    if isinstance(given, httpx2.Timeout):
        return httpx2.Timeout(connect=connect, pool=connect, read=given.read, write=given.write)
    seconds = given if given is None or isinstance(given, int | float) else READ_LIMIT
    return httpx2.Timeout(connect=connect, pool=connect, read=seconds, write=seconds)


def status_error(response: Any) -> BaseException:
    """The error that the SDK raises for a response whose body has been read."""
    http = response.http_response
    make = getattr(getattr(response, "_client", None), "_make_status_error_from_response", None)
    if make is not None:
        error: BaseException = make(http)
        return error
    text = http.text.strip()
    body: object = text
    with suppress(ValueError):
        body = json.loads(text)
    return anthropic.APIStatusError(f"Error code: {http.status_code} - {body}", response=http, body=body)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from: the SDK asks again because of any of them."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
