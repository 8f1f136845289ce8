"""The `anthropic` SDK as a source: `messages()`, and `sdk_events()` for a stream that the caller opened.

In charge of requests and responses: the SDK sends the request and owns its authentication, hooks and connection pool;
the bytes of the answer are read and decoded here, so that pings and comments are seen. It knows no policy. The SDK
takes a second to import, so it is imported where it is used: who has a client has paid for it.

Time is the engine's: requests go out without read timeouts of their own (unless the request names one), since the
SDK's is per read, is not told apart from a reset, and would fire behind the policy's back. Only the time to connect is
the HTTP client's to keep: nobody else knows when a connection is free and when it stands.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Unpack, overload

import anyio

from streamguard.adapters.anthropic import clients, failures
from streamguard.adapters.anthropic.stream import BodyStream, SdkStream
from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES
from streamguard.errors import ConfigError, Problem, SchemaError
from streamguard.events import Failed
from streamguard.models.model import OutputType
from streamguard.request import Request
from streamguard.source import CLOSE_LIMIT, Attempt, SourceFailed, T_co

T = TypeVar("T")

_log = logging.getLogger("streamguard")

if TYPE_CHECKING:
    from anthropic.types.message_create_params import MessageCreateParamsBase as Params

    class MessagesRequest(Params, total=False):
        """The arguments of `messages.create()`, as the SDK types them. Requests with `betas` may have others."""

        extra_headers: Mapping[str, str]
        extra_query: Mapping[str, object]
        extra_body: Mapping[str, Any]
        timeout: Any


OPTIONS: Final = ("extra_headers", "extra_query", "timeout", "betas", "user_profile_id", "workspace_id")
"""Arguments of the SDK's `create()` that are no part of the body."""

PRICED_HEADERS: Final = ("x-amzn-bedrock-service-tier", "x-amzn-bedrock-performanceconfig")
"""Beginnings of headers by which Bedrock bills at other rates."""

_NO_BODY: Final = frozenset((*OPTIONS, "self", "extra_body", "stream"))


@overload
def messages(
    client: Any,
    *,
    output: type[T],
    beta: bool | None = None,
    http_client: Callable[[], Any] | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
    **request: Unpack[MessagesRequest],
) -> AnthropicSource[T]: ...


@overload
def messages(
    client: Any,
    *,
    output: Any = None,
    beta: bool | None = None,
    http_client: Callable[[], Any] | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
    **request: Unpack[MessagesRequest],
) -> AnthropicSource[Any]: ...


@overload
def messages(
    client: Any,
    *,
    betas: Sequence[str],
    output: Any = None,
    beta: Literal[True] | None = None,
    http_client: Callable[[], Any] | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
    **request: Any,
) -> AnthropicSource[Any]: ...


def messages(
    client: Any,
    *,
    output: Any = None,
    beta: bool | None = None,
    http_client: Callable[[], Any] | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
    **request: Any,
) -> AnthropicSource[Any]:
    """Make a source of a Messages API call: `messages(client, model=…, max_tokens=…, messages=[…])`. Nothing is sent
    yet.

    ```python
    chat = [{"role": "user", "content": "Extract the invoice as JSON."}]
    source = streamguard.messages(client, model="claude-haiku-4-5", max_tokens=1024, messages=chat)
    ```

    :param client: an `AsyncAnthropic`, or an `Anthropic`, of whose public properties an asynchronous twin is made. A
        twin lives as long as one attempt, or as `isolated()`: outside of that, a synchronous client has no idle
        connections to use again.
    :param output: the type of the answer, as in `run`, which then needs none. The model is told as well: the type's
        JSON Schema, as far as the provider takes it, becomes the request's structured output format.
    :param beta: whether to call `client.beta.messages`; by default if the request has `betas`.
    :param http_client: makes the `httpx2.AsyncClient` of `isolated()` and of twins. By default one with the SDK's
        settings, or the SDK's aiohttp client if that is what `client` has. Needed where `client` has an HTTP client of
        its own making, since connections belong to one event loop.
    :param max_event_bytes: the most bytes of one event.
    :param request: the arguments of the SDK's `messages.create()`; `extra_body` is merged into the body.
    :returns: a source for `run` and `stream`, which can be asked again from scratch.
    :raises ConfigError: the client or the request cannot be used; it has every mistake.
    """
    problems = [*clients.problems(client, http_client), *_problems(request)]
    if beta is False and "betas" in request:
        problems.append(
            Problem(pointer="/betas", problem="`betas` needs `client.beta.messages`: leave `beta=False` out")
        )
    if output is not None:
        told = _told(output, request)
        if isinstance(told, Problem):
            problems.append(told)
        else:
            request = request | told
    if problems:
        raise ConfigError(problems)
    given = {name: value for name, value in request.items() if not _is_left_out(value)}
    options: dict[str, Any] = {name: given.pop(name) for name in OPTIONS if name in given}
    extra = given.pop("extra_body", None) or {}
    try:
        body = Request(_wire_value({**given, **extra}), betas=_betas(client, options), base_url=_base_url(client))
    except TypeError as error:
        # An open file, for one: it could be read once only, and an attempt may not be the last.
        raise ConfigError(f"the request has a value that cannot be sent again: {error}") from error
    return AnthropicSource(
        client,
        body,
        options,
        beta="betas" in options if beta is None else beta,
        http_client=http_client,
        max_event_bytes=max_event_bytes,
        output=output,
    )


