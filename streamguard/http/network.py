"""Connections to the upstream, for httpcore's pool: plain asyncio, and where to is judged when connecting.

In charge of TCP and TLS. A read is a future that the transport's callback fills: of a stream of small events that costs
a third of what httpcore's own backend for asyncio and trio does. A name is resolved once, its addresses are judged, and
one of those is connected to: between a check and a connection that resolves again, a name can change its mind (DNS
rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

import anyio
import httpcore2
from httpcore2 import SOCKET_OPTION

HIGH_WATER: Final = 262_144
"""Bytes received and not read, beyond which the socket is left alone: TCP holds the provider back."""


class Network(httpcore2.AsyncNetworkBackend):
    """Connects.

    :param public_only: refuse private and loopback addresses.
    """

    def __init__(self, *, public_only: bool = False) -> None:
        self._public_only = public_only

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first of the host's addresses that takes one.

        :raises httpcore2.ConnectError: none does, or none may.
        """
        loop = asyncio.get_running_loop()
        try:
            with anyio.fail_after(timeout):
                addresses = await self._addresses(host, port)
                local = None if local_address is None else (local_address, 0)
                for last, address in enumerate(addresses, 1 - len(addresses)):
                    try:
                        _, stream = await loop.create_connection(Connection, address, port, local_addr=local)
                        break
                    except OSError:
                        if last == 0:
                            raise
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host}:{port}") from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        for option in socket_options or ():
            stream.get_extra_info("socket").setsockopt(*option)
        return stream

    async def _addresses(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if not self._public_only or is_public(address)]
        if not allowed:
            raise OSError(f"{host} leads to {', '.join(addresses)}, which is not public")
        return allowed

    async def sleep(self, seconds: float) -> None:
        """See the base."""
        await asyncio.sleep(seconds)


class Connection(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection; read by one task."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received: list[bytes] = []
        self._size = 0
        self._paused = self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False

    # The transport calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self._ended = True
        _wake(self._reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    # The pool calls these

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, at least one byte; nothing at the end.

        :raises httpcore2.ReadError: the connection broke.
        """
        while not self._received:
            if self._ended:
                if self._error is not None:
                    raise httpcore2.ReadError(str(self._error) or type(self._error).__name__) from self._error
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await _within(self._reader, timeout, httpcore2.ReadTimeout)
            finally:
                self._reader = None
        data = self._received[0] if len(self._received) == 1 else b"".join(self._received)
        self._received.clear()
        if len(data) > max_bytes:
            self._received.append(data[max_bytes:])
            data = data[:max_bytes]
        self._size -= len(data)
        if self._paused and self._size <= HIGH_WATER // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes | memoryview, timeout: float | None = None) -> None:
        """Send, and wait while much is unsent.

        :raises httpcore2.WriteError: the connection is closed.
        """
        if not buffer:
            return
        if self._transport is None or self._ended or self._transport.is_closing():
            raise httpcore2.WriteError(str(self._error or "the connection is closed"))
        self._transport.write(buffer)
        while self._full and not self._ended:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await _within(self._writer, timeout, httpcore2.WriteTimeout)
            finally:
                self._writer = None

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """Close at once. TLS is not said good-bye to: nothing that matters is under way, and that could take long."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if transport.get_extra_info("ssl_object") is not None:
                transport.abort()
            else:
                transport.close()
        self._ended = True

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection under TLS.

        :raises httpcore2.ConnectError: the handshake failed; the certificate is not the host's, for one.
        """
        assert self._transport is not None
        try:
            with anyio.fail_after(timeout):
                secured = await asyncio.get_running_loop().start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self._transport.abort()
            raise httpcore2.ConnectTimeout(f"TLS with {server_hostname}") from error
        except OSError as error:  # ssl.SSLError among them
            self._transport.abort()
            raise httpcore2.ConnectError(str(error)) from error
        except BaseException:
            self._transport.abort()
            raise
        self._transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        """See the base."""
        if info == "is_readable":
            # Between answers nothing is to be read: what has arrived is the end, or what no client should see.
            return bool(self._received) or self._ended
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return None if self._transport is None else self._transport.get_extra_info(names.get(info, info))


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _within(waiter: asyncio.Future[None], seconds: float | None, late: type[Exception]) -> None:
    if seconds is None:
        await waiter
        return
    try:
        with anyio.fail_after(seconds):
            await waiter
    except TimeoutError as error:
        raise late from error


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet. What an IPv6 address wraps is judged too."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast
