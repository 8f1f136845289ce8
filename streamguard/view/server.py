"""The live view beside a program: a small server in the program's own event loop.

In charge of one listening socket and of going away in order. A view that breaks never takes the program with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from streamguard.engine.runtime import Runtime
from streamguard.errors import ConfigError
from streamguard.files.extras import needs
from streamguard.view.access import checked_token, is_loopback

if TYPE_CHECKING:
    from streamguard.view.app import View

_log = logging.getLogger("streamguard")

PATH: Final = "/_streamguard/"

CONNECTIONS: Final = 200
"""Browsers connected at a time; the oldest that has shown no token makes room."""

GOODBYE: Final = 1.0
"""Seconds that open connections have to end when the program does."""


def serve_view(
    runtime: Runtime, host: str = "127.0.0.1", port: int = 8788, *, token: str | None = None
) -> AbstractAsyncContextManager[str]:
    """Serve the live view of a runtime while the block runs: `async with serve_view(runtime) as url:`.

    On asyncio only, which is what its server runs on. Signals stay the program's.

    :param host: where to listen. Anything but a loopback address needs a token.
    :param port: 0 for any that is free.
    :param token: what a browser must know; `"new"` makes one. It stands in the `url`, behind a `#`, where no server or
        log sees it.
    :param runtime: whose calls are shown.
    :returns: a context that gives the address.
    :raises ConfigError: no token for others than this machine, a port that is taken, trio, or the extra is missing.
    """
    return _Serving(runtime, host, port, secrets.token_urlsafe(24) if token == "new" else checked_token(token))  # noqa: S105


class _Serving:
    """See `serve_view`."""

    def __init__(self, runtime: Runtime, host: str, port: int, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"the live view on {host} could be seen by other machines: give it a token, or listen on 127.0.0.1"
            )
        self._token = token
        self._runtime = runtime
        self._host, self._port = host, port
        self._tasks: anyio.abc.TaskGroup | None = None
        self._view: View | None = None
        self._server: Any = None

    async def __aenter__(self) -> str:
        server_of = _import()
        listener = _listen(self._host, self._port)
        self._over = anyio.Event()
        try:
            self._view, self._server = server_of(self._runtime, self._token)
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
        except BaseException:
            listener.close()
            raise
        self._tasks.start_soon(self._serve, listener)
        port = listener.getsockname()[1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{name}:{port}{PATH}" + ("" if self._token is None else f"#token={self._token}")

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, view = self._tasks, self._view
        if tasks is None or view is None:
            return
        view.close()
        self._server.stop()
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 2 * GOODBYE):
                await self._over.wait()
        finally:
            tasks.cancel_scope.cancel()
            # Not the block's own error: it would come out inside of an exception group.
            await tasks.__aexit__(None, None, None)

    async def _serve(self, listener: socket.socket) -> None:
        try:
            with listener:
                await self._server.serve(listener)
        except Exception:
            _log.exception("the live view has ended; the program goes on")
        finally:
            self._over.set()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"the live view cannot listen on {host}:{port}: {error.strerror or error}; give it another port, or 0"
        ) from error


def check_installed() -> None:
    """Ask for what the live view needs, before anything else is begun.

    :raises ConfigError: it is not installed.
    """
    with needs("the live view", "proxy"):
        import starlette  # noqa: F401


def _import() -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigError(
            "serve_view() needs asyncio, which its server runs on; elsewhere mount View(runtime) in a server of yours"
        ) from error
    with needs("the live view", "proxy"):
        from starlette.applications import Starlette
        from starlette.responses import RedirectResponse
        from starlette.routing import Mount, Route

        from streamguard.http.limits import Limits
        from streamguard.http.server import Server
        from streamguard.view.app import View

    def server_of(runtime: Runtime, token: str | None) -> tuple[View, Server]:
        view = View(runtime, token=token)
        app = Starlette(routes=[Mount(PATH.rstrip("/"), app=view), Route("/", RedirectResponse(PATH))])
        return view, Server(app, Limits(connections=CONNECTIONS), goodbye=GOODBYE)

    return server_of