def _base_url(client: Any) -> str | None:
    url = getattr(client, "base_url", None)
    return None if url is None else str(url)


def _betas(client: Any, options: Mapping[str, Any]) -> list[str]:
    """Every beta feature that goes with a request: its own, those of headers, and headers that choose a price."""
    own = [str(name) for name in options.get("betas") or ()]
    named = {
        name.lower(): value
        for headers in (getattr(client, "default_headers", None), options.get("extra_headers"))
        if isinstance(headers, Mapping)
        for name, value in headers.items()
    }
    header = named.get("anthropic-beta")
    priced = [name for name in named if name.startswith(PRICED_HEADERS)]
    return own + ([header] if isinstance(header, str) else []) + priced


def _told(output: Any, request: Mapping[str, Any]) -> dict[str, Any] | Problem:
    """What tells the model the type of its answer, or what is wrong."""
    import anthropic

    config = request.get("output_config")
    config = config if isinstance(config, Mapping) else {}
    if config.get("format") is not None:
        return Problem(pointer="/output_config/format", problem="output says the format already: leave one of them out")
    try:
        wire = OutputType.of(output).plan().wire
    except (ValueError, SchemaError) as mistake:
        return Problem(pointer="/output", problem=str(mistake))
    if wire is None:
        return Problem(pointer="/output", problem="Pydantic can write no JSON Schema of it: give it to run() instead")
    told = {"type": "json_schema", "schema": anthropic.transform_schema(wire)}
    return {"output_config": {**config, "format": told}}


class AnthropicSource(Generic[T_co]):
    """A request to the Messages API, sent anew for each attempt. Made by `messages()`."""

    sees_bytes = True
    times_connection = True

    def __init__(
        self,
        client: Any,
        request: Request,
        options: Mapping[str, Any],
        *,
        beta: bool,
        http_client: Callable[[], Any] | None,
        max_event_bytes: int,
        output: type[T_co] | None = None,
    ) -> None:
        self._output = output
        self._client = client
        self._request = request
        self._options = options
        self._beta = beta
        self._http_client = http_client
        self._max_event_bytes = max_event_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._client).__name__}, {self._request!r})"

    @property
    def request(self) -> Request:
        """The request as the caller made it, without the SDK's own options."""
        return self._request

    @property
    def output(self) -> type[T_co] | None:
        """The type of the answer, if the caller gave one."""
        return self._output

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[BodyStream]:
        """Send the attempt's request, once, and wait for the response head. Leaving closes the connection, or gives it
        back to the pool if the answer was read to its end.

        :raises SourceFailed: no connection, an HTTP status from 400, or an answer that is no event stream.
        """
        async with AsyncExitStack() as stack:
            client = self._client
            if not clients.is_async(client):
                client = await stack.enter_async_context(clients.isolated(client, self._http_client))
            stream = await self._send(client, attempt)
            try:
                if failed := await stream.refusal():
                    raise SourceFailed(failed)
                yield stream
            finally:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT):
                    await stream.aclose()

    async def count_input(self, request: Request) -> int | None:
        """Ask the provider how many input tokens a request has. Free of charge.

        :returns: `None` if it does not say: an endpoint that is missing, or fails.
        """
        async with AsyncExitStack() as stack:
            client = self._client
            if not clients.is_async(client):
                client = await stack.enter_async_context(clients.isolated(client, self._http_client))
            elsewhere = request.base_url not in (None, self._request.base_url)
            client = client.with_options(max_retries=0, **({"base_url": request.base_url} if elsewhere else {}))
            resource = client.beta.messages if self._beta else client.messages
            known = _parameters(type(resource).count_tokens)
            named = {name: value for name, value in request.body.items() if name in known and name not in _NO_BODY}
            options = {name: value for name, value in self._options.items() if name in known and name != "timeout"}
            try:
                found = await resource.count_tokens(**named, **options)
            except Exception as error:
                _log.info("the provider did not count an input: %s", failures.from_exception(error, in_stream=False))
                return None
        tokens: object = getattr(found, "input_tokens", None)
        return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None

    async def _send(self, client: Any, attempt: Attempt) -> BodyStream:
        import httpx2

        body, base_url, connect = (attempt.request or self._request).body, attempt.base_url, attempt.connect
        if client.max_retries or base_url is not None:  # a copy, which takes a third of a millisecond
            client = client.with_options(max_retries=0, **({} if base_url is None else {"base_url": base_url}))
        resource = client.beta.messages if self._beta else client.messages
        known = _parameters(type(resource).create)
        named = {name: value for name, value in body.items() if name in known and name not in _NO_BODY}
        other = {name: value for name, value in body.items() if name not in named and name != "stream"}
        options = {"timeout": httpx2.Timeout(None, connect=connect, pool=connect), **self._options}
        headers = dict(options.pop("extra_headers", None) or {})
        if not any(name.lower() == "accept-encoding" for name in (*headers, *client.default_headers)):
            # A compressed stream saves little, is held back by compressors, and hides where it was cut.
            headers["accept-encoding"] = "identity"
        create = resource.with_streaming_response.create
        try:
            response = await create(
                **named, **options, stream=True, extra_headers=headers, extra_body=other or None
            ).__aenter__()
        except Exception as error:
            own = None if "timeout" in self._options else failures.connect_failed(error, connect)
            failed = own or failures.from_exception(error, in_stream=False)
            if failed is None:
                raise
            raise SourceFailed(failed) from error
        if not hasattr(response, "http_response"):
            what = f"a middleware of the client answers with a {type(response).__name__}, which is no response"
            raise SourceFailed(Failed(reason="source.error", message=f"{what}: leave it out of the guarded client"))
        return BodyStream(response, beta=self._beta, max_event_bytes=self._max_event_bytes)

    @asynccontextmanager
    async def isolated(self) -> AsyncIterator[AnthropicSource[T_co]]:
        """This source with a connection pool of its own, for the event loop that runs; closed at exit."""
        async with clients.isolated(self._client, self._http_client) as client:
            clone = copy.copy(self)
            clone._client = client  # noqa: SLF001
            yield clone


