"""The proxy as a running server: its socket, its signals, and an end in good order.

In charge of the process's side. Draining: after the first signal nothing new is taken (`/healthz` says so), running
answers get `drain` seconds, then they are interrupted, each with its error; a second signal ends at once.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc

from streamguard.errors import ConfigError
from streamguard.http.server import BACKLOG, Server
from streamguard.proxy.app import Proxy
from streamguard.proxy.config import Listen

_log = logging.getLogger("streamguard.proxy")

AFTER_INTERRUPT: Final = 5.0
"""Seconds that interrupted answers get to say so to their clients, before their tasks are cancelled."""

BY: Final = "the proxy, which is shutting down"


class ProxyServer:
    """A proxy on a socket. Run it once."""

    def __init__(self, proxy: Proxy) -> None:
        config = proxy.setup.config
        self.proxy = proxy
        self._stopping = anyio.Event()
        self._server = Server(
            proxy,
            config.limits,
            on_refused=proxy.count_refusal,
            guess=proxy.guess,
            goodbye=config.drain + AFTER_INTERRUPT + 1,
        )
        proxy.metrics.connections.set_function(lambda: self._server.connected)

    @property
    def connected(self) -> int:
        """Clients connected."""
        return self._server.connected

    async def serve(self, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then drain. Closes the socket."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drained)
            try:
                await self._server.serve(listener, started)
            finally:
                listener.close()
                await self.proxy.aclose()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Drain, then end `serve`. Once more: end at once."""
        again = self._stopping.is_set()
        if again:
            self._interrupt()
        self.proxy.drain()
        self._server.stop(at_once=again)
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
        made = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(f"cannot listen on {listen}: {error.strerror or error}") from error
    # Inherited by every connection. asyncio sets it itself, but not on sockets it did not make: then the second small
    # write of a response waits for the client's delayed acknowledgement, 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
