"""The ASGI application: who asks, what for, and which of the parts answers.

In charge of putting the parts together, of refusals as responses, and of draining. It knows no bytes of HTTP and no
events of a stream.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry_structlog import structlog_hook
from streamguard.http.refusals import Refused
from streamguard.proxy.access import Access, Caller, Headers, value
from streamguard.proxy.answers.passthrough import Cut, relay
from streamguard.proxy.answers.reply import Reply, Send, gone
from streamguard.proxy.answers.report_headers import as_list
from streamguard.proxy.body import ClientGone, Receive, asked, read_body
from streamguard.proxy.configfile import Setup
from streamguard.proxy.headers import upstream_headers, without
from streamguard.proxy.messages import JSON, GuardedAnswer, Order
from streamguard.proxy.metrics import Metrics
from streamguard.proxy.routes import METHODS, Endpoint, Routes, checked_query, group_of
from streamguard.proxy.tenancy import KEY, KeyedRuntime, fingerprint
from streamguard.proxy.upstream import Upstream, UpstreamSource
from streamguard.view import View

_log = logging.getLogger("streamguard.proxy")

SMALL_SECONDS: Final = 60.0
"""For which the upstream may be silent at endpoints beside messages."""

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
        self._access = Access(config, setup.tokens, has_key=setup.key is not None)
        self._routes = Routes(config, setup.default)
        self._upstream = Upstream(config)
        # Any operator's token opens the view, which knows one: it is given a token that only this object has.
        self._view_token = None if config.open_to_all else secrets.token_urlsafe(32)
        operated = config.open_to_all or any(client.operator for client in config.clients)
        self._view = View(self.runtime, token=self._view_token) if config.view and operated else None
        self._inner: ASGIApp = Starlette(
            routes=[
                Route("/healthz", _Endpoint(self._healthz), methods=["GET"]),
                Route("/metrics", _Endpoint(self._metrics), methods=["GET"]),
                *([] if self._view is None else [Mount(VIEW, _Endpoint(self._seen))]),
                Mount("/", _Endpoint(self._api)),
            ],
            lifespan=self._lifespan,
        )
        self._inner.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        reply = Reply(send)
        try:
            self._admit(scope)
            await self._inner(scope, receive, send)
        except Refused as refusal:
            await self.refuse(reply, refusal)

    def drain(self) -> None:
        """Take nothing new. Whoever looks on is let go: an open page would keep the server for ever."""
        self.draining = True
        if self._view is not None:
            self._view.close()

    def _admit(self, scope: Scope) -> None:
        """Who asks, before anything else is looked at.

        :raises Refused: nobody who may.
        """
        path, headers = scope["path"], scope["headers"]
        if path == "/healthz":
            return
        if self._view is not None and (path == VIEW or path.startswith(VIEW + "/")):
            return  # it judges by itself: its page is for everybody, what it shows is not
        if path == "/metrics" and self._access.is_operator(headers):
            return
        caller = scope[_CALLER] = self._access.caller(headers)
        if path == "/metrics":
            if not caller.operator:
                raise Refused("not_operator")
        elif self.draining:
            raise Refused("draining", headers={"connection": "close", "retry-after": "1"})

    async def refuse(self, reply: Reply, refusal: Refused) -> None:
        """Answer with a refusal."""
        self.count_refusal(refusal)
        headers = {**refusal.headers, "x-streamguard-refused": refusal.name, "x-should-retry": "false"}
        if refusal.name == "draining":
            del headers["x-should-retry"]
        await reply.whole(refusal.status, [*JSON, *as_list(headers)], refusal.body())

    def count_refusal(self, refusal: Refused) -> None:
        """Count a refusal, wherever it was made."""
        self.metrics.refused.labels(refusal.name).inc()
        _log.info("refused: %s, status %d", refusal.name, refusal.status)

    @asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                if self._view is not None:
                    self._view.close()
                await self._upstream.aclose()
                await self.runtime.aclose()

    # Endpoints

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        status, body = (503, b'{"status":"draining"}') if self.draining else (200, b'{"status":"ok"}')
        await Reply(send).whole(status, JSON, body)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        kind, text = self.metrics.exposition(value(scope["headers"], b"accept") or "")
        await Reply(send).whole(200, [(b"content-type", kind.encode())], text)

    async def _seen(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The live view; a request with an operator's token bears the view's own from here on."""
        assert self._view is not None
        headers: Headers = scope["headers"]
        if self._view_token is not None and self._access.is_operator(headers):
            bearer = (b"authorization", b"Bearer " + self._view_token.encode())
            scope["headers"] = [bearer, *without(headers, [b"authorization"])]
        await self._view(scope, receive, send)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = anyio.current_time()
        caller: Caller = scope[_CALLER]
        reply = Reply(send)
        kind = "none"
        try:
            endpoint = self._routes.endpoint(scope["method"], scope["path"])
            kind = endpoint.kind
            await self._answer(endpoint, scope, caller, receive, reply)
        except ClientGone:
            return
        except Cut as cut:
            # Returning without an end makes the server break the connection off.
            _log.warning("%s for %s was cut: %s", kind, caller.name, cut)
        except Refused as refusal:
            await self.refuse(reply, refusal)
        self.metrics.requests.labels(kind, str(reply.status or 0)).inc()
        _log.info("%s for %s: %s in %.3f s", kind, caller.name, reply.status, anyio.current_time() - began)

    async def _answer(self, endpoint: Endpoint, scope: Scope, caller: Caller, receive: Receive, reply: Reply) -> None:
        headers: Headers = scope["headers"]
        query = checked_query(scope["query_string"])
        wants_body = endpoint.kind != "models"
        upstream_ones = upstream_headers(
            headers, key=self.setup.key, extra=self.setup.config.forward_headers, content=wants_body
        )
        content = await read_body(headers, receive, self.setup.config.limits) if wants_body else None
        if endpoint.kind == "messages" and content is not None:
            question = await asked(content)
            name = self._routes.policy(headers, endpoint.prefix, question.model)
            policy = self.setup.policies[name]
            if policy is not None:
                if self.setup.key is None:
                    KEY.set(fingerprint(upstream_ones))
                source = UpstreamSource(self._upstream, question, query=query, headers=upstream_ones)
                order = Order(
                    asked=question,
                    policy=policy,
                    labels={"client": caller.name, "policy": name},
                    group=group_of(headers),
                    alone=self.setup.config.open_to_all,
                )
                answer = GuardedAnswer(order, source, self.runtime, reply, self.setup.config.keep_alive)
                if not await answer.run(receive):
                    self.metrics.left.labels(name).inc()
                return
        await self._relayed(endpoint, query, upstream_ones, content, receive, reply)

    async def _relayed(
        self,
        endpoint: Endpoint,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        content: bytes | None,
        receive: Receive,
        reply: Reply,
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
                    method=METHODS[endpoint.kind],
                    path=endpoint.path,
                    query=query,
                    headers=headers,
                    content=content,
                    **({} if endpoint.kind == "messages" else {"seconds": SMALL_SECONDS}),
                )
            except Cut as error:
                cut = error
            beside.cancel_scope.cancel()
        if cut is not None:
            raise cut


def _call_log() -> Any:
    """Records of calls as lines of the standard library's log."""
    import structlog

    return structlog.wrap_logger(
        logging.getLogger("streamguard.calls"),
        processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


class _Endpoint:
    """An ASGI application of a bound method; Starlette would take the method itself for something else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
