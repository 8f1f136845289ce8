"""The proxy as a running server: its socket, uvicorn, and an end in good order.

In charge of the process's side. Draining: after the first signal nothing new is taken (`/healthz` says so), running
answers get `drain` seconds, then they are interrupted, each with its error; a second signal ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import anyio.abc
import uvicorn

from streamguard.errors import ConfigError
from streamguard.http.connection import protocol
from streamguard.proxy.app import Proxy
from streamguard.proxy.config import Listen

_log = logging.getLogger("streamguard.proxy")

AFTER_INTERRUPT: Final = 5.0
"""Seconds that interrupted answers get to say so to their clients, before their tasks are cancelled."""

BY: Final = "the proxy, which is shutting down"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first."""

    on_startup: Callable[[], None] = staticmethod(lambda: None)
    leaving: anyio.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_startup()

    async def main_loop(self) -> None:
        # Once a second for the date of responses; and at once when it is time to go.
        while not await self.on_tick(0):
            with anyio.move_on_after(1.0):
                await self.leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ProxyServer:
    """A proxy on a socket. Run it once."""

    def __init__(self, proxy: Proxy) -> None:
        config = proxy.setup.config
        self.proxy = proxy
        self._stopping = anyio.Event()
        self._server = _Server(
            uvicorn.Config(
                proxy,
                http=protocol(config.limits, proxy.count_refusal),
                ws="none",
                loop="none",
                lifespan="on",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=config.limits.head_bytes + 1024,
                timeout_keep_alive=round(config.limits.idle_seconds),
                timeout_graceful_shutdown=round(config.drain + AFTER_INTERRUPT) + 1,
                backlog=2048,
            )
        )
        self._server.leaving = self._stopping
        proxy.metrics.connections.set_function(lambda: len(self._server.server_state.connections))

    async def serve(self, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then drain. Closes the socket."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drained)
            self._server.on_startup = started
            try:
                await self._server.serve(sockets=[listener])
            finally:
                listener.close()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Drain, then end `serve`. Once more: end at once."""
        if self._stopping.is_set():
            self._server.force_exit = True
            self._interrupt()
        self.proxy.drain()
        self._server.should_exit = True
        self._stopping.set()

    async def signals(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Call `stop` for SIGINT and SIGTERM, until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                again = "" if self.proxy.draining else "; once more to leave at once"
                _log.warning("%s: draining%s", signal.Signals(number).name, again)
                self.stop()

    async def _drained(self) -> None:
        """Interrupt what still runs when the time for draining is over."""
        await self._stopping.wait()
        await anyio.sleep(self.proxy.setup.config.drain)
        self._interrupt()

    def _interrupt(self) -> None:
        for call in list(self.proxy.runtime.calls.values()):
            call.interrupt(BY)


def bound_socket(listen: Listen) -> socket.socket:
    """A listening socket.

    :raises ConfigError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        made = socket.create_server((listen.host, listen.port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {listen}: {error.strerror or error}") from error
    # Inherited by every connection. asyncio sets it itself, but not on sockets it did not make: then the second small
    # write of a response waits for the client's delayed acknowledgement, 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