def sdk_events(stream: Any) -> SdkStream:
    """A stream that the caller opened, `messages.create(stream=True)` or what `messages.stream()` gives on entry, as
    neutral events. Leaving it, as a context manager, closes the SDK's stream.

    :raises ConfigError: it is no asynchronous stream of the SDK.
    """
    if inspect.isawaitable(stream):
        if inspect.iscoroutine(stream):
            stream.close()
        raise ConfigError("the stream was not awaited: pass `await client.messages.create(…, stream=True)`")
    if not hasattr(stream, "__anext__"):
        if hasattr(stream, "__aenter__"):
            raise ConfigError("enter the manager first: `async with client.messages.stream(…) as stream`")
        raise ConfigError(f"{type(stream).__name__} is no asynchronous stream: use `AsyncAnthropic`")
    return SdkStream(stream)


@functools.cache
def _parameters(create: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(create).parameters)


def _is_left_out(value: Any) -> bool:
    import anthropic

    return isinstance(value, anthropic.Omit | anthropic.NotGiven)


def _wire_value(value: Any) -> Any:
    """A request's value as JSON has it: iterables as lists, the SDK's models as dicts. The SDK judges the rest."""
    if isinstance(value, Mapping):
        return {name: _wire_value(inner) for name, inner in value.items() if not _is_left_out(inner)}
    if isinstance(value, list | tuple) or (isinstance(value, Iterator) and not hasattr(value, "read")):
        return [_wire_value(inner) for inner in value]
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        # As the SDK sends a model, such as a content block of an earlier answer.
        return dump(mode="json", exclude_unset=True, by_alias=True, exclude=getattr(value, "__api_exclude__", None))
    return value


def _problems(request: Mapping[str, Any]) -> Iterator[Problem]:
    body = {**request, **(request.get("extra_body") or {})}
    for name, example in (("model", '"claude-…"'), ("max_tokens", "1024"), ("messages", '[{"role": "user", …}]')):
        if body.get(name) is None or _is_left_out(body[name]):
            yield Problem(pointer=f"/{name}", problem=f"the request needs `{name}`, such as `{name}={example}`")
    if "stream" in body:
        yield Problem(pointer="/stream", problem="leave `stream` out: every request is sent as a stream")
    limit = body.get("max_tokens")
    if (
        limit is not None
        and not _is_left_out(limit)
        and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0)
    ):
        yield Problem(pointer="/max_tokens", problem=f"`max_tokens` is a whole number of tokens, not {limit!r}")
    for name, value in body.items():
        if isinstance(value, type):
            yield Problem(pointer=f"/{name}", problem=f"`{name}` is a class: pass its JSON Schema (`output_config`)")
