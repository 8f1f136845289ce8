"""The live view as an ASGI application: routes, and what every answer says to the browser about safety.

In charge of HTTP. Who may ask is `access`, what there is to see is `board`, what changes is `feed`.

| route | what |
| --- | --- |
| `GET /` and the page's files | the page; holds nothing |
| `GET /state?call=ID` | everything at this moment, as JSON |
| `GET /events?call=ID` | the same as server-sent events, and what changes |
| `POST /calls/ID/interrupt` | end a call: `operator.interrupt` |
| `POST /pause`, `POST /resume` | hold new attempts back, let them go on |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from streamguard.engine.runtime import Runtime
from streamguard.http.exchange import KNOWN, STRANGERS
from streamguard.relay.frames import json_bytes
from streamguard.relay.response import serve
from streamguard.view.access import checked_token, refused
from streamguard.view.board import Board, now
from streamguard.view.feed import Feed

_log = logging.getLogger("streamguard")

FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/view.css": ("view.css", "text/css; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""The page's own files, by route."""

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Of every answer. What a model says is never markup here, and if it were, nothing of it would run."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class View:
    """The live view of a runtime: mount it at `/_streamguard`, in the event loop that the runtime's calls run in.

    :param token: what a browser must know. Without one, only this machine may look.
    :param by: who an interrupt is said to come from.
    :raises ConfigError: a token that cannot be one.
    """

    def __init__(self, runtime: Runtime, *, token: str | None = None, by: str = "the live view's operator") -> None:
        self._token = checked_token(token)
        self._by = by
        self._runtime = runtime
        self._board = Board(runtime)
        self._closing = anyio.Event()
        self._router = Router(
            routes=[
                *(Route(path, self._file, methods=["GET"]) for path in FILES),
                Route("/state", self._state, methods=["GET"]),
                Route("/events", self._events, methods=["GET"]),
                Route("/calls/{call}/interrupt", self._interrupt, methods=["POST"]),
                Route("/pause", self._pause, methods=["POST"]),
                Route("/resume", self._resume, methods=["POST"]),
            ],
            redirect_slashes=False,
            default=_json({"error": "the live view has no such page"}, 404),
        )

    def close(self) -> None:
        """End what browsers have open, and let go of the runtime."""
        self._closing.set()
        self._board.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        public = path in FILES or not path
        refusal = refused(scope, self._token, public=public)
        if refusal is None and not public:
            scope[KNOWN] = True
        if refusal is not None:
            _log.warning("the live view refused %s %.64s: %s", scope["method"], path, refusal.why, extra=STRANGERS)
            more = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
            await _json({"error": refusal.why}, refusal.status, more)(scope, receive, send)
        elif not path:
            # The page's own addresses are relative to it.
            there = scope.get("root_path", "").rsplit("/", 1)[-1] + "/"
            await Response(status_code=307, headers={**HEADERS, "location": there})(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _file(self, request: Request) -> Response:
        name, kind = FILES[request.url.path.removeprefix(request.scope.get("root_path", ""))]
        return Response(_static(name), headers={**HEADERS, "content-type": kind})

    async def _state(self, request: Request) -> Response:
        await self._board.balances.refresh()
        call = request.query_params.get("call")
        state = self._board.overview() | {"detail": None if call is None else self._board.detail(call)}
        return _json({"now": now(), **state})

    async def _events(self, request: Request) -> Response:
        feed = Feed(self._board, request.query_params.get("call"), self._closing)

        class Events(Response):
            """The feed as a response."""

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
                kind = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
                head = [(name.encode(), value.encode()) for name, value in {**HEADERS, **kind}.items()]
                await serve(feed, receive, send, head)

        return Events()

    async def _interrupt(self, request: Request) -> Response:
        call = request.path_params["call"]
        if not self._board.interrupt(call, self._by):
            return _json({"error": f"no call {call!r} runs"}, 404)
        _log.warning("%s interrupts call %s", self._by, call)
        return _json({"interrupted": call}, 202)

    async def _pause(self, request: Request) -> Response:  # noqa: ARG002
        self._runtime.pause(self._by)
        _log.warning("%s pauses admission", self._by)
        return _json({"paused": self._by})

    async def _resume(self, request: Request) -> Response:  # noqa: ARG002
        self._runtime.resume()
        _log.warning("%s resumes admission", self._by)
        return _json({"paused": None})


@cache
def _static(name: str) -> bytes:
    return files("streamguard.view").joinpath("static", name).read_bytes()


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    given = {**HEADERS, "content-type": "application/json", **(headers or {})}
    return Response(json_bytes(data), status, given)
