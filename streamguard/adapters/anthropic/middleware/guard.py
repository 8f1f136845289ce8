"""`GuardMiddleware`: a policy around the calls of an existing `anthropic` client, whose call sites stay as they are.

    client = AsyncAnthropic(middleware=[GuardMiddleware(policy)])

In charge of: which requests are guarded, and what their callers get back. `messages.create()`, `parse()` and their
`with_raw_response` forms are sent as a stream, guarded, asked again from scratch by asking the rest of the chain again,
and handed back as the ordinary result. `create(stream=True)`, `messages.stream()` and the tool runner get a stream that
is guarded. Everything else passes untouched. It knows neither bytes (`middleware_source`) nor events
(`middleware_stream`).

The chain runs inside the SDK's own retry loop, which asks again for what it takes for a failure of the connection, also
where it is only the cause of another exception. So one owner of retries means: no response but a success is returned,
and what is raised here has no cause; the SDK's own exception stands by it as `sdk_error`.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Coroutine, Mapping
from os import PathLike
from typing import Any, Final, cast

import anthropic
import httpx2
import msgspec
from anthropic.types import RawMessageStreamEvent
from anthropic.types.beta import BetaRawMessageStreamEvent

from streamguard.adapters.anthropic.middleware import span
from streamguard.adapters.anthropic.middleware.blocking import BlockingSource
from streamguard.adapters.anthropic.middleware.blocking_stream import BlockingBody, BlockingEvents, BlockingReading
from streamguard.adapters.anthropic.middleware.parsed import Parser
from streamguard.adapters.anthropic.middleware.source import RAW_HEADER, ChainSource, Guarded, GuardedSync
from streamguard.adapters.anthropic.middleware.stream import EXTENSION, GuardedBody, GuardedEvents, Reading
from streamguard.adapters.anthropic.stream import media_type
from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES
from streamguard.adapters.sse.raw_frames import FrameLog
from streamguard.engine.call import Call
from streamguard.engine.runtime import Runtime
from streamguard.engine.shared_loop import SharedLoop
from streamguard.errors import CallError, ConfigError, GaveUp, PolicyError, Problem
from streamguard.guards.grounding.source import Given
from streamguard.outcome import Outcome
from streamguard.policy.given import as_policy
from streamguard.policy.model import Deliver, Policy
from streamguard.request import Request
from streamguard.source import NO_CONTINUING, Source, continues

MESSAGES: Final = "/v1/messages"
"""The endpoint that is guarded, at every client: Bedrock and Vertex rewrite it further in."""

_NOT_OURS: Final = ("content-encoding", "content-length", "content-type", "transfer-encoding")
"""Headers of the stream that do not describe the message made of it."""

PolicyFor = Callable[[Request], Policy | None]
"""Chooses the policy of a request; `None` lets it pass unguarded."""

SourceTextFor = Callable[[Request], Given]
"""Gives what a request's answer is held against; `None` for the text of the request itself."""


