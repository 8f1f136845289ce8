"""The ASGI application: who asks, what for, and which of the parts answers.

In charge of putting the parts together, of refusals as responses, and of draining. It knows no bytes of HTTP and no
events of a stream.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import anyio

from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry_structlog import structlog_hook
from streamguard.http.exchange import KNOWN, STRANGERS
from streamguard.http.refusals import Refused
from streamguard.proxy.access import Access, Caller, Headers, value
from streamguard.proxy.answers.passthrough import Clocks, Cut, relay
from streamguard.proxy.answers.reply import Reply, Send, gone
from streamguard.proxy.answers.report_headers import as_list
from streamguard.proxy.body import ClientGone, Receive, asked, measure, read_body
from streamguard.proxy.configfile import Setup
from streamguard.proxy.headers import upstream_headers, without
from streamguard.proxy.memory import Hold, Memory, Pace
from streamguard.proxy.messages import JSON, GuardedAnswer, Order
from streamguard.proxy.metrics import Metrics
from streamguard.proxy.routes import METHODS, Endpoint, Routes, checked_query, group_of
from streamguard.proxy.tenancy import KEY, KeyedRuntime, fingerprint
from streamguard.proxy.upstream import Upstream, UpstreamSource
from streamguard.view import View

_log = logging.getLogger("streamguard.proxy")

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

VIEW: Final = "/_streamguard"
"""Where the live view is."""

_CALLER: Final = "streamguard.caller"


class Proxy:
    """One proxy: an ASGI application. Belongs to one event loop.

    :param runtime: what its calls share; a fresh one by default, with the metrics as a hook. One's own must have
        `metrics.hook` among its hooks to be counted.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        runtime: Runtime | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        config = setup.config
        self.setup = setup
        self.metrics = metrics or Metrics()
        self.runtime = runtime or KeyedRuntime(hooks=[self.metrics.hook, structlog_hook(_call_log())])
        self.metrics.watch(self.runtime)
        self.draining = False
        """Whether nothing new is taken any more."""
        self._access = Access(config, setup.tokens, has_key=setup.has_key)
        self._routes = Routes(config, setup.default)
        self._upstream = Upstream(config, setup.key, setup.signer)
        self._shared = len(config.clients) > 1
        self._under_way: Counter[str] = Counter()
        self._paces: dict[str, Pace] = {}
        self._memory = Memory(config.limits.memory_bytes, shared=self._shared)
        # Any operator's token opens the view, which knows one: it is given a token that only this object has.
        self._view_token = None if config.open_to_all else secrets.token_urlsafe(32)
        operated = config.open_to_all or any(client.operator for client in config.clients)
        self._view = View(self.runtime, token=self._view_token) if config.view and operated else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        reply = Reply(send, self._upstream.mask)
        try:
            self._admit(scope)
            await self._endpoint(scope)(scope, receive, send)
        except Refused as refusal:
            await self.refuse(reply, refusal)

    def _endpoint(self, scope: Scope) -> ASGIApp:
        """Who answers.

        :raises Refused: it does not take the method.
        """
        path = scope["path"]
        if self._view is not None and _is_view(path):
            return self._seen
        own = {"/healthz": self._healthz, "/metrics": self._metrics}.get(path)
        if own is None:
            return self._api
        if scope["method"] not in ("GET", "HEAD"):
            raise Refused("wrong_method", headers={"allow": "GET, HEAD"})
        return own

    def guess(self, first: bytes) -> str | None:
        """Who seems to ask, by the first bytes of a connection; `None`: a stranger."""
        return self._access.guess(first)

    def drain(self) -> None:
        """Take nothing new. Whoever looks on is let go: an open page would keep the server for ever."""
        self.draining = True
        if self._view is not None:
            self._view.close()

    async def aclose(self) -> None:
        """Let go of everything: whoever looks on, the connections to the upstream, the ledgers."""
        with anyio.CancelScope(shield=True):
            if self._view is not None:
                self._view.close()
            await self._upstream.aclose()
            await self.runtime.aclose()

    def _admit(self, scope: Scope) -> None:
        """Who asks, before anything else is looked at.

        :raises Refused: nobody who may.
        """
        path, headers = scope["path"], scope["headers"]
        if path == "/healthz":
            return
        if self._view is not None and _is_view(path):
            return  # it judges by itself: its page is for everybody, what it shows is not
        if path == "/metrics" and self._access.is_operator(headers):
            return
        caller = scope[_CALLER] = self._access.caller(headers)
        scope[KNOWN] = True
        if path == "/metrics":
            if not caller.operator:
                raise Refused("not_operator")
        elif self.draining:
            raise Refused("draining", headers={"connection": "close", "retry-after": "1"})

    async def refuse(self, reply: Reply, refusal: Refused) -> None:
        """Answer with a refusal."""
        self.count_refusal(refusal)
        headers = {**refusal.headers, "x-streamguard-refused": refusal.name, "x-should-retry": "false"}
        if refusal.status == 401:
            # Who tries tokens connects anew for each, and waits for a stranger's turn.
            headers["connection"] = "close"
        if refusal.name in ("draining", "no_memory", "too_many_requests"):
            del headers["x-should-retry"]
        await reply.whole(refusal.status, [*JSON, *as_list(headers)], refusal.body())

    def count_refusal(self, refusal: Refused) -> None:
        """Count a refusal, wherever it was made."""
        self.metrics.refused.labels(refusal.name).inc()
        _log.info("refused: %s, status %d", refusal.name, refusal.status, extra=STRANGERS)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """ASGI's messages about a server's start and end."""
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                await self.aclose()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    # Endpoints

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        status, body = (503, b'{"status":"draining"}') if self.draining else (200, b'{"status":"ok"}')
        await Reply(send, self._upstream.mask).whole(status, JSON, body)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        kind, text = self.metrics.exposition(value(scope["headers"], b"accept") or "")
        await Reply(send, self._upstream.mask).whole(200, [(b"content-type", kind.encode())], text)

    async def _seen(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The live view; a request with an operator's token bears the view's own from here on."""
        assert self._view is not None
        headers: Headers = scope["headers"]
        if self._view_token is not None and self._access.is_operator(headers):
            bearer = (b"authorization", b"Bearer " + self._view_token.encode())
            scope["headers"] = [bearer, *without(headers, [b"authorization"])]
        await self._view({**scope, "root_path": VIEW}, receive, send)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = anyio.current_time()
        caller: Caller = scope[_CALLER]
        reply = Reply(send, self._upstream.mask)
        kind = "none"
        try:
            endpoint = self._routes.endpoint(scope["method"], scope["path"])
            kind = endpoint.kind
            with self._memory.hold(caller.name) as hold, self._turn(caller):
                await self._paced(caller)
                await self._answer(endpoint, scope, caller, receive, reply, hold)
        except ClientGone:
            return
        except Cut as cut:
            # Returning without an end makes the server break the connection off.
            _log.warning("%s for %s was cut: %s", kind, caller.name, cut, extra=STRANGERS)
        except Refused as refusal:
            await self.refuse(reply, refusal)
        self.metrics.answered(kind, reply.status or 0)
        _log.info("%s for %s: %s in %.3f s", kind, caller.name, reply.status, anyio.current_time() - began)

    @contextmanager
    def _turn(self, caller: Caller) -> Iterator[None]:
        """One of the requests that a client may have under way.

        :raises Refused: it has as many.
        """
        most = self.setup.config.limits.requests_per_client
        if self._shared and self._under_way[caller.name] >= most:
            raise Refused("too_many_requests", f"{most}", headers={"retry-after": "1"})
        self._under_way[caller.name] += 1
        try:
            yield
        finally:
            self._under_way[caller.name] -= 1

    async def _paced(self, caller: Caller) -> None:
        """Wait for the client's turn: one that asks without end takes no more than its part of the loop's time."""
        if not self._shared:
            return
        pace = self._paces.get(caller.name)
        if pace is None:
            pace = self._paces[caller.name] = Pace(self.setup.config.limits.requests_per_second)
        if (seconds := pace.wait(anyio.current_time())) > 0:
            await anyio.sleep(seconds)

    async def _answer(
        self, endpoint: Endpoint, scope: Scope, caller: Caller, receive: Receive, reply: Reply, hold: Hold
    ) -> None:
        headers: Headers = scope["headers"]
        query = checked_query(scope["query_string"])
        wants_body = endpoint.kind != "models"
        if endpoint.kind != "messages" and self.setup.config.upstream_api == "bedrock":
            raise Refused("no_such_path", f"Bedrock has no {endpoint.path}")
        # A signed request bears no key; a client's own must not go along.
        key = self.setup.key if self.setup.signer is None else "signed"
        upstream_ones = upstream_headers(headers, key=key, extra=self.setup.config.forward_headers, content=wants_body)
        limits = self.setup.config.limits
        content = await read_body(headers, receive, limits, hold) if wants_body else None
        streams = False
        if endpoint.kind == "messages" and content is not None:
            question = await asked(content, limits, hold)
            streams = question.streams
            name = self._routes.policy(headers, endpoint.prefix, question.model)
            policy = self.setup.policies[name]
            if policy is not None:
                await measure(question)
                if not self.setup.has_key:
                    KEY.set(fingerprint(upstream_ones))
                source = UpstreamSource(
                    self._upstream,
                    question,
                    query=query,
                    headers=upstream_ones,
                    max_event_bytes=self.setup.config.max_event_bytes,
                )
                order = Order(
                    asked=question,
                    policy=policy,
                    labels={"client": caller.name, "policy": name},
                    group=group_of(headers),
                    alone=self.setup.config.open_to_all,
                )
                answer = GuardedAnswer(order, source, self.runtime, reply, self.setup.config)
                if not await answer.run(receive):
                    self.metrics.left.labels(name).inc()
                return
        clocks = Clocks.of(self.setup.config.pass_through, kind=endpoint.kind, stream=streams)
        await self._relayed(endpoint, query, upstream_ones, content, receive, reply, clocks)

    async def _relayed(
        self,
        endpoint: Endpoint,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        content: bytes | None,
        receive: Receive,
        reply: Reply,
        clocks: Clocks,
    ) -> None:
        async with anyio.create_task_group() as beside:

            async def watch() -> None:
                await gone(receive)
                beside.cancel_scope.cancel()

            beside.start_soon(watch)
            cut: Cut | None = None
            try:
                await relay(
                    self._upstream,
                    reply,
                    clocks,
                    method=METHODS[endpoint.kind],
                    path=endpoint.path,
                    query=query,
                    headers=headers,
                    content=content,
                )
            except Cut as error:
                cut = error
            beside.cancel_scope.cancel()
        if cut is not None:
            raise cut


def _is_view(path: str) -> bool:
    return path == VIEW or path.startswith(VIEW + "/")


def _call_log() -> Any:
    """Records of calls as lines of the standard library's log."""
    import structlog

    return structlog.wrap_logger(
        logging.getLogger("streamguard.calls"),
        processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