class GuardMiddleware(anthropic.Middleware):
    """Guards the Messages calls of a client: `AsyncAnthropic(middleware=[GuardMiddleware(policy)])`, or for some calls
    `client.with_middleware(GuardMiddleware(policy))`.

    A call that is given up raises a `CallError`, which the SDK does not retry; its `sdk_error` is the SDK's own
    exception, where there is one. A message is handed back whole and with exact usage, so an answer is always read to
    its end: `json.trailing: cut` ignores what follows the document, as `allow` does.

    The calls of a synchronous client run in an event loop of the middleware's own. Its thread lives as long as one of
    them does; a stream lives until it is read to its end, closed or dropped.

    ```python
    client = anthropic.AsyncAnthropic(middleware=[streamguard.GuardMiddleware("streamguard:extraction")])
    ```

    :param policy: the policy of all calls, the name of one (`streamguard:NAME`, or a path), or a function that chooses
        one by request. `json.schema: request` takes the
        schema from the request: its structured output format, or each tool's `input_schema`.
    :param runtime: what the calls share; a fresh one by default. Its hooks see every outcome.
    :param deliver: when output of *streaming* calls is handed on: `committed` after the whole answer has passed, `live`
        at once, so that a trip after the first output is an error. Streaming calls are refused until the caller
        chose; a policy that says `deliver: live` has chosen.
    :param labels: go into every record and log line of the calls.
    :param source_text: what the values of `json.grounded` are held against: a text, a mapping of fields, or a function
        that gives either for a request. Left out: the text of each request's user messages.
    :param max_event_bytes: the most bytes of one event.
    :raises PolicyError: the policy asks for what a client's call cannot have.
    """

    def __init__(
        self,
        policy: Policy | str | PathLike[str] | PolicyFor,
        *,
        runtime: Runtime | None = None,
        deliver: Deliver | None = None,
        labels: Mapping[str, Any] | None = None,
        source_text: Given | SourceTextFor = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        if deliver == "restarting":
            raise PolicyError(_NO_RESTARTS)
        if deliver not in (None, "committed", "live"):
            raise PolicyError(f"deliver is committed or live, not {deliver!r}")
        self.runtime = runtime or Runtime()
        chooses = callable(policy) and not isinstance(policy, Policy)
        self._choose: PolicyFor | None = cast("PolicyFor", policy) if chooses else None
        self._policy = None if chooses else to_the_end(as_policy(cast("Policy | str", policy)))
        self._deliver = deliver
        self._labels = labels
        self._source_text = source_text
        self._max_event_bytes = max_event_bytes
        self._loop = SharedLoop()

    async def handle_async(self, request: anthropic.APIRequest, call_next: Any) -> Any:
        """Handle a call of an asynchronous client. The SDK calls this.

        :param request: the request as the SDK made it.
        :param call_next: sends a request to the rest of the chain.
        :returns: what the call site gets: a message, a stream or a raw response.
        """
        policy = self._guarding(request)
        if policy is None:
            return await call_next(request)
        if request.stream:
            return await self._stream(request, call_next, policy)
        source, parser = ChainSource(request, call_next, max_event_bytes=self._max_event_bytes), Parser(request)
        try:
            outcome = await self._call(source, policy, parser).run()
        except CallError as error:
            span.noted(span.current(), error.record, error.reason)
            raise raised(error, source) from None
        span.noted(span.current(), outcome)
        return finished(outcome, source.response, request, parser)

    def handle(self, request: anthropic.APIRequest, call_next: Any) -> Any:
        """Handle a call of a synchronous client. The SDK calls this.

        :param request: the request as the SDK made it.
        :param call_next: sends a request to the rest of the chain.
        :returns: what the call site gets: a message, a stream or a raw response.
        """
        policy = self._guarding(request)
        if policy is None:
            return call_next(request)
        if request.stream:
            return self._blocking_stream(request, call_next, policy)
        source = BlockingSource(
            request,
            call_next,
            max_event_bytes=self._max_event_bytes,
            connect=policy.timeouts.connect,
            head=_head_limit(request, policy),
        )
        parser = Parser(request)
        try:
            outcome = self._in_the_loop(lambda: self._call(source, policy, parser).run())
        except CallError as error:
            span.noted(span.current(), error.record, error.reason)
            raise raised(error, source) from None
        span.noted(span.current(), outcome)
        return finished(outcome, source.response, request, parser)

    def _guarding(self, request: anthropic.APIRequest) -> Policy | None:
        """The policy of a request; `None` if it passes untouched."""
        body = request.json
        if (
            request.method.lower() != "post"
            or request.url.partition("?")[0] != MESSAGES
            or not isinstance(body, Mapping)
        ):
            return None
        if request.stream_cls in (Guarded, GuardedSync):
            raise ConfigError(
                "two GuardMiddleware stand in one chain, and each would ask again for what the other gave up: keep one"
            )
        if self._choose is None:
            return self._policy
        chosen = self._choose(Request(body))
        return None if chosen is None else to_the_end(chosen)

    def _call(self, source: Source, policy: Policy, parser: Parser) -> Call:
        judge = parser.judge if parser.wanted else None
        chosen = parser.policy(policy)
        given = self._given(source)
        return Call(source, chosen, self.runtime, keep=False, judge=judge, labels=self._labels, source_text=given)

    def _given(self, source: Source) -> Given:
        """What the answer to a request is held against, if somebody said."""
        chosen = self._source_text
        if not callable(chosen):
            return chosen
        return None if source.request is None else chosen(source.request)

    def _dropped(self, call: Call) -> None:
        self.runtime.calls.pop(call.id, None)

    def _in_the_loop(self, drive: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Drive a call in the loop that this middleware's threads share."""

        async def call() -> Outcome:
            return await drive()  # made in the loop, whose clock it looks up

        lease = self._loop.lease()
        try:
            return lease.run(call)
        finally:
            lease.release()

    async def _stream(self, request: anthropic.APIRequest, call_next: Any, policy: Policy) -> Any:
        how = self._how(request, policy)
        source = ChainSource(request, call_next, max_event_bytes=self._max_event_bytes, log=how.log)
        reading = await self._begun(request, source, policy, how, span.current())
        try:
            return _streamed(request, reading, how, GuardedBody(reading), reading, GuardedEvents)
        except BaseException:
            await reading.close()
            raise

    def _blocking_stream(self, request: anthropic.APIRequest, call_next: Any, policy: Policy) -> Any:
        how = self._how(request, policy)
        connect, here = policy.timeouts.connect, span.current()
        source = BlockingSource(
            request,
            call_next,
            max_event_bytes=self._max_event_bytes,
            connect=connect,
            head=_head_limit(request, policy),
            log=how.log,
        )
        blocking = BlockingReading(self._loop.lease(), lambda: self._begun(request, source, policy, how, here))
        try:
            return _streamed(request, blocking.reading, how, BlockingBody(blocking), blocking, BlockingEvents)
        except BaseException:
            blocking.close()
            raise

    def _how(self, request: anthropic.APIRequest, policy: Policy) -> _Streaming:
        """How a streaming call is handed on.

        :raises ConfigError: nobody chose when.
        """
        deliver = self._deliver or ("live" if policy.deliver == "live" else None)
        if deliver is None:
            raise ConfigError(
                "a streaming call through GuardMiddleware needs a choice: deliver='committed' holds the output back "
                "until the whole answer has passed, deliver='live' hands it on at once and cannot take it back"
            )
        if continues(policy):
            raise PolicyError(NO_CONTINUING)
        # Whoever asked for the response itself may read bytes, and whoever has a stream class of their own decodes.
        raw = RAW_HEADER in {name.lower() for name in request.headers} or not typing.get_args(request.stream_cls)
        return _Streaming(
            deliver, FrameLog(keepalives="at once" if deliver == "committed" else "in order") if raw else None
        )

    async def _begun(
        self, request: anthropic.APIRequest, source: ChainSource, policy: Policy, how: _Streaming, here: Any
    ) -> Reading:
        """Make the call, in the loop that runs, and wait for what may go out first.

        :param here: the SDK's span.
        """
        given = self._given(source)
        call = Call(source, policy, self.runtime, deliver=how.deliver, labels=self._labels, source_text=given)
        reading = Reading(
            call,
            source,
            beta=is_beta(request),
            log=how.log,
            noted=lambda record, reason: span.noted(here, record, reason),
            raised=lambda error: raised(error, source),
            dropped=self._dropped,
        )
        try:
            await reading.start()
        except BaseException:
            await reading.close()
            raise
        return reading


class _Streaming(msgspec.Struct, frozen=True):
    """How one streaming call is handed on."""

    deliver: Deliver
    log: FrameLog | None
    """Keeps the raw frames, where somebody may read bytes; without it, events are handed on as objects."""


def _streamed(
    request: anthropic.APIRequest, reading: Reading, how: _Streaming, body: Any, owner: Any, events: Any
) -> Any:
    """The stream that the SDK's caller asked for.

    :param owner: what the stream reads, and closes.
    :param events: our class of streams, of the client's kind.
    :raises ConfigError: this SDK makes responses in a way that we do not know.
    """
    upstream = reading.response
    # Bytes are handed on as they came, and the client's own decoder reads them.
    kind = "text/event-stream" if how.log is None else media_type(upstream.http_response) or "text/event-stream"
    response = httpx2.Response(
        upstream.http_response.status_code,
        headers=_headers(upstream.http_response.headers, kind),
        stream=body,
        request=upstream.http_response.request,
        extensions={EXTENSION: owner},
    )
    plain = how.log is None
    cls = events[typing.get_args(request.stream_cls)[0]] if plain else request.stream_cls
    made = _response(upstream, response, request, stream=True, stream_cls=cls)
    if made is not None:
        return made
    if not plain:
        raise ConfigError(_NO_WRAPPER)
    event: Any = BetaRawMessageStreamEvent if reading.beta else RawMessageStreamEvent
    return events(cast_to=event, response=response, client=_NoClient())


_NO_RESTARTS: Final = (
    "deliver: restarting needs a consumer that understands a restart, which the SDK's streams are not: use committed "
    "or live, or streamguard.stream(messages(client, …), deliver='restarting')"
)
_NO_WRAPPER: Final = (
    "this version of the anthropic SDK makes responses in a way that GuardMiddleware does not know: call without "
    "with_raw_response and with_streaming_response, or leave the guard out of this call"
)


class _NoClient:
    """What a stream needs of a client where the SDK does not show the one that asked."""

    def _make_sse_decoder(self) -> None:
        return None


def _head_limit(request: anthropic.APIRequest, policy: Policy) -> float | None:
    """Seconds until the first output at the latest: no head comes later."""
    clocks = policy.timeouts
    if clocks.first_token is None or not isinstance(request.json, Mapping):
        return None
    return clocks.first_token + clocks.first_token_per_1k_input * Request(request.json).input_bytes / 4000


def to_the_end(policy: Policy) -> Policy:
    """The policy as a client's calls can have it: a `Message` needs the answer's end, with its usage and stop reason.

    :raises PolicyError: the policy ends answers early.
    """
    if policy.deliver == "restarting":
        raise PolicyError(_NO_RESTARTS)
    document = policy.json_document
    if document is None:
        return policy
    if document.enough_when:
        problem = (
            "a Message needs its end: leave enough_when out, or use run(messages(client, …)), which gives the value"
        )
        raise PolicyError(Problem(pointer="/json/enough_when", problem=problem))
    if document.trailing != "cut":
        return policy
    return policy.replace(json=document.replace(trailing="allow"))


def raised(error: CallError, source: ChainSource | BlockingSource) -> BaseException:
    """What to raise for a call that ended without an outcome. Raise it `from None`."""
    if source.foreign is not None and error.reason == "source.error":
        return source.foreign
    error.sdk_error = source.sdk_error
    return error


def finished(outcome: Outcome, upstream: Any, request: anthropic.APIRequest, parser: Parser) -> Any:
    """The ordinary result of a call: the response that a request without `stream` would have had."""
    if outcome.completed in ("cut", "enough"):
        raise PolicyError(
            f"a guard ended the answer early ({outcome.completed}), and a Message needs its end: use "
            "run(messages(client, …)) with such a guard"
        )
    if outcome.message is None:
        # Possible only where the completion guard does no more than look on.
        text = "the answer has no message_start, so there is no message to hand back"
        raise GaveUp(text, reason="transport.decode", record=outcome)
    http = upstream.http_response
    response = httpx2.Response(
        200,
        headers=_headers(http.headers, "application/json"),
        content=json.dumps(outcome.message).encode(),
        request=http.request,
        extensions=http.extensions,
    )
    made = _response(
        upstream,
        response,
        request,
        stream=False,
        stream_cls=None,
        retries=len(outcome.attempts) - 1,
        options=parser.hand_on(request.options),
    )
    if made is not None:
        return made
    if RAW_HEADER in {name.lower() for name in request.headers}:
        raise ConfigError(_NO_WRAPPER)
    return parser.result if parser.wanted else request.cast_to.construct(**outcome.message)


def _response(
    upstream: Any,
    response: httpx2.Response,
    request: anthropic.APIRequest,
    *,
    stream: bool,
    stream_cls: Any,
    retries: int = 0,
    options: Any = None,
) -> Any:
    """The SDK's wrapper of a response; `None` if this SDK makes them in another way than we know."""
    client = getattr(upstream, "_client", None)
    if client is None:
        return None
    try:
        return type(upstream)(
            raw=response,
            cast_to=request.cast_to,
            client=client,
            stream=stream,
            stream_cls=stream_cls,
            options=request.options if options is None else options,
            retries_taken=retries,
        )
    except TypeError:
        return None


def _headers(headers: Any, kind: str) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _NOT_OURS]
    return [*kept, ("content-type", kind)]


def is_beta(request: anthropic.APIRequest) -> bool:
    """Whether the call was made on `client.beta`, which has classes of its own."""
    return ".beta." in getattr(request.cast_to, "__module__", "")
